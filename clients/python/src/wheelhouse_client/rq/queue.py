"""A queue that tells Wheelhouse of each job when it is enqueued, and when it is removed before it has begun."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rq import Queue
from rq.job import Job as RqJob
from rq.job import JobStatus

from ..published import tell, tell_removed
from .performing import describe, tenant_of


class ControlledJob(RqJob):
    """RQ's job. Cancelled or deleted before it has begun, it is cancelled in Wheelhouse, too."""

    def cancel(self, *given: Any, **more: Any) -> Any:
        waits = _waits(self)
        answer: Any = super().cancel(*given, **more)
        if waits:
            removed(self)
        return answer

    def delete(self, *given: Any, **more: Any) -> None:
        waits = _waits(self)
        super().delete(*given, **more)
        if waits:
            removed(self)


class ControlledQueue(Queue):
    """RQ's queue, but each job is shown before any worker has it, and can be paused and cancelled then.

    Jobs with ``meta["tenant_id"]`` (or with WHEELHOUSE_TENANT in this process) are told of, also those that wait for others or
    for their time. Its jobs are ``ControlledJob``; those that are removed before they have begun are cancelled.
    """

    job_class = ControlledJob

    def empty(self) -> Any:
        jobs = self.get_jobs()
        untyped: Any = super()
        answer: Any = untyped.empty()
        for job in jobs:
            removed(job)
        return answer

    def enqueue_call(self, *given: Any, **more: Any) -> RqJob:
        job: RqJob = super().enqueue_call(*given, **more)
        published(job)
        return job

    def enqueue_many(self, *given: Any, **more: Any) -> list[RqJob]:
        jobs: list[RqJob] = super().enqueue_many(*given, **more)
        for job in jobs:
            published(job)
        return jobs

    def schedule_job(self, job: RqJob, datetime: datetime, *rest: Any, **more: Any) -> RqJob:
        scheduled: RqJob = super().schedule_job(job, datetime, *rest, **more)
        published(scheduled, datetime)
        return scheduled


def published(job: RqJob, run_after: datetime | None = None) -> None:
    """Says that a job has been enqueued, for queues of another class. Never fails."""
    tenant = tenant_of(job)
    if tenant is not None:
        tell(describe(job, tenant), run_after)


def removed(job: RqJob) -> None:
    """Says that a job was removed before it has begun, for jobs of another class. Never fails."""
    tenant = tenant_of(job)
    if tenant is not None:
        tell_removed(describe(job, tenant))


def _waits(job: RqJob) -> bool:
    try:
        return job.get_status() in (JobStatus.CREATED, JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.DEFERRED)
    except Exception:  # It is not there any more.
        return False


__all__ = ["ControlledJob", "ControlledQueue", "published", "removed"]
