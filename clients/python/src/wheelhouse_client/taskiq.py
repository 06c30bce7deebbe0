"""taskiq tasks under control: a middleware that knows the message, and a decorator that runs the function as its job.

    broker.add_middlewares(ControlledMiddleware())

    @broker.task
    @controlled(tenant="acme")
    async def import_rows(rows): ...

The label ``tenant_id`` goes before the decorator's tenant. ``wheelhouse_client.taskiq.current()`` is the job's handle. For
coroutine functions alone; a task's ``timeout`` label runs on while it is paused; a cancelled task is a failed one for taskiq.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from taskiq import NoResultError, TaskiqMessage, TaskiqMiddleware

from .coroutines import JobCancelled, Tenant, current, run, tenant_of
from .errors import AlreadyEnded, ConfigurationError
from .messages import Job, fitting_id
from .published import tell

Function = Callable[..., Awaitable[Any]]
_message: ContextVar[TaskiqMessage | None] = ContextVar("wheelhouse_taskiq_message", default=None)


class ControlledMiddleware(TaskiqMiddleware):
    """Tells ``controlled`` which message its function runs for, and Wheelhouse which messages are published.

    tenant: as for ``controlled``, whose word this process does not know when it publishes; the label ``tenant_id`` goes before
    it. Where neither says one, a task is shown when it begins.
    """

    def __init__(self, tenant: Tenant | None = None) -> None:
        super().__init__()
        self._tenant = tenant

    def post_send(self, message: TaskiqMessage) -> None:
        given = message.labels.get("tenant_id")
        whose = str(given) if given else (None if self._tenant is None else tenant_of(self._tenant, message))
        if whose is not None:
            tell(_describe(message, whose))

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        _message.set(message)
        return message


def _describe(message: TaskiqMessage, tenant: str) -> Job:
    return Job(tenant, fitting_id(message.task_id), f"taskiq:{message.task_name}", message.task_name)


def controlled(tenant: Tenant | None = None) -> Callable[[Function], Function]:
    """``tenant``: a text, or a function of the message; where it says None the task is not controlled."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            message = _message.get()
            if message is None:
                raise ConfigurationError("broker.add_middlewares(wheelhouse_client.taskiq.ControlledMiddleware()) is missing")
            given = message.labels.get("tenant_id")
            whose = str(given) if given else (None if tenant is None else tenant_of(tenant, message))
            if whose is None:
                return await function(*args, **kwargs)
            job = _describe(message, whose)
            try:
                return await run(job, lambda: function(*args, **kwargs))
            except AlreadyEnded as refusal:
                if refusal.status == "cancelled":
                    raise JobCancelled(str(refusal)) from None
                raise NoResultError from refusal

        return wrapped

    return decorate


__all__ = ["ControlledMiddleware", "JobCancelled", "controlled", "current"]
