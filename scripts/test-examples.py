#!/usr/bin/env python3
"""Runs examples/celery, examples/rq and examples/bullmq, each by its one command against a `wheelhouse dev`, and the Celery lines
of README.md as they stand there; and pauses, resumes and cancels their jobs. Needs Python 3.10, Node and redis-server
(scripts/deps.sh). WHEELHOUSE_PROGRAM: the program, if it is built already."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Longest wait for anything: the first run of an example installs what it needs.
PATIENCE = 420.0
# How long nothing may move while a job is paused.
QUIET = 2.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, fits: Callable[[], object], output: Callable[[], str]) -> object:
    end = time.monotonic() + PATIENCE
    while not (found := fits()):
        if time.monotonic() > end:
            sys.exit(f"in vain: {what}\n{output()}")
        time.sleep(0.1)
    return found


class Process:
    """A command with all that it starts; its output goes into a file."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str], folder: Path = ROOT) -> None:
        self.log = log
        with log.open("w") as out:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, cwd=folder, start_new_session=True
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, first: signal.Signals = signal.SIGINT) -> None:
        # Ctrl-C reaches everybody in the foreground; what does not end by it is killed.
        for number in (first, signal.SIGKILL):
            try:
                os.killpg(self.child.pid, number)
                self.child.wait(timeout=15)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass


class Wheelhouse:
    """A `wheelhouse dev` with a folder and ports of its own."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self.data = folder / "wheelhouse"
        listener = free_port()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WHEELHOUSE_")}
        # scripts/deps.sh puts a Node here where the machine's is too old.
        newer = next((ROOT / "target/test-tools/node/node_modules").glob("node-*-*/bin"), None)
        if newer is not None:
            clean["PATH"] = f"{newer}{os.pathsep}{clean['PATH']}"
        own = {**clean, "WHEELHOUSE__WORKER__LISTEN": f"127.0.0.1:{listener}"}
        command = [program, "--data-dir", str(self.data), "dev", "--port", str(free_port()), "--workers", "1"]
        self.process = Process(command, folder / "dev.log", own)
        until("wheelhouse dev is up", lambda: "Console:" in self.process.output(), self.process.output)
        token = self.call("token", "--worker", "examples", "--tenants", "acme", "--ttl", "1h")
        self.environment = {**clean, "WHEELHOUSE_URL": f"http://127.0.0.1:{listener}", "WHEELHOUSE_TOKEN": token.strip()}

    def call(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.program, "--data-dir", str(self.data), *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT
        )
        if done.returncode != 0:
            sys.exit(f"wheelhouse {' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def status(self, job: str) -> str:
        shown = re.search(r'"status":\s*"(\w+)"', self.call("job", "show", job, "--json"))
        return shown.group(1) if shown else "unknown"


def control(wheelhouse: Wheelhouse, job: str, running: Process, moves: str) -> None:
    """Pauses, resumes and cancels a job that prints lines with these words."""

    def count() -> int:
        return running.output().count(moves)

    until(f"{job} runs", lambda: count() > 1, running.output)
    wheelhouse.call("job", "pause", job, "--wait")
    held = count()
    time.sleep(QUIET)
    if count() != held:
        sys.exit(f"{job} went on while it was paused:\n{running.output()}")
    wheelhouse.call("job", "resume", job, "--wait")
    until(f"{job} goes on", lambda: count() > held, running.output)
    wheelhouse.call("job", "cancel", job, "--wait")
    ended = count()
    time.sleep(QUIET)
    if count() != ended or wheelhouse.status(job) != "cancelled":
        sys.exit(f"{job} went on after it was cancelled:\n{running.output()}")


def example(wheelhouse: Wheelhouse, name: str, moves: str, folder: Path) -> None:
    """One command, as the example's own words say it; the jobs are those that it prints."""
    print(f"examples/{name}", flush=True)
    running = Process(["sh", f"examples/{name}/run.sh"], folder / f"{name}.log", wheelhouse.environment)
    try:
        ids = until(
            f"{name} prints its jobs",
            lambda: running.child.poll() is not None or re.findall(r"wheelhouse job cancel (\S+) --wait", running.output()),
            running.output,
        )
        if not isinstance(ids, list):
            sys.exit(f"examples/{name}/run.sh ended:\n{running.output()}")
        control(wheelhouse, ids[0], running, moves)
    finally:
        running.stop()


def readme(wheelhouse: Wheelhouse, folder: Path) -> None:
    """The lines of README.md word for word, but for the port of Redis."""
    print("README.md, Celery", flush=True)
    text = (ROOT / "README.md").read_text()
    found = re.search(r"```python\n(.*?ControlledTask.*?)```", text, re.DOTALL)
    if found is None:
        sys.exit("README.md has no Celery lines any more")
    lines = "\n".join(line.removeprefix("  ") for line in found.group(1).splitlines())
    port = free_port()
    if "redis://localhost" not in lines:
        sys.exit("README.md names another broker than redis://localhost")
    (folder / "tasks.py").write_text(lines.replace("redis://localhost", f"redis://localhost:{port}"))
    redis = Process(["redis-server", "--port", str(port), "--save", ""], folder / "redis.log", wheelhouse.environment, folder)
    programs = ROOT / "target/examples-python/bin"
    worker = Process([str(programs / "celery"), "-A", "tasks", "worker"], folder / "readme.log", wheelhouse.environment, folder)
    try:
        until("Redis is up", lambda: "Ready to accept" in redis.output(), redis.output)
        publish = "from tasks import report; print(report.delay(1000).id)"
        published = subprocess.run(
            [str(programs / "python"), "-c", publish],
            capture_output=True, text=True, env=wheelhouse.environment, cwd=folder, timeout=60, check=True,
        )
        job = published.stdout.strip()
        until("the task runs", lambda: wheelhouse.status(job) == "running", worker.output)
        for action, status in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
            wheelhouse.call("job", action, job, "--wait")
            if wheelhouse.status(job) != status:
                sys.exit(f"after {action} the task is {wheelhouse.status(job)}")
    finally:
        worker.stop(signal.SIGTERM)
        redis.stop(signal.SIGTERM)


def main() -> None:
    program = os.environ.get("WHEELHOUSE_PROGRAM")
    if not program:
        build = ["sh", str(ROOT / "scripts/build.sh"), "--bin", "wheelhouse"]
        built = subprocess.run(build, env={**os.environ, "PROFILE": "dev"}, stdout=subprocess.PIPE, text=True, check=True)
        program = built.stdout.strip()
    folder = Path(tempfile.mkdtemp(prefix="wheelhouse-examples-"))
    wheelhouse = Wheelhouse(program, folder)
    try:
        example(wheelhouse, "celery", "page ", folder)
        example(wheelhouse, "rq", "page ", folder)
        readme(wheelhouse, folder)
        example(wheelhouse, "bullmq", "letter ", folder)
    finally:
        wheelhouse.process.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print("the examples are under control")


if __name__ == "__main__":
    main()
