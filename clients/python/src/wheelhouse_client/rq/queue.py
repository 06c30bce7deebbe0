"""A queue that tells Wheelhouse of each job when it is enqueued."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rq import Queue
from rq.job import Job as RqJob

from ..published import tell
from .performing import describe, tenant_of


class ControlledQueue(Queue):
    """RQ's queue, but each job is shown before any worker has it, and can be paused and cancelled then.

    Jobs with ``meta["tenant_id"]`` (or with WHEELHOUSE_TENANT in this process) are told of, also those that wait for others or
    for their time.
    """

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


__all__ = ["ControlledQueue", "published"]
