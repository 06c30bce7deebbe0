"""What a job says into its output, on its way to Wheelhouse: bounded, so that saying it neither waits nor fills the memory.

No lock is taken: a signal may hold the thread that adds lines anywhere, and the link's thread must never wait for it.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator

from .messages import Message

STREAMS = ("stdout", "stderr", "log")
# Lines that wait to be sent. Of more the oldest are left out, and a line says how many: of a job 1,000 lines are kept, so that
# this line is still there beside all of those.
MAX_WAITING = 990
# Longer lines are cut, as Wheelhouse does it.
MAX_CHARACTERS = 4000
# Room for what a message has beside its lines.
FRAME = 512

Line = tuple[str, str]


class Output:
    """The lines of one run that have not been sent. The work adds them, the link's thread takes them."""

    def __init__(self) -> None:
        # The link knows that something waits. Set by the work, unset by the link before it takes the lines.
        self.noted = False
        self._lines: deque[Line] = deque()
        self._left_out = 0  # Of all times, and how many of them were told of: each has one writer.
        self._told_of = 0
        self._unsure = False

    def __bool__(self) -> bool:
        return bool(self._lines) or self._left_out > self._told_of or self._unsure

    def add(self, text: str, stream: str) -> None:
        """Adds the text's lines."""
        lines = [line.rstrip("\r") for line in text.split("\n")]
        if len(lines) > 1 and not lines[-1]:
            lines.pop()  # A text that ends with a newline has no empty line behind it.
        if len(lines) > MAX_WAITING:
            self._left_out += len(lines) - MAX_WAITING
            del lines[:-MAX_WAITING]
        self._lines.extend((stream, _shorten(line)) for line in lines)
        while len(self._lines) > MAX_WAITING:
            try:
                self._lines.popleft()
            except IndexError:  # The link has taken them all meanwhile.
                return
            self._left_out += 1

    def broke_off(self) -> None:
        """The connection on which lines were sent a moment ago is gone: nobody knows whether they have arrived."""
        self._unsure = True

    def take(self, ref: int, max_frame: int) -> Iterator[Message]:
        """The messages for all that waits."""
        self.noted = False
        notes: list[Line] = []
        if self._unsure:
            self._unsure = False
            notes.append(("log", "… the connection broke off: lines may be missing here"))
        left_out = self._left_out - self._told_of
        if left_out:
            self._told_of += left_out
            notes.append(("log", f"… {left_out} lines left out"))
        batch: list[str] = []
        of, size = "", 0
        # No more than there are now: the work may add lines as fast as they are taken.
        for line in [*notes, *self._taken(len(self._lines))]:
            stream, text = line
            long = len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")) + 1
            if batch and (stream != of or len(batch) == MAX_WAITING or size + long > max_frame - FRAME):
                yield {"type": "log", "ref": ref, "stream": of, "lines": batch}
                batch, size = [], 0
            of = stream
            batch.append(text)
            size += long
        if batch:
            yield {"type": "log", "ref": ref, "stream": of, "lines": batch}

    def _taken(self, most: int) -> Iterator[Line]:
        for _ in range(most):
            try:
                yield self._lines.popleft()
            except IndexError:  # The work has left some out meanwhile.
                return


def _shorten(line: str) -> str:
    if len(line) <= MAX_CHARACTERS:
        return line
    kept = MAX_CHARACTERS - 40
    return f"{line[:kept]} … [{len(line) - kept} characters left out]"
