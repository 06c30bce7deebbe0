"""A real Wheelhouse: redis-server, SQLite, one gateway, one worker with its listener, and an operator."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from .processes import Process, eventually, free_port

ROOT = Path(__file__).resolve().parents[4]
SECRET = "0123456789abcdef0123456789abcdef"
SUCCEEDED = {"pause": "paused", "resume": "running", "cancel": "cancelled"}


def program() -> str:
    """The binary: WHEELHOUSE_PROGRAM, else the debug build of this tree."""
    path = os.environ.get("WHEELHOUSE_PROGRAM") or str(
        Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "wheelhouse"
    )
    assert os.access(path, os.X_OK), f"{path} is missing: `cargo build --bin wheelhouse` makes it"
    return path


class Redis:
    """A redis-server of its own on a free port."""

    def __init__(self, folder: Path) -> None:
        for attempt in range(5):
            self.port = free_port()
            self.url = f"redis://127.0.0.1:{self.port}"
            options = ["--save", "", "--appendonly", "no", "--dir", str(folder)]
            self.process = Process(["redis-server", "--port", str(self.port), *options], {})
            try:
                self.process.wait_for("Ready to accept connections")
                return
            except AssertionError:  # Somebody else took the port in between.
                if attempt == 4:
                    raise


@dataclass(frozen=True)
class Answer:
    """The result of a command, and when (time.time) the operator had it."""

    message: dict[str, Any]
    at: float
    seconds: float

    @property
    def kind(self) -> str:
        return str(self.message["type"])


class Wheelhouse:
    """See the module. ``url`` and ``token`` are what a foreign worker needs."""

    def __init__(self, folder: Path, redis: Redis, **settings: str) -> None:
        self.folder = folder
        self.settings = {
            "WHEELHOUSE__REDIS__URL": redis.url,
            "WHEELHOUSE__DATABASE__URL": f"sqlite://{folder / 'wheelhouse.db'}",
            "WHEELHOUSE__AUTH__HS256_SECRET": SECRET,
            "WHEELHOUSE__LOG__FORMAT": "json",
            "WHEELHOUSE__LIMITS__COMMANDS_PER_MINUTE": "100000",
            "WHEELHOUSE__LIMITS__MESSAGES_PER_SECOND": "1000",
            "WHEELHOUSE__SERVER__DRAIN_NOTICE_SECONDS": "0",
            "WHEELHOUSE__WORKER__GRACE_SECONDS": "3",
            **settings,
        }
        self.run("migrate")
        self.run("grant", "--user", "ann", "*")
        self.gateway_port = free_port()
        self.gateway = Process(
            [program(), "gateway", "--listen", f"127.0.0.1:{self.gateway_port}"], self.settings, folder
        )
        self.worker_port = free_port()
        self.url = f"http://127.0.0.1:{self.worker_port}"
        self.worker = self.start_worker()
        self.token = self.worker_token("acme,globex")
        self.user_token = self.run("token", "--user", "ann", "--tenant", "acme", "--ttl", "8h").strip()
        self._wait_ready(f"http://127.0.0.1:{self.gateway_port}")

    def start_worker(self, port: int | None = None) -> Process:
        """A Rust worker with its listener at ``worker_port``, ready."""
        port = port or self.worker_port
        worker = Process(
            [program(), "worker"],
            {**self.settings, "WHEELHOUSE__WORKER__LISTEN": f"127.0.0.1:{port}"},
            self.folder,
        )
        self._wait_ready(f"http://127.0.0.1:{port}", worker)
        return worker

    def _wait_ready(self, url: str, process: Process | None = None) -> None:
        def ready() -> bool:
            assert process is None or process.child.poll() is None, process.output()
            try:
                with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        eventually(f"{url}/readyz", ready)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [program(), *arguments],
            env={**os.environ, **self.settings},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"wheelhouse {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def worker_token(self, tenants: str) -> str:
        return self.run("token", "--worker", "python-tests", "--tenants", tenants, "--ttl", "1d").strip()

    @property
    def environment(self) -> dict[str, str]:
        """What a foreign worker has in its environment."""
        return {"WHEELHOUSE_URL": self.url, "WHEELHOUSE_TOKEN": self.token}

    def row(self, job_id: str) -> dict[str, Any]:
        """The job's row, or an empty one."""
        with sqlite3.connect(self.folder / "wheelhouse.db", timeout=30) as database:
            database.row_factory = sqlite3.Row
            found = database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return dict(found) if found else {}

    def status(self, job_id: str) -> str:
        return str(self.row(job_id).get("status", "none"))

    def wait_status(self, job_id: str, status: str, patience: float = 60.0) -> None:
        eventually(f"job {job_id} {status} (it is {self.status(job_id)})", lambda: self.status(job_id) == status, patience)

    def audit(self, job_id: str) -> list[dict[str, Any]]:
        """The audit trail's rows of a job. They come a moment after the commands' results."""
        with sqlite3.connect(self.folder / "wheelhouse.db", timeout=30) as database:
            database.row_factory = sqlite3.Row
            rows = database.execute("SELECT * FROM command_audit WHERE resource_id = ?", (job_id,)).fetchall()
        return [dict(row) for row in rows]

    def output(self, job_id: str) -> list[dict[str, Any]]:
        """What the job has said, as anybody reads it from outside."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.gateway_port}/api/v1/jobs/{job_id}/output?tail=1000",
            headers={"Authorization": f"Bearer {self.user_token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            lines: list[dict[str, Any]] = json.load(answer)["lines"]
        return lines

    def said(self, job_id: str, last: str) -> list[str]:
        """The texts of the output, once this one is the last."""

        def texts() -> list[str]:
            return [str(line["text"]) for line in self.output(job_id)]

        eventually(f"{last!r} as the last line of {job_id}", lambda: texts()[-1:] == [last])
        return texts()

    def operator(self, job_id: str) -> Operator:
        return Operator(self, job_id)

    def command(self, job_id: str, action: str, patience: float = 60.0) -> Answer:
        """One command on a socket of its own; returns its result."""
        with self.operator(job_id) as operator:
            return operator.command(action, patience)

    def stop(self) -> None:
        self.worker.stop(signal.SIGKILL)
        self.gateway.stop(signal.SIGKILL)


class Operator:
    """A socket on a job. Waits for the row first: a job that is published appears a moment later."""

    def __init__(self, wheelhouse: Wheelhouse, job_id: str) -> None:
        eventually(f"a row of {job_id}", lambda: wheelhouse.row(job_id))
        self._connection = connect(
            f"ws://127.0.0.1:{wheelhouse.gateway_port}/api/v1/realtime/ws/jobs/{job_id}?token={wheelhouse.user_token}",
            open_timeout=30,
        )
        self._socket: ClientConnection = self._connection.__enter__()
        self._number = 0

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.__exit__(None, None, None)

    def command(self, action: str, patience: float = 60.0) -> Answer:
        began = time.monotonic()
        self._socket.send(json.dumps({"type": f"{action}_job", "reason": "a test"}))
        command_id = None
        while True:
            message = json.loads(self._socket.recv(timeout=max(0.1, began + patience - time.monotonic())))
            at = time.time()
            if message["type"] == f"{action}_requested" and command_id is None:
                command_id = message["command_id"]
            elif message["type"] == "error":
                raise AssertionError(message)
            elif message["type"] in (f"{action}_succeeded", f"{action}_failed") and message["command_id"] == command_id:
                return Answer(message, at, time.monotonic() - began)

    def succeed(self, action: str, patience: float = 60.0) -> Answer:
        answer = self.command(action, patience)
        assert answer.kind == f"{action}_succeeded", answer.message
        return answer
