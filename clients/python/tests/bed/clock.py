"""A wall clock that a test sets, and a sleep of the machine, for a program that it starts (tests/support/clock.c, preloaded)."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[4] / "tests" / "support" / "clock.c"
DAY = 86_400


class Clock:
    """See the module. The monotonic clock goes on as it does."""

    def __init__(self, folder: Path) -> None:
        self._library, self._offset, self._slept = folder / "clock.so", folder / "offset", folder / "slept"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE)], check=True)
        self.set(0)
        self.sleep(0)

    def set(self, seconds: int) -> None:
        """From now on it is so many seconds ahead of this machine's clock, or behind it."""
        self._write(self._offset, seconds)

    def sleep(self, seconds: int) -> None:
        """From now on the machine has slept for so many seconds altogether: the monotonic clock stood still."""
        self._write(self._slept, seconds)

    @staticmethod
    def _write(file: Path, seconds: int) -> None:
        new = file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(file)  # Nobody reads half a number.

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self._library),
            "CLOCK_OFFSET_FILE": str(self._offset),
            "SLEPT_FILE": str(self._slept),
        }
