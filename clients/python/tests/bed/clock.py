"""A wall clock that a test sets, for a program that it starts (tests/support/clock.c, preloaded)."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[4] / "tests" / "support" / "clock.c"
DAY = 86_400


class Clock:
    """See the module. The monotonic clock goes on as it does."""

    def __init__(self, folder: Path) -> None:
        self._library, self._offset = folder / "clock.so", folder / "offset"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE)], check=True)
        self.set(0)

    def set(self, seconds: int) -> None:
        """From now on it is so many seconds ahead of this machine's clock, or behind it."""
        new = self._offset.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._offset)  # Nobody reads half a number.

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "CLOCK_OFFSET_FILE": str(self._offset)}
