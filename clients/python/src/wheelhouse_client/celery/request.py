"""The parent's side of a task: what becomes of its row when the child cannot tell any more."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
from typing import Any

from billiard.exceptions import WorkerLostError
from celery.worker.request import Request

from ..begin import begin, finish
from ..errors import AlreadyEnded, Refused
from ..marks import take
from ..messages import Job, Message
from .settings import describe, is_configured, is_own_task, session_of, tenant_of

logger = logging.getLogger("wheelhouse_client.celery")

# Rows that wait to be closed; beyond that they are left to an operator, with a warning.
MAX_WAITING = 1000
# Rows that are closed at the same time: each may wait reattach_seconds.
MAX_THREADS = 16
# Seconds that a worker which ends waits for them.
EXIT_TIMEOUT = 5.0


class ControlledRequest(Request):  # type: ignore[misc]
    """Celery's request; see the module."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        error = exc_info.exception
        error = getattr(error, "exc", error)
        if not isinstance(error, (WorkerLostError, SystemExit, KeyboardInterrupt)) or self._is_cancelled():
            return super().on_failure(exc_info, send_failed_event, return_ok)
        if take(self.id):
            self._killed_by_wheelhouse = True
            self._announce_revoked("cancelled", True, "SIGKILL", False)
            return None
        answer = super().on_failure(exc_info, send_failed_event, return_ok)
        if not self._comes_again():
            self._close_row({"how": "failed", "error": f"the worker's process was lost: {error}", "permanent": True})
        return answer

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        answer = super().on_timeout(soft, timeout)
        if not soft and not (self.task.acks_late and not self.task.acks_on_timeout):
            self._close_row({"how": "failed", "error": f"Celery's time limit of {timeout} s is over", "permanent": True})
        return answer

    def _announce_cancelled(self, *given: Any, **more: Any) -> None:
        """A cold shutdown has ended the task. What is acknowledged late is delivered again; the rest is lost."""
        super()._announce_cancelled(*given, **more)
        if not self.task.acks_late:
            error = "Celery's cold shutdown ended the task, which had been acknowledged before"
            self._close_row({"how": "failed", "error": error, "permanent": True})

    def _is_cancelled(self) -> bool:
        return bool(getattr(self, "_already_cancelled", False))

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        super()._announce_revoked(reason, terminated, signum, expired)
        if not getattr(self, "_killed_by_wheelhouse", False):
            self._close_row({"how": "cancelled"})

    def _comes_again(self) -> bool:
        task = self.task
        late = task.acks_late and task.reject_on_worker_lost
        return bool(late or getattr(task, "retry_on_worker_lost", False))

    def _close_row(self, message: Message) -> None:
        try:
            if is_own_task(self.task.name) or not is_configured(self.app):
                return
            args, kwargs, headers = self.args, self.kwargs, self._request_dict
            tenant = tenant_of(self.task, args, kwargs, headers)
            if tenant is not None:
                _closer.close(self.app, describe(self.task, tenant, self.id, args, kwargs, headers), message)
        except Exception as error:
            logger.warning("the row of task %s is left as it is: %s", self.id, error)


class _Closer:
    """Ends rows in threads of its own: a dead child's run is let go only after reattach_seconds."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Any, Job, Message]] = queue.Queue(maxsize=MAX_WAITING)
        self._threads = 0
        self._lock = threading.Lock()
        self._is_idle = threading.Event()
        atexit.register(self._wait)

    def close(self, app: Any, job: Job, message: Message) -> None:
        try:
            self._waiting.put_nowait((app, job, message))
        except queue.Full:
            logger.warning("the row of task %s is left as it is: too many wait to be closed", job.job_id)
            return
        with self._lock:
            self._is_idle.clear()
            if self._threads < MAX_THREADS:
                self._threads += 1
                threading.Thread(target=self._work, name="wheelhouse-closer", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                try:
                    app, job, message = self._waiting.get_nowait()
                except queue.Empty:
                    self._threads -= 1
                    if self._threads == 0:
                        self._is_idle.set()
                    return
            self._close_one(app, job, message)

    def _wait(self) -> None:
        """At the end of the worker: rows of tasks that its shutdown has ended."""
        if self._threads:
            self._is_idle.wait(EXIT_TIMEOUT)

    def _close_one(self, app: Any, job: Job, message: Message) -> None:
        try:
            session = session_of(app)
            run = begin(session, job)
            finish(session, run, None, message)
        except AlreadyEnded:
            pass
        except Refused as refusal:
            logger.warning("the row of task %s is left as it is: %s", job.job_id, refusal)
        except Exception:
            logger.exception("the row of task %s could not be closed", job.job_id)


_closer = _Closer()
