"""Beginning and ending a run from the work's own thread."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from .control import Control, _current
from .errors import Cancelled, Elsewhere, HandedBack, Lost, NotReachable, Refused, TimedOut
from .messages import Job, Message, error_text, jsonable, rfc3339
from .run import Clock, Run
from .session import Session

logger = logging.getLogger("wheelhouse_client")

# Seconds beyond reattach_seconds that a job is waited for which another process seems to have: a child that was killed
# has been let go by then.
BEYOND_REATTACH = 4.0
WARN_EVERY = 10.0


def begin(
    session: Session,
    job: Job,
    *,
    poke: Callable[[], None] | None = None,
    kill: Callable[[], str] | None = None,
    elsewhere_for: float | None = None,
    unreachable_for: float | None = None,
) -> Run:
    """Attaches to the job, and returns its run; the work may begin once it is not held.

    While another process has the job, waits ``elsewhere_for`` seconds (None: as long as a dead process is waited for, and
    a little longer), then raises Elsewhere. While Wheelhouse is not reachable, waits ``unreachable_for`` seconds (None:
    for ever, with a warning every ten seconds), then raises NotReachable. Raises the other kinds of Refused at once.
    """
    began = Clock()
    pause = 0.2
    while True:
        run = session.attach(job, poke, kill)
        try:
            _await_answer(session, run, unreachable_for)
        except BaseException:
            session.withdraw(run)
            raise
        refusal = run.refusal
        if refusal is None:
            return run
        limit = session.reattach_seconds + BEYOND_REATTACH if elsewhere_for is None else elsewhere_for
        if not isinstance(refusal, Elsewhere) or Clock() - began >= limit:
            raise refusal
        time.sleep(min(pause, max(0.05, began + limit - Clock())))
        pause = min(1.0, pause * 2)


def _await_answer(session: Session, run: Run, unreachable_for: float | None) -> None:
    began = warned = Clock()
    while not run.changed.wait(lambda: run.phase == "attached" or run.settled, 0.5):
        now = Clock()
        if session.connected:
            began = now  # It is reachable; its answer takes its time.
        elif unreachable_for is not None and now - began >= unreachable_for:
            raise NotReachable(f"Wheelhouse is not reachable at {session.settings.url}: {session.problem}")
        if now - warned >= WARN_EVERY:
            warned = now
            logger.warning(
                "job %s waits for Wheelhouse at %s before it begins: %s",
                run.job.job_id,
                session.settings.url,
                session.problem or "no answer yet",
            )


def end_message(error: BaseException | None, result: Any = None, permanent: bool = False) -> Message:
    """What ``end`` says of work that returned ``result`` or raised ``error``."""
    if error is None:
        message: Message = {"how": "completed"}
        if result is not None:
            message["result"] = jsonable(result)
        return message
    if isinstance(error, (KeyboardInterrupt, GeneratorExit, HandedBack)):
        return {"how": "handed_back"}
    if isinstance(error, TimedOut):
        return {"how": "failed", "error": error_text(error), "permanent": True}
    if isinstance(error, Cancelled):
        return {"how": "cancelled"}
    message = {"how": "failed", "error": error_text(error)}
    if permanent:
        message["permanent"] = True
    return message


def unless_done(error: BaseException | None) -> BaseException | None:
    """Nothing where a program of its own leaves its block by ``sys.exit()``: that is its success. To the task queues it is none."""
    return None if isinstance(error, SystemExit) and error.code in (None, 0) else error


def order_behind(run: Run, error: BaseException | None) -> BaseException | None:
    """The order that ended the work, where ``error`` is only what its clean-up raised; else the error itself."""
    seen: set[int] = set()
    cause = error
    while run.raised is not None and cause is not None and id(cause) not in seen:
        if isinstance(cause, Cancelled):
            return cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return error


def handed_back(run_after: datetime | None = None, failed: BaseException | None = None) -> Message:
    """What ``end`` says of work that its own queue runs again; ``failed``: because of this error, as another try."""
    message: Message = {"how": "handed_back"}
    if failed is not None:
        message["error"] = error_text(failed)
    if run_after is not None:
        message["run_after"] = rfc3339(run_after)
    return message


def finish(
    session: Session,
    run: Run,
    error: BaseException | None,
    message: Message,
    timeout: float | None = None,
) -> str | None:
    """Tells how the work has ended, waits until that is recorded, and returns the row's status.

    An order that ended the work is confirmed by its number. None: the run was lost, or ``timeout`` (seconds) is over.
    """
    ending = run.ending
    if run.settled:
        return run.final_status
    if isinstance(error, Cancelled) and ending is not None and ending.kind in ("cancel", "time_out"):
        session.obeyed(run, ending)
    elif isinstance(error, Lost):
        session.end(run, {"how": "handed_back"})
    else:
        session.end(run, message)
    session.wait_settled(run, timeout)
    return run.final_status


def kill_process() -> str:
    """Ends this process at once: the socket that closes with it is the answer."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "the process could not be killed"


__all__ = [
    "Control",
    "Refused",
    "_current",
    "begin",
    "end_message",
    "finish",
    "handed_back",
    "kill_process",
    "unless_done",
]
