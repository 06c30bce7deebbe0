"""What a Celery app says about Wheelhouse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import process
from ..errors import ConfigurationError
from ..messages import Job, fitting_id, jsonable
from ..session import Session
from ..settings import Settings

# Message headers: whose job it is, and on whose behalf it was published.
TENANT_HEADER = "wheelhouse_tenant"
CREATED_BY_HEADER = "wheelhouse_created_by"


def session_of(app: Any, name: str | None = None) -> Session:
    """This process's session, with the app's settings. Raises ConfigurationError."""
    conf = app.conf
    return process.session(
        Settings.from_environment(conf.get("wheelhouse_url"), conf.get("wheelhouse_token"), name)
    )


def is_configured(app: Any) -> bool:
    """Whether an address and a token are there."""
    conf = app.conf
    try:
        Settings.from_environment(conf.get("wheelhouse_url"), conf.get("wheelhouse_token"))
    except ConfigurationError:
        return False
    return True


def is_required(app: Any) -> bool:
    """Whether tasks wait for Wheelhouse; else they run without control when it is not reachable."""
    return bool(app.conf.get("wheelhouse_required", True))


def is_own_task(name: str) -> bool:
    """Celery's own tasks (backend_cleanup, chord_unlock, …) are never under control."""
    return name.startswith("celery.")


def tenant_of(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], headers: Mapping[str, Any] | None) -> str | None:
    """Whose job it is: the message's header, else ``app.conf.wheelhouse_tenant``. None: the task is not controlled.

    Raises ConfigurationError where neither says anything.
    """
    given = (headers or {}).get(TENANT_HEADER)
    if given:
        return str(given)
    conf = task.app.conf
    if "wheelhouse_tenant" not in conf:
        raise ConfigurationError(
            f"The tenant of task {task.name} is not known: set app.conf.wheelhouse_tenant to a text or to a function of "
            f"task, args and kwargs (None for tasks that are not to be controlled), or the header {TENANT_HEADER!r}"
        )
    tenant = conf.wheelhouse_tenant
    if callable(tenant):
        tenant = tenant(task, tuple(args or ()), dict(kwargs or {}))
    return None if tenant is None else str(tenant)


def describe(
    task: Any,
    tenant: str,
    task_id: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    headers: Mapping[str, Any] | None,
) -> Job:
    """The job of a task. Celery counts the retries, so its row has none of its own."""
    parameters = None
    if task.app.conf.get("wheelhouse_parameters", False):
        parameters = jsonable({"args": list(args or ()), "kwargs": dict(kwargs or {})})
    created_by = (headers or {}).get(CREATED_BY_HEADER)
    return Job(
        tenant_id=tenant,
        job_id=fitting_id(task_id),
        job_type=f"celery:{task.name}",
        title=task.name,
        parameters=parameters,
        timeout_seconds=getattr(task, "wheelhouse_timeout", None),
        created_by=str(created_by) if created_by else None,
    )
