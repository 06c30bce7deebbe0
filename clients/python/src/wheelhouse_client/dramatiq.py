"""Dramatiq actors under control: ``broker.add_middleware(ControlledMiddleware("acme"), before=Retries)``.

An actor's thread is reached at checkpoints alone (``wheelhouse_client.checkpoint()``). Dramatiq's TimeLimit (ten minutes by
default) runs on while an actor is held, and a message that is cancelled before it begins is skipped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Token
from datetime import datetime, timedelta, timezone
from typing import Any

from dramatiq.middleware import Middleware, SkipMessage

from . import process
from .begin import begin, end_message, finish, handed_back
from .control import Control, _current
from .errors import AlreadyEnded, Cancelled, Elsewhere
from .messages import Job, fitting_id
from .published import tell


def _describe(message: Any, tenant: str) -> Job:
    return Job(tenant, fitting_id(message.message_id), f"dramatiq:{message.actor_name}", message.actor_name)


class ControlledMiddleware(Middleware):  # type: ignore[misc,unused-ignore]
    """Put it before Retries, so that it sees what Retries has decided.

    tenant: a text, or a function of the message. The message option ``tenant_id`` goes before it; where both say None the
    message is not controlled.
    """

    def __init__(self, tenant: str | Callable[[Any], str | None] | None = None) -> None:
        self._tenant = tenant
        self._local = threading.local()

    @property
    def actor_options(self) -> set[str]:
        return {"tenant_id"}

    def after_declare_actor(self, broker: Any, actor: Any) -> None:
        """A cancelled message is never tried again."""
        throws = actor.options.get("throws") or ()
        actor.options["throws"] = (*(throws if isinstance(throws, tuple) else (throws,)), Cancelled)

    def after_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        """A published message is shown before any worker has it. One that is enqueued again has its row."""
        again = message.options.get("retries") or message.options.get("eta") and not delay
        tenant = None if again else self._tenant_of(broker, message)
        if tenant is not None:
            due = datetime.now(timezone.utc) + timedelta(milliseconds=delay) if delay else None
            tell(_describe(message, tenant), due)

    def before_process_message(self, broker: Any, message: Any) -> None:
        tenant = self._tenant_of(broker, message)
        self._local.work = None
        if tenant is None or message.failed:
            return
        job = _describe(message, tenant)
        session = process.session()
        try:
            run = begin(session, job)
        except (AlreadyEnded, Elsewhere) as refusal:
            if isinstance(refusal, Elsewhere):
                broker.enqueue(message._message, delay=10_000)
            raise SkipMessage(str(refusal)) from None
        control = Control(run, session)
        try:
            control._wait_while_held()
        except Cancelled as error:
            finish(session, run, error, end_message(error))
            raise SkipMessage(str(error)) from None
        self._local.work = (session, run, _current.set(control))

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        work: tuple[Any, Any, Token[Control | None]] | None = getattr(self._local, "work", None)
        self._local.work = None
        if work is None:
            return
        session, run, token = work
        _current.reset(token)
        tried_again = exception is not None and not message.failed and not isinstance(exception, Cancelled)
        again = handed_back(failed=exception) if tried_again else None
        finish(session, run, exception, again or end_message(exception, result, permanent=True))

    def _tenant_of(self, broker: Any, message: Any) -> str | None:
        given = message.options.get("tenant_id") or broker.get_actor(message.actor_name).options.get("tenant_id")
        if given:
            return str(given)
        tenant = self._tenant(message) if callable(self._tenant) else self._tenant
        return None if tenant is None else str(tenant)
