"""Reaching work that calls no checkpoint: a signal to the main thread of the process.

The signal's handler runs in the work itself, between two of its instructions, also inside ``time.sleep``. There it waits
while the job is paused, and there it raises Cancelled.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

# A real-time signal, which nothing else uses by default; systems without them get one that is ignored by default.
SIGNAL: int | None = getattr(signal, "SIGRTMIN", None)
if SIGNAL is not None:
    SIGNAL += 7
else:
    SIGNAL = getattr(signal, "SIGURG", None)

_obey: Callable[[], None] | None = None


def available() -> bool:
    """Whether this thread can be reached by a signal: the main one, on a system that has them, not a greenlet."""
    return SIGNAL is not None and threading.current_thread() is threading.main_thread() and not cooperative()


def cooperative() -> bool:
    """Whether gevent or eventlet has replaced the threads of this process by greenlets."""
    import sys

    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return True
    eventlet = sys.modules.get("eventlet.patcher")
    return eventlet is not None and bool(eventlet.is_monkey_patched("thread"))


def _handler(_number: int, _frame: FrameType | None) -> None:
    obey = _obey
    if obey is not None:
        obey()


def install(obey: Callable[[], None]) -> Callable[[], None]:
    """Sends the signal's handler to ``obey``; returns the function by which another thread pokes this one."""
    global _obey
    assert SIGNAL is not None
    _obey = obey
    if signal.getsignal(SIGNAL) is not _handler:
        signal.signal(SIGNAL, _handler)
    ident = threading.get_ident()
    number = SIGNAL

    def poke() -> None:
        try:
            signal.pthread_kill(ident, number)
        except (OSError, ValueError, RuntimeError):
            pass  # The thread has ended.

    return poke


def disarm() -> None:
    """The handler stays, and does nothing: a signal may still be on its way."""
    global _obey
    _obey = None
