"""RQ's workers, with each job attached to Wheelhouse before its function runs."""

from __future__ import annotations

import copy
import os
import threading
from datetime import timedelta
from typing import Any

from redis import Redis
from rq import SimpleWorker, Worker
from rq.exceptions import AbandonedJobError
from rq.job import Job as RqJob
from rq.job import JobStatus

from .. import process
from ..begin import begin, finish
from ..errors import AlreadyEnded, NotReachable, Refused
from ..marks import take
from ..session import Session
from ..settings import Settings
from .control import HeldTime
from .performing import Performing, describe, tenant_of


class _Controlled:
    """What both kinds of worker have in common. ``_outcome`` is how Wheelhouse, not the function, ended the job."""

    name: str
    connection: Any
    log: Any
    push_exc_handler: Any
    pop_exc_handler: Any
    killable = False

    def wheelhouse_session(self) -> Session:
        return process.session(Settings.from_environment(name=f"rq@{self.name}"))

    def perform_job(self, job: RqJob, queue: Any, *rest: Any, **more: Any) -> bool:
        tenant = tenant_of(job)
        if tenant is None:
            self.log.warning("Job %s has no meta['tenant_id'] and runs without control", job.id)
            return bool(super().perform_job(job, queue, *rest, **more))  # type: ignore[misc]
        performing = Performing(self.wheelhouse_session(), job, tenant, self._held(), self.killable)
        self._performing = performing
        job.perform = performing.perform  # type: ignore[method-assign]
        stop = self._start_heartbeats(job, performing, rest, more)
        try:
            done = bool(super().perform_job(job, queue, *rest, **more))  # type: ignore[misc]
            performing.settle(job, queue)
            return done
        finally:
            stop()
            self._performing = None
            if self.killable:
                process.close()  # The work horse leaves with os._exit, which says no goodbye.

    _performing: Performing | None = None

    def _held(self) -> HeldTime:
        return HeldTime()

    def _start_heartbeats(self, job: RqJob, performing: Performing, rest: Any, more: Any) -> Any:
        return lambda: None

    def handle_exception(self, job: RqJob, *exc_info: Any) -> None:
        """A job that Wheelhouse ended has not failed: no error is logged, no exception handler runs."""
        if self._outcome_of(job) is None:
            super().handle_exception(job, *exc_info)  # type: ignore[misc]

    def handle_job_failure(self, job: RqJob, queue: Any, *rest: Any, **more: Any) -> None:
        outcome = self._outcome_of(job)
        if outcome is None:
            super().handle_job_failure(job, queue, *rest, **more)  # type: ignore[misc]
            # In the worker itself, not in the work horse that has the job.
            if self._performing is None:
                self._close_row(job)
            return
        execution = more.get("execution")
        with self.connection.pipeline() as pipeline:
            if execution is not None:
                self.cleanup_execution(job, pipeline=pipeline, execution=execution)  # type: ignore[attr-defined]
            else:
                self.cleanup_execution(job, pipeline=pipeline)  # type: ignore[attr-defined]
            if outcome in (JobStatus.FINISHED, JobStatus.FAILED):
                job.set_status(outcome, pipeline=pipeline)
            pipeline.execute()
        if outcome is JobStatus.CANCELED:
            job.cancel()
            self.log.info("Job %s cancelled", job.id)
        elif outcome is JobStatus.QUEUED:
            queue.enqueue_job(job)
            self.log.info("Job %s is put back into its queue", job.id)

    def clean_registries(self) -> None:
        """RQ's maintenance also finds jobs whose worker was killed. Of those that it does not run again the rows have failed."""
        abandoned: list[RqJob] = []

        def note(job: RqJob, kind: type[BaseException], *_: object) -> None:
            if kind is AbandonedJobError:
                abandoned.append(job)

        self.push_exc_handler(note)
        try:
            super().clean_registries()  # type: ignore[misc]
        finally:
            self.pop_exc_handler()
        for job in abandoned:
            self._close_row(job)

    def _close_row(self, job: RqJob) -> None:
        """The job's process ended without a word. Where RQ does not run the job again, its row has failed."""
        tenant = tenant_of(job)
        if tenant is None or job.get_status() not in (JobStatus.FAILED, JobStatus.STOPPED):
            return
        stopped = job.get_status() is JobStatus.STOPPED
        try:
            session = self.wheelhouse_session()
            run = begin(session, describe(job, tenant), unreachable_for=5.0)
            lost = {"how": "failed", "error": "the process of the job ended without a word", "permanent": True}
            finish(session, run, None, {"how": "cancelled"} if stopped else lost, timeout=5.0)
        except AlreadyEnded:
            pass
        except (Refused, NotReachable) as error:
            self.log.warning("The row of job %s is left as it is: %s", job.id, error)
        finally:
            if self.killable:
                process.close()  # No link is carried over the next fork.

    def _outcome_of(self, job: RqJob) -> JobStatus | None:
        if getattr(job, "_wheelhouse_killed", False):
            return JobStatus.CANCELED
        return self._performing.outcome if self._performing is not None else None


class ControlledWorker(_Controlled, Worker):
    """RQ's worker: a work horse for each job, reached by a signal, and killed where it does not obey in time."""

    killable = True
    _shared: HeldTime | None = None
    _accounted = 0.0

    def execute_job(self, job: RqJob, queue: Any) -> None:
        self._shared = HeldTime()  # Made before the fork: the horse writes, the parent reads.
        self._accounted = 0.0
        super().execute_job(job, queue)

    def _held(self) -> HeldTime:
        return self._shared or HeldTime()

    def maintain_heartbeats(self, job: RqJob, *rest: Any, **more: Any) -> None:
        """The parent kills a horse whose job has run for too long: time in which it was held does not count."""
        held = self._held().seconds
        if job.started_at is not None:
            job.started_at += timedelta(seconds=held - self._accounted)
        self._accounted = held
        super().maintain_heartbeats(job, *rest, **more)

    def handle_work_horse_killed(self, job: RqJob, retpid: Any, ret_val: Any, rusage: Any) -> None:
        if take(job.id):
            job._wheelhouse_killed = True  # type: ignore[attr-defined]
            return
        told: Any = super()
        told.handle_work_horse_killed(job, retpid, ret_val, rusage)


class ControlledSimpleWorker(_Controlled, SimpleWorker):
    """RQ's worker without a work horse. It cannot be killed: its process is the worker itself."""

    def _start_heartbeats(self, job: RqJob, performing: Performing, rest: Any, more: Any) -> Any:
        """RQ's own beats come between jobs alone: without them a job that is held would be taken for abandoned."""
        execution = more.get("execution") or (rest[0] if rest else None)
        over = threading.Event()
        if execution is None:
            return over.set
        arguments = self.connection.connection_pool.connection_kwargs
        kind = self.connection.connection_pool.connection_class
        twin: Any = copy.copy(self)

        def beat() -> None:
            # A connection of its own: the main thread may be held in the middle of a use of the worker's.
            pool = type(self.connection.connection_pool)(connection_class=kind, **arguments)
            twin.connection = Redis(connection_pool=pool)
            while not over.wait(min(30.0, float(getattr(self, "job_monitoring_interval", 30)))):
                control = performing.control
                if control is not None and control._holding:
                    try:
                        twin.maintain_heartbeats(job, execution)
                    except Exception as error:
                        os.write(2, f"a heartbeat of job {job.id} failed: {error}\n".encode())
            pool.disconnect()

        threading.Thread(target=beat, name="wheelhouse-heartbeat", daemon=True).start()
        return over.set
