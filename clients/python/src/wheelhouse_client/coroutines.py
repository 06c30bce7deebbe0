"""What the asyncio task queues have in common: a coroutine function run as a controlled job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Union

from . import aio
from .messages import Job

_current: ContextVar[aio.AsyncControl | None] = ContextVar("wheelhouse_current_async", default=None)

Tenant = Union[str, Callable[..., Union[str, None]]]


class JobCancelled(Exception):
    """What the queue sees of a cancelled job: a failure that is not tried again."""


def current() -> aio.AsyncControl | None:
    """The handle of the job that this coroutine belongs to, or None."""
    return _current.get()


async def run(
    job: Job,
    work: Callable[[], Awaitable[Any]],
    handed_back: Callable[[BaseException], Any] | None = None,
) -> Any:
    """Runs ``work`` as the job. Raises JobCancelled where Wheelhouse ended it, Refused where it did not let it begin.

    ``handed_back`` says of an exception whether the queue runs the job again: None for no, else the fields of ``end``.
    """
    block = aio.job.of(job)
    control: aio.AsyncControl | None = None
    try:
        async with block as control:
            token = _current.set(control)
            try:
                block.result = await work()
            except Exception as error:
                block.end = handed_back(error) if handed_back is not None else None
                raise
            finally:
                _current.reset(token)
        return block.result
    except asyncio.CancelledError:
        if control is not None and control.cancelled:
            uncancel = getattr(asyncio.current_task(), "uncancel", None)
            if uncancel is not None:  # Python 3.11 and newer count the cancels of a task.
                uncancel()
            raise JobCancelled(f"cancelled by {control._run.ending.by if control._run.ending else 'wheelhouse'}") from None
        raise


def tenant_of(tenant: Tenant, *given: Any) -> str | None:
    """A tenant that is a text, or a function of what the queue knows of the job."""
    return tenant(*given) if callable(tenant) else tenant

