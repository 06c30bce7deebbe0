"""Jobs that were given to a queue and have not begun: told to Wheelhouse in the background, so that they are shown and can be
paused and cancelled before any worker is up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from . import process
from .errors import ConfigurationError
from .messages import Job
from .session import Session

logger = logging.getLogger("wheelhouse_client")


def expect(
    tenant: str,
    job_id: str,
    *,
    job_type: str = "python",
    title: str | None = None,
    campaign_id: str | None = None,
    parameters: Any = None,
    timeout_seconds: int | None = None,
    max_retries: int | None = None,
    created_by: str | None = None,
    run_after: datetime | None = None,
) -> None:
    """Says that a job has been published and not begun, for queues that have no hook for it. Call it after publishing.

    Returns at once: the message waits in this process while Wheelhouse is away. Raises Invalid for an id that is none, and
    ConfigurationError where WHEELHOUSE_URL or the token is missing.
    """
    job = Job(tenant, job_id, job_type, title, campaign_id, parameters, timeout_seconds, max_retries, created_by)
    process.session().expect(job, run_after)


def withdraw(tenant: str, job_id: str) -> None:
    """Says that a published job will never begin, since it was removed from its queue: its row is cancelled.

    Returns at once. A job that runs, or has ended, stays as it is. Raises as ``expect`` does.
    """
    process.session().remove(Job(tenant, job_id))


def tell_removed(job: Job) -> None:
    """As ``withdraw``, for a queue's own hook: removing never fails because of Wheelhouse."""
    try:
        process.session().remove(job)
    except ConfigurationError as error:
        logger.debug("the removed job %s is not told of: %s", job.job_id, error)
    except Exception as error:
        logger.warning("job %s was removed, but Wheelhouse was not told of it: %s", job.job_id, error)


def tell(job: Job, run_after: datetime | None = None, session: Callable[[], Session] = process.session) -> None:
    """As ``expect``, for a queue's own hook: publishing never fails because of Wheelhouse."""
    try:
        session().expect(job, run_after)
    except ConfigurationError as error:
        # A publisher that was given no address has its jobs shown when they begin.
        logger.debug("job %s is not shown before it begins: %s", job.job_id, error)
    except Exception as error:
        logger.warning("job %s was published, but Wheelhouse was not told of it: %s", job.job_id, error)


__all__ = ["expect", "tell", "tell_removed", "withdraw"]
