"""Processes, ports and files of the tests. Everything is waited for by its sign, with a generous end of patience."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PATIENCE = 60.0


_given: set[int] = set()


def free_port() -> int:
    """A port that is free now, and that no other caller in this process gets.

    It lies below those that the system gives to outgoing connections, and each test process draws from a range of its
    own, so that a server which is killed and started again finds its port free.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw") or 0)
    first = 20_000 + (worker % 12) * 1_000
    while True:
        port = random.randrange(first, first + 1_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port


def eventually(what: str, ready: Callable[[], object], patience: float = PATIENCE) -> object:
    """Waits until ``ready`` says something true, and returns it."""
    until = time.monotonic() + patience
    while True:
        answer = ready()
        if answer:
            return answer
        assert time.monotonic() < until, f"{what}: not within {patience:g} s"
        time.sleep(0.02)


class Process:
    """A child whose output is kept, and which ends with the test."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path | None = None) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self.child = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self.child.pid

    def output(self) -> str:
        return "\n".join(self.lines[-60:])

    def wait_for(self, text: str, since: int = 0, patience: float = PATIENCE) -> str:
        """The first line with this text."""
        until = time.monotonic() + patience
        with self._changed:
            while True:
                for line in self.lines[since:]:
                    if text in line:
                        return line
                left = until - time.monotonic()
                assert left > 0 and self.child.poll() is None, f"no line with {text!r} in:\n{self.output()}"
                self._changed.wait(min(left, 0.2))

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, patience: float = 20.0) -> int:
        """Ends the process, hard where it does not end by itself, and all that is left of its group."""
        self.send_signal(number)
        try:
            self.child.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)
        code = self.child.wait(10)
        self._reader.join(5)
        return code


def children_of(pid: int) -> list[int]:
    """The direct children of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


class Ticks:
    """The file into which a task writes a line for each step: ``STEP TIME``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def _lines(self) -> Iterator[list[str]]:
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return
        for line in text.splitlines():
            fields = line.split()
            if len(fields) == 2:
                yield fields

    def steps(self) -> list[int]:
        return [int(step) for step, _ in self._lines()]

    def stamps(self) -> list[float]:
        return [float(stamp) for _, stamp in self._lines()]

    def count(self) -> int:
        return len(self.steps())

    def wait_for(self, more: int = 3, patience: float = PATIENCE) -> int:
        """Waits for some ticks more than there are now."""
        wanted = self.count() + more
        eventually(f"{more} ticks more in {self.path.name}", lambda: self.count() >= wanted, patience)
        return self.count()

    def assert_none_for(self, seconds: float) -> None:
        before = self.count()
        time.sleep(seconds)
        assert self.count() == before, f"{self.count() - before} ticks in {seconds:g} s"
