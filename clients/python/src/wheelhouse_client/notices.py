"""Log lines of the link's thread.

A main thread that is held may have a lock of ``logging``; the link must never wait for it, since it brings the order that
ends the hold. So a thread of its own writes the lines, and lines beyond the queue's room are dropped.
"""

from __future__ import annotations

import logging
import queue
import threading

logger = logging.getLogger("wheelhouse_client")

_lines: queue.Queue[tuple[int, str]] = queue.Queue(maxsize=100)
_writer: threading.Thread | None = None


def say(level: int, line: str) -> None:
    """Logs a line soon; never blocks."""
    global _writer
    try:
        _lines.put_nowait((level, line))
    except queue.Full:
        return
    if _writer is None or not _writer.is_alive():
        _writer = threading.Thread(target=_write, name="wheelhouse-log", daemon=True)
        _writer.start()


def after_fork() -> None:
    """The writer stayed with the parent."""
    global _lines, _writer
    _lines = queue.Queue(maxsize=100)
    _writer = None


def _write() -> None:
    while True:
        level, line = _lines.get()
        logger.log(level, "%s", line)
