"""The task class: attaches before the body runs, and translates between Celery's ends and Wheelhouse's."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded

from ..begin import begin, end_message, finish, handed_back, order_behind
from ..control import Control, NoControl, _current, current
from ..errors import AlreadyEnded, Cancelled, Elsewhere, HandedBack, Lost, NotReachable, TimedOut
from ..messages import Message
from ..run import Run
from ..session import Session
from . import pool
from .ends import hand_on, keep_ended, revoke, unstorable
from .limits import wait_for_other, warn_of_time_limits
from .publishing import track
from .settings import (
    TENANT_HEADER,
    describe,
    is_own_task,
    is_required,
    session_of,
    tenant_of,
)

logger = logging.getLogger("wheelhouse_client.celery")

# Seconds that a task waits for Wheelhouse where app.conf.wheelhouse_required is False.
OPTIONAL_WAIT = 5.0


class ControlledTask(Task):  # type: ignore[misc]
    """``Celery("x", task_cls=ControlledTask)``: every task of the app can be paused, resumed and cancelled.

    In a bound task ``self.control`` is the job's handle (``checkpoint()``, ``progress()``, ``save()``, ``resume_point``,
    ``critical()``); called as a plain function or eagerly, it is one that does nothing.
    """

    abstract = True
    Request = "wheelhouse_client.celery.request:ControlledRequest"

    @property
    def control(self) -> Control | NoControl:
        return current() or NoControl()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request = self.request
        if request.called_directly or request.is_eager or is_own_task(self.name or ""):
            return super().__call__(*args, **kwargs)
        tenant = tenant_of(self, args, kwargs, _headers(request))
        if tenant is None:
            return self.run(*args, **kwargs)
        return _run_controlled(self, tenant, args, kwargs)

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """The class has got its app: what that publishes is told to Wheelhouse."""
        track(app)


def _headers(request: Any) -> Mapping[str, Any]:
    headers = dict(request.headers or {})
    if TENANT_HEADER not in headers and getattr(request, TENANT_HEADER, None):
        headers[TENANT_HEADER] = getattr(request, TENANT_HEADER)
    return headers


def _run_controlled(task: Any, tenant: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    request = task.request
    job = describe(task, tenant, request.id, args, kwargs, _headers(request))
    required = is_required(task.app)
    session = session_of(task.app, request.hostname)
    warn_of_time_limits(task)
    reach = pool.reach(request.id)
    try:
        run = begin(
            session,
            job,
            poke=reach.poke,
            kill=reach.kill,
            elsewhere_for=wait_for_other(task, session),
            unreachable_for=None if required else OPTIONAL_WAIT,
        )
    except AlreadyEnded as refusal:
        keep_ended(task, refusal)
        raise Ignore() from None
    except Elsewhere:
        hand_on(task)
        raise Ignore() from None
    except NotReachable as error:
        logger.warning("task %s runs without control, since wheelhouse_required is False: %s", request.id, error)
        return task.run(*args, **kwargs)
    control = Control(run, session)
    result, raised = _work(task, control, reach, args, kwargs)
    if raised is None:
        raised = unstorable(task, result)
    return _settle(task, session, run, result, order_behind(run, raised), None if required else OPTIONAL_WAIT)


def _work(
    task: Any, control: Control, reach: pool.Reach, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, BaseException | None]:
    """Runs the body; returns its result or what it raised. After this no order interrupts the thread any more."""
    token = _current.set(control)
    try:
        try:
            reach.serve(control)
            control._wait_while_held()
            control._interruptible = True
            return task.run(*args, **kwargs), None
        finally:
            control._interruptible = False
    except BaseException as error:
        return None, error
    finally:
        _current.reset(token)


def _settle(
    task: Any, session: Session, run: Run, result: Any, error: BaseException | None, timeout: float | None
) -> Any:
    """Tells Wheelhouse how the task has ended, then Celery, in Celery's own words."""
    # What becomes of a task whose process is ended is for the parent to say, which knows why: see ``request``.
    message = handed_back() if error is not None and pool.is_terminated(error) else _end_message(error, result)
    status = finish(session, run, error, message, timeout)
    if isinstance(error, Lost):
        if error.status is None:
            hand_on(task)
        elif error.status == "cancelled":
            revoke(task, str(error))
        raise Ignore() from None
    if isinstance(error, HandedBack):
        hand_on(task)
        raise Ignore() from None
    if isinstance(error, TimedOut):
        raise SoftTimeLimitExceeded(str(error)) from None
    if isinstance(error, Cancelled) or (status == "cancelled" and not isinstance(error, (Reject, Retry))):
        revoke(task, str(error) if error else "cancelled")
        raise Ignore() from None
    if error is not None:
        raise error
    return result


def _end_message(error: BaseException | None, result: Any) -> Message:
    if isinstance(error, Retry):
        return handed_back(_moment(error.when), error.exc if isinstance(error.exc, BaseException) else error)
    if isinstance(error, Reject):
        if error.requeue:
            return handed_back()
        return {"how": "failed", "error": f"rejected: {error.reason or 'without a reason'}", "permanent": True}
    if isinstance(error, Ignore):
        return {"how": "completed"}
    return end_message(error, result, permanent=True)


def _moment(when: Any) -> datetime | None:
    """When a retry is due: Celery says it as a time or as seconds from now."""
    if isinstance(when, datetime):
        return when
    if isinstance(when, (int, float)):
        return datetime.now(timezone.utc) + timedelta(seconds=float(when))
    return None
