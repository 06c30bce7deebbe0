"""Ends of a delivery that Celery has no exception for."""

from __future__ import annotations

import logging
import random
from typing import Any

from celery import signals, states
from celery.backends.base import BaseKeyValueStoreBackend
from celery.backends.rpc import RPCBackend
from celery.exceptions import Reject
from kombu.exceptions import EncodeError

from ..errors import AlreadyEnded

logger = logging.getLogger("wheelhouse_client.celery")

# Seconds until a message is tried again whose job another process has.
HAND_ON_AFTER = 10.0


def revoke(task: Any, reason: str, terminated: bool = True) -> None:
    """The state that Celery itself gives to a revoked task, with its event and its signal. The caller raises Ignore."""
    request = task.request
    ignore_result = task.ignore_result if request.ignore_result is None else request.ignore_result
    task.backend.mark_as_revoked(request.id, reason, request=request, store_result=not ignore_result)
    logger.info("Task %s[%s] revoked: %s", task.name, request.id, reason)
    try:
        task.send_event("task-revoked", terminated=terminated, signum=None, expired=False)
    except Exception as error:  # Monitoring only.
        logger.debug("the event task-revoked was not sent: %s", error)
    signals.task_revoked.send(sender=task, request=request, terminated=terminated, signum=None, expired=False)


def keep_ended(task: Any, refusal: AlreadyEnded) -> None:
    """A message whose job has ended before: it does not run. Cancelled is REVOKED; else the stored state stays."""
    if refusal.status == "cancelled":
        revoke(task, "cancelled before it began", terminated=False)
        return
    stored = _stored_state(task)
    logger.info("Task %s[%s] has ended before (%s), so it does not run", task.name, task.request.id, refusal.status)
    if refusal.status == "failed" and stored is not None and stored not in states.READY_STATES:
        # The process that failed it died before it stored the state, or STARTED was written over it.
        task.backend.mark_as_failure(
            task.request.id, RuntimeError("the job has failed in an earlier delivery"), request=task.request
        )


def unstorable(task: Any, result: Any) -> Exception | None:
    """With what Celery is about to fail a task that has returned: its serializer cannot write the result."""
    request = task.request
    ignored = task.ignore_result if request.ignore_result is None else request.ignore_result
    # Other backends do not write it, or in a way of their own.
    if ignored or not isinstance(task.backend, (BaseKeyValueStoreBackend, RPCBackend)):
        return None
    try:
        task.backend.encode(task.backend.encode_result(result, states.SUCCESS))
    except EncodeError as error:
        return error
    return None


def hand_on(task: Any) -> None:
    """Publishes the same message again, for later, under the same id: this delivery ends, the task does not.

    Raises Reject with requeue where it cannot be published: the broker then keeps the delivery itself.
    """
    request = task.request
    visibility = (task.app.conf.broker_transport_options or {}).get("visibility_timeout")
    after = HAND_ON_AFTER * random.uniform(0.7, 1.3)
    if visibility:
        # An ETA beyond the visibility timeout would be delivered several times, and each would be handed on again.
        after = min(after, float(visibility) / 3)
    try:
        task.signature_from_request(request, countdown=after, retries=request.retries).apply_async()
    except Exception as error:
        raise Reject(error, requeue=True) from error
    logger.info("Task %s[%s] is run by another process; tried again in %.0f s", task.name, request.id, after)


def _stored_state(task: Any) -> str | None:
    try:
        return str(task.backend.get_state(task.request.id))
    except Exception:
        return None  # No backend.
