"""One start of the client program, with what a check needs to talk to it and to look at its file."""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import Any

from .server import TOKEN, Link, Message, ProtocolServer, Violation

STEPS = 40


class Trial:
    """See the module. ``ref`` is the one of the attach that is being served."""

    def __init__(self, server: ProtocolServer, command: list[str]) -> None:
        self.server = server
        self.command = command
        self.ref = 0
        self.session: str | None = None
        self.process: asyncio.subprocess.Process | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="wheelhouse-conformance-")
        self.file = os.path.join(self._folder.name, "lines")
        open(self.file, "w").close()

    async def start(self) -> None:
        environment = {
            **os.environ,
            "WHEELHOUSE_URL": self.server.url,
            "WHEELHOUSE_TOKEN": TOKEN,
            "WHEELHOUSE_TENANT": "acme",
            "WHEELHOUSE_JOB": "conformance-1",
            "WHEELHOUSE_FILE": self.file,
            "WHEELHOUSE_STEPS": str(STEPS),
        }
        self.process = await asyncio.create_subprocess_exec(
            *self.command, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )

    async def stop(self) -> str:
        """Ends the program; returns the end of what it wrote to its standard error."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        _, stderr = await self.process.communicate()
        self._folder.cleanup()
        return stderr.decode("utf-8", "replace")[-2000:]

    def lines(self) -> list[int]:
        with open(self.file, encoding="utf-8") as file:
            return [int(line) for line in file.read().split()]

    async def link(self, timeout: float = 15.0) -> Link:
        """The next connection. It must be of the same session as the one before."""
        try:
            link = await asyncio.wait_for(self.server.links.get(), timeout)
        except asyncio.TimeoutError:
            raise Violation(f"no connection (with a hello) within {timeout:g} s") from None
        session = link.hello.get("session")
        if self.session is not None and session != self.session:
            raise Violation(f"hello.session changed from {self.session} to {session} within one process")
        self.session = session
        return link

    async def attach(self, link: Link, status: str = "running", point: Any = None, run: int = 1) -> Message:
        """Serves the first attach of a job."""
        message = await link.next("attach", tenant_id="acme", job_id="conformance-1")
        if "run" in message:
            raise Violation("the first attach has a run, which this session cannot hold")
        if message["ref"] in self.server.refs:
            raise Violation(f"the ref {message['ref']} was used twice in one session")
        self.server.refs.add(message["ref"])
        self.ref = message["ref"]
        await link.send("attached", ref=self.ref, run=run, status=status, resume_point=point)
        return message

    async def attach_again(self, link: Link, status: str = "running", run: int = 1) -> None:
        """Serves the attach of a run that the client holds since an earlier socket."""
        point = self.lines()[-1] + 1 if self.lines() else None
        await link.next("attach", ref=self.ref, run=run, job_id="conformance-1", tenant_id="acme")
        await link.send("attached", ref=self.ref, run=run, status=status, resume_point=point)

    async def order(self, link: Link, number: int, do: str, **more: Any) -> None:
        await link.send("order", ref=self.ref, order=number, do=do, by="ann", reason=None, **more)

    async def ticks(self, more: int = 3, timeout: float = 15.0) -> None:
        """Waits until the program has written so many lines more."""
        wanted = len(self.lines()) + more
        for _ in range(int(timeout / 0.02)):
            if len(self.lines()) >= wanted:
                return
            await asyncio.sleep(0.02)
        raise Violation(f"the work does not go on: {len(self.lines())} lines, {wanted} were due within {timeout:g} s")

    async def still(self, why: str, seconds: float = 1.0) -> None:
        """Nothing is written from here on for a while."""
        before = self.lines()
        await asyncio.sleep(seconds)
        after = self.lines()
        if after != before:
            raise Violation(f"the work went on {why}: {len(after) - len(before)} lines in {seconds:g} s")

    async def end(self, link: Link) -> None:
        """The job goes on to its end: all lines, end, ended, goodbye."""
        await link.next("end", timeout=30, ref=self.ref, how="completed")
        await link.send("ended", ref=self.ref, status="completed")
        await self.exits(0)
        if self.lines() != list(range(STEPS)):
            raise Violation(f"the lines are {self.lines()}, not 0 to {STEPS - 1}, each once")
        try:
            await asyncio.wait_for(link.closed.wait(), 5)
        except asyncio.TimeoutError:
            raise Violation("the connection was left open") from None
        if link.close_code != 1000:
            raise Violation(f"the connection was closed with {link.close_code}, not with 1000")

    async def exits(self, code: int | None = None) -> None:
        assert self.process is not None
        try:
            got = await asyncio.wait_for(self.process.wait(), 15)
        except asyncio.TimeoutError:
            raise Violation("the program does not end") from None
        if code is not None and got != code:
            raise Violation(f"the program ended with {got}, not with {code}")
