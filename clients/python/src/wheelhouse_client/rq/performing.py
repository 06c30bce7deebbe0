"""One execution of an RQ job: attach, run the function, tell how RQ has ended it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from typing import Any

from rq.exceptions import InvalidJobOperation
from rq.job import Job as RqJob
from rq.job import JobStatus

from .. import interrupt
from ..begin import begin, end_message, finish, handed_back, order_behind
from ..control import Control, _current
from ..errors import AlreadyEnded, Cancelled, Elsewhere, HandedBack, Lost, TimedOut
from ..marks import kill_self
from ..messages import Job, Message, fitting_id
from ..run import Run
from ..session import Session
from .control import Alarm, HeldTime, RqControl


class JobTimedOut(Exception):
    """The job has used up its timeout_seconds, paused time not counted."""


def tenant_of(job: RqJob) -> str | None:
    """The job's ``meta["tenant_id"]``, else WHEELHOUSE_TENANT."""
    tenant = (job.meta or {}).get("tenant_id") or os.environ.get("WHEELHOUSE_TENANT")
    return str(tenant) if tenant else None


def describe(job: RqJob, tenant: str) -> Job:
    """RQ counts the retries, so the row has none of its own. RQ's timeout stays RQ's, but for the time it is held."""
    try:
        function = job.func_name or "unknown"
    except Exception:  # The job cannot be read here; RQ says so when it runs.
        function = "unknown"
    created_by = (job.meta or {}).get("created_by")
    return Job(tenant, fitting_id(job.id), f"rq:{function}", job.description or function, created_by=created_by)


class Performing:
    """See the module. ``outcome`` is the status that Wheelhouse, not the function, gives the job; else None."""

    def __init__(self, session: Session, job: RqJob, tenant: str, held: HeldTime, killable: bool) -> None:
        self.outcome: JobStatus | None = None
        self.control: Control | None = None
        self._session = session
        self._job = job
        self._description = describe(job, tenant)
        self._held = held
        self._run: Run | None = None
        self._error: BaseException | None = None
        self._result: Any = None
        self._function: Callable[[], Any] = job.perform
        self._kill = (lambda: kill_self(job.id)) if killable else None

    def perform(self) -> Any:
        """In place of the job's own ``perform``."""
        alarm = Alarm()
        alarm.stop()  # RQ's time limit is for the function, not for waiting.
        poke = interrupt.install(self._on_signal) if interrupt.available() else None
        try:
            run = self._run = begin(self._session, self._description, poke=poke, kill=self._kill)
        except AlreadyEnded as refusal:
            self.outcome = {"cancelled": JobStatus.CANCELED, "completed": JobStatus.FINISHED}.get(
                refusal.status or "", JobStatus.FAILED
            )
            self._keep_quiet()
            raise
        except Elsewhere:
            self.outcome = JobStatus.QUEUED
            self._keep_quiet()
            raise
        control = self.control = RqControl(run, self._session, self._held)
        token = _current.set(control)
        try:
            try:
                control._wait_while_held()
                alarm.start()
                control._interruptible = True
                self._result = self._function()
                return self._result
            finally:
                control._interruptible = False
        except BaseException as raised:
            error = self._error = order_behind(run, raised)
            self._end_by_order(error)
            if isinstance(error, TimedOut):
                raise JobTimedOut(str(error)) from None
            raise
        finally:
            _current.reset(token)

    def _on_signal(self) -> None:
        if self.control is not None:
            self.control._on_signal()

    def _end_by_order(self, error: BaseException | None) -> None:
        if isinstance(error, TimedOut):
            return
        if isinstance(error, HandedBack) or (isinstance(error, Lost) and error.status is None):
            self.outcome = JobStatus.QUEUED
        elif isinstance(error, Lost) and error.status != "cancelled":
            self.outcome = JobStatus.FINISHED if error.status == "completed" else JobStatus.FAILED
        elif isinstance(error, Cancelled):
            self.outcome = JobStatus.CANCELED
        if self.outcome is not None:
            self._keep_quiet()
            self.settle_now()

    def _keep_quiet(self) -> None:
        """The failure callback is for failures."""
        job: Any = self._job
        job._failure_callback = None
        job._failure_callback_name = None

    def settle_now(self) -> None:
        """Confirms an end that Wheelhouse has ordered, before RQ's own book-keeping."""
        if self._run is not None:
            finish(self._session, self._run, self._error, end_message(self._error, permanent=True))

    def settle(self, job: RqJob, queue: Any) -> None:
        """Tells how RQ has ended the job: finished, failed, or to be tried again."""
        run = self._run
        if run is not None and not run.settled and not run.over:
            finish(self._session, run, self._error, self._message(job, queue))

    def _message(self, job: RqJob, queue: Any) -> Message:
        try:
            status = job.get_status()
        except InvalidJobOperation:
            status = None  # Its result was not to be kept.
        if status in (JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.DEFERRED):
            return handed_back(_due(job, queue) if status is JobStatus.SCHEDULED else None, self._error)
        if self._error is not None:
            return end_message(self._error, permanent=True)
        if status is JobStatus.FAILED:
            return {"how": "failed", "error": "RQ has failed the job after its function returned", "permanent": True}
        return end_message(None, self._result)


def _due(job: RqJob, queue: Any) -> datetime | None:
    try:
        due: datetime = queue.scheduled_job_registry.get_scheduled_time(job)
        return due
    except Exception:
        return None
