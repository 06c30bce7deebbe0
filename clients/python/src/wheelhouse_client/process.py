"""The one session of this process: made when it is first needed, never carried over a fork."""

from __future__ import annotations

import atexit
import os
import threading

from . import notices
from .control import forget_current
from .session import Session
from .settings import Settings

_lock = threading.Lock()
_session: Session | None = None


def session(settings: Settings | None = None) -> Session:
    """This process's session. ``settings`` count for the first call alone.

    Raises ConfigurationError where WHEELHOUSE_URL or the token is missing.
    """
    global _session
    if _session is None:
        with _lock:
            if _session is None:
                _session = Session(settings or Settings.from_environment())
    return _session


def close() -> None:
    """Ends the session, as the end of the process does. The next use makes a new one."""
    global _session
    with _lock:
        ended, _session = _session, None
    if ended is not None:
        ended.stop()


def _after_fork() -> None:
    global _session, _lock
    _lock = threading.Lock()
    inherited, _session = _session, None
    notices.after_fork()
    # The job stays with the parent, which alone hears of its orders: a checkpoint in the child has nothing to do.
    forget_current()
    if inherited is not None:
        inherited.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(close)
