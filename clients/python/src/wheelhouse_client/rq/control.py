"""The handle of an RQ job: RQ's own time limit stands still while the job is held."""

from __future__ import annotations

import mmap
import signal
import struct
import threading
from typing import Any

from ..control import Control
from ..run import Clock, Run
from ..session import Session


class HeldTime:
    """How long the job has been held, in seconds, where the work horse and its parent both see it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    def add(self, seconds: float) -> None:
        self._memory[:8] = struct.pack("d", self.seconds + seconds)

    @property
    def seconds(self) -> float:
        value: float = struct.unpack("d", self._memory[:8])[0]
        return value


class Alarm:
    """RQ's death penalty (SIGALRM), which can be stopped and started again with what was left of it."""

    def __init__(self) -> None:
        self._left: float | None = None

    def stop(self) -> None:
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
            left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
            self._left = left or None

    def start(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            signal.setitimer(signal.ITIMER_REAL, left)


class RqControl(Control):
    """A ``Control`` that holds RQ's clocks while it holds the work."""

    def __init__(self, run: Run, session: Session, held: HeldTime) -> None:
        super().__init__(run, session)
        self._alarm = Alarm()
        self._held = held
        self._told_at = 0.0

    def _enter_hold(self) -> None:
        self._alarm.stop()
        self._told_at = Clock()

    def _woken(self, pause: Any) -> bool:
        # Looked at once a second or more often: the parent is to know of a pause while it lasts.
        now = Clock()
        self._held.add(now - self._told_at)
        self._told_at = now
        return super()._woken(pause)

    def _leave_hold(self) -> None:
        self._held.add(Clock() - self._told_at)
        self._alarm.start()
