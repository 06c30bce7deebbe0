"""Each message that an app publishes is told to Wheelhouse, whatever publishes it: ``delay``, ``apply_async``, ``send_task`` by
name, signatures, chains, groups and chords (also those parts that a worker publishes later), and beat."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any
from weakref import WeakSet

from ..published import tell
from .settings import TENANT_HEADER, describe, is_own_task, session_of, tenant_of

logger = logging.getLogger("wheelhouse_client.celery")
_tracked: WeakSet[Any] = WeakSet()


def track(app: Any) -> None:
    """From now on what the app publishes is told to Wheelhouse.

    The tasks of an app with ``task_cls=ControlledTask`` do this by themselves. Call it for an app that has none, and publishes
    by ``send_task`` alone.
    """
    if app in _tracked:
        return
    _tracked.add(app)
    send = app.send_task

    def send_task(
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: Any = None,
        *rest: Any,
        **options: Any,
    ) -> Any:
        headers = options.get("headers") or {}
        tenant = _tenant(app, name, args, kwargs, headers)
        if tenant is None:
            return send(name, args, kwargs, countdown, eta, *rest, **options)
        options["headers"] = {**headers, TENANT_HEADER: tenant}
        result = send(name, args, kwargs, countdown, eta, *rest, **options)
        if not options.get("retries"):  # A retry has its row.
            _tell(app, name, tenant, result.id, args, kwargs, headers, _due(countdown, eta))
        return result

    app.send_task = send_task


class _NamedTask:
    """A task of which this process knows the name alone."""

    def __init__(self, app: Any, name: str) -> None:
        self.app = app
        self.name = name


def _task(app: Any, name: str) -> Any:
    return app.tasks.get(name) or _NamedTask(app, name)


def _tenant(app: Any, name: str, args: Any, kwargs: Any, headers: Mapping[str, Any]) -> str | None:
    if is_own_task(name):
        return None
    try:
        return tenant_of(_task(app, name), args or (), kwargs or {}, headers)
    except Exception as error:
        logger.debug("the tenant of %s is left to the worker: %s", name, error)
        return None


def _tell(
    app: Any, name: str, tenant: str, task_id: str, args: Any, kwargs: Any, headers: Mapping[str, Any], due: datetime | None
) -> None:
    try:
        job = describe(_task(app, name), tenant, task_id, args or (), kwargs or {}, headers)
    except Exception as error:
        logger.warning("task %s was published, but Wheelhouse was not told of it: %s", task_id, error)
        return
    tell(job, due, lambda: session_of(app))


def _due(countdown: float | None, eta: Any) -> datetime | None:
    """When a published task is to begin, where that is later."""
    if isinstance(eta, str):
        return datetime.fromisoformat(eta.replace("Z", "+00:00"))
    if isinstance(eta, datetime):
        return eta
    return datetime.now(timezone.utc) + timedelta(seconds=float(countdown)) if countdown else None


__all__ = ["track"]
