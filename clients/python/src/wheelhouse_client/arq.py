"""arq functions under control: a decorator, since arq's hooks cannot keep a job from running.

    @controlled(tenant="acme")
    async def import_rows(ctx, rows): ...

``wheelhouse_client.arq.current()`` is the job's handle in it (``await current().checkpoint()``). arq's ``job_timeout`` runs on
while a job is paused; a cancelled job is a failed one for arq, and is not tried again.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from .begin import handed_back
from .coroutines import JobCancelled, Tenant, current, run, tenant_of
from .errors import AlreadyEnded, Elsewhere
from .messages import Job, fitting_id

Function = Callable[..., Awaitable[Any]]


def controlled(tenant: Tenant) -> Callable[[Function], Function]:
    """``tenant``: a text, or a function of ctx and the job's arguments; where it says None the job is not controlled."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        async def wrapped(ctx: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            # Not a typed dependency: arq needs a redis-py that the other queues do not take.
            retry: Any = importlib.import_module("arq.worker").Retry
            whose = tenant_of(tenant, ctx, *args)
            if whose is None:
                return await function(ctx, *args, **kwargs)

            def again(error: BaseException) -> Any:
                if not isinstance(error, retry):
                    return None
                after: Any = getattr(error, "defer_score", None) or 0
                return handed_back(datetime.now(timezone.utc) + timedelta(milliseconds=after), error.__cause__ or error)

            job = Job(whose, fitting_id(ctx["job_id"]), f"arq:{function.__name__}", function.__name__)
            try:
                return await run(job, lambda: function(ctx, *args, **kwargs), again)
            except AlreadyEnded as refusal:
                if refusal.status == "completed":
                    return None
                raise JobCancelled(str(refusal)) from None
            except Elsewhere:
                raise retry(defer=10) from None

        return wrapped

    return decorate


__all__ = ["JobCancelled", "controlled", "current"]
