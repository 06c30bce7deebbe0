"""Waiting for another thread without a lock that could be held by the waiting thread itself.

A thread that is held may have been interrupted by a signal anywhere, even inside ``threading.Condition``. So nothing here
takes a lock that the same thread might already have: each wait has a lock of its own, which the other side releases.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Waiters:
    """The threads and callbacks that want to know when something has changed."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def wait(self, ready: Callable[[], bool], timeout: float) -> bool:
        """Waits until ``ready`` is true or the time is over; returns whether it is true.

        Exceptions of signal handlers pass through.
        """
        if ready():
            return True
        lock = threading.Lock()
        lock.acquire()
        self._waiting.append(lock.release)
        # Registered before this second look: a change between the two wakes.
        if not ready() and not lock.acquire(timeout=max(0.0, timeout)):
            try:
                self._waiting.remove(lock.release)
            except (ValueError, IndexError):
                pass  # Woken just now.
        return ready()

    def call(self, callback: Callable[[], None]) -> None:
        """Calls back once, from the other thread, at the next change."""
        self._waiting.append(callback)

    def wake(self) -> None:
        """Something has changed."""
        while True:
            try:
                wake = self._waiting.popleft()
            except IndexError:
                return
            try:
                wake()
            except RuntimeError:
                pass  # Released already, or an event loop that has been closed.
