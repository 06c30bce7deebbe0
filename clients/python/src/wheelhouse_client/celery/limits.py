"""Celery's own clocks beside a task that may be paused."""

from __future__ import annotations

import logging
from typing import Any

from ..begin import BEYOND_REATTACH
from ..session import Session

logger = logging.getLogger("wheelhouse_client.celery")
_warned: set[str] = set()


def warn_of_time_limits(task: Any) -> None:
    """Says once for each task that Celery's limits run on while it is paused."""
    if task.name in _warned:
        return
    hard, soft = (task.request.timelimit or (None, None))[:2]
    conf = task.app.conf
    hard = hard or task.time_limit or conf.task_time_limit
    soft = soft or task.soft_time_limit or conf.task_soft_time_limit
    if not hard and not soft:
        return
    _warned.add(task.name)
    limits = " and ".join(
        f"{name} of {value} s" for name, value in (("time_limit", hard), ("soft_time_limit", soft)) if value
    )
    logger.warning(
        "Task %s has Celery's %s, which runs on while the task is paused: a longer pause ends it as failed. "
        "Set wheelhouse_timeout on the task instead, which does not count paused time",
        task.name,
        limits,
    )


def wait_for_other(task: Any, session: Session) -> float:
    """Seconds to wait for a job that another process has: as long as a dead one keeps it, and a little longer.

    Not as long that the broker takes this delivery for lost, though.
    """
    seconds = session.reattach_seconds + BEYOND_REATTACH
    visibility = (task.app.conf.broker_transport_options or {}).get("visibility_timeout")
    return min(seconds, float(visibility) / 2) if visibility else seconds
