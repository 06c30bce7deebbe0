"""How work in Celery's pools is reached: prefork and solo by a signal to the main thread, the others at checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import interrupt
from ..control import Control
from ..marks import kill_self


class Reach:
    """The ways to the thread that runs a task."""

    def __init__(self, task_id: str) -> None:
        self._control: Control | None = None
        self.poke: Callable[[], None] | None = None
        self.kill: Callable[[], str] | None = None
        if interrupt.available():
            self.poke = interrupt.install(self._obey)
        if is_prefork_child() and self.poke is not None:
            self.kill = lambda: kill_self(task_id)

    def serve(self, control: Control) -> None:
        """From here on a signal reaches this control."""
        self._control = control

    def _obey(self) -> None:
        if self._control is not None:
            self._control._on_signal()


def reach(task_id: str) -> Reach:
    """For the task that this thread is about to run."""
    return Reach(task_id)


def is_terminated(error: BaseException) -> bool:
    """Whether a task has not ended by itself, but Celery ends it (``revoke(terminate=True)``, a cold shutdown).

    A child of prefork by a signal, a greenlet by an exception.
    """
    if any(kind.__name__ == "GreenletExit" for kind in type(error).__mro__):
        return True
    if not is_prefork_child():
        return False
    from billiard import common

    fired = getattr(common, "terminate_handler_fired", None)
    # Before billiard 4.3 there was only the variable behind it.
    return bool(fired() if fired is not None else getattr(common, "_should_have_exited", [False])[0])


def is_prefork_child() -> bool:
    """Whether this is a process of Celery's prefork pool, which runs one task at a time."""
    try:
        from billiard import process
    except ImportError:
        return False
    current: Any = process.current_process()
    return bool(getattr(current, "daemon", False)) and hasattr(current, "index")
