"""How work in Celery's pools is reached: prefork and solo by a signal to the main thread, the others at checkpoints."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Callable
from typing import Any

from .. import interrupt
from ..control import Control

logger = logging.getLogger("wheelhouse_client.celery")


class Reach:
    """The ways to the thread that runs a task."""

    def __init__(self, task_id: str) -> None:
        self._control: Control | None = None
        self.poke: Callable[[], None] | None = None
        self.kill: Callable[[], str] | None = None
        if interrupt.available():
            self.poke = interrupt.install(self._obey)
        if is_prefork_child() and self.poke is not None:
            self.kill = lambda: _kill_child(task_id)

    def serve(self, control: Control) -> None:
        """From here on a signal reaches this control."""
        self._control = control

    def _obey(self) -> None:
        if self._control is not None:
            self._control._on_signal()


def reach(task_id: str) -> Reach:
    """For the task that this thread is about to run."""
    return Reach(task_id)


def is_prefork_child() -> bool:
    """Whether this is a process of Celery's prefork pool, which runs one task at a time."""
    try:
        from billiard import process
    except ImportError:
        return False
    current: Any = process.current_process()
    return bool(getattr(current, "daemon", False)) and hasattr(current, "index")


def _mark_path(parent: int, task_id: str) -> str:
    return os.path.join(tempfile.gettempdir(), f"wheelhouse-killed-{os.getuid()}-{parent}-{task_id}")


def _kill_child(task_id: str) -> str:
    """Ends this child hard. The mark tells the parent, which sees only a dead child, that the task was cancelled."""
    try:
        os.close(os.open(_mark_path(os.getppid(), task_id), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        pass  # Then the task's state is the one of a lost worker.
    os.kill(os.getpid(), signal.SIGKILL)
    return "the process could not be killed"


def take_mark(task_id: str) -> bool:
    """In the parent: whether the child that ran this task ended itself on an order of Wheelhouse."""
    path = _mark_path(os.getpid(), task_id)
    try:
        own = os.lstat(path).st_uid == os.getuid()
        os.unlink(path)
    except OSError:
        return False
    return own
