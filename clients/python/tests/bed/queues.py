"""Workers of Celery and RQ for a test, each with a queue of its own."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .processes import Process
from .wheelhouse import Redis, Wheelhouse

BIN = Path(sys.executable).parent
PROGRAMS = Path(__file__).resolve().parent.parent / "programs"


class CeleryBed:
    """An app in this process (a publisher), and workers of it in others."""

    def __init__(self, wheelhouse: Wheelhouse, redis: Redis, start: Callable[..., Process]) -> None:
        self.wheelhouse = wheelhouse
        self.queue = f"celery-{uuid.uuid4().hex[:8]}"
        self.environment = {
            **wheelhouse.environment,
            "TEST_BROKER": f"{redis.url}/0",
            "TEST_QUEUE": self.queue,
            "PYTHONUNBUFFERED": "1",
        }
        self._start = start
        self._tasks: Any = None

    @property
    def tasks(self) -> Any:
        """The module of the tasks, for publishing."""
        if self._tasks is None:
            os.environ.update(self.environment)
            sys.modules.pop("tasks", None)
            sys.path.insert(0, str(PROGRAMS))
            import tasks

            self._tasks = tasks
        return self._tasks

    def worker(
        self, pool: str = "prefork", concurrency: int = 1, options: tuple[str, ...] = (), **environment: str
    ) -> Process:
        """A worker that is ready for messages. ``options`` are more of Celery's own."""
        worker = self._start(
            [
                str(BIN / "celery"),
                "-A",
                "tasks",
                "worker",
                "--pool",
                pool,
                "--concurrency",
                str(concurrency),
                "--loglevel",
                "INFO",
                "--hostname",
                f"{uuid.uuid4().hex[:8]}@test",
                "--without-gossip",
                "--without-mingle",
                *options,
            ],
            {**self.environment, **environment},
        )
        worker.wait_for("ready.")
        return worker


def rq_worker(
    start: Callable[..., Process], wheelhouse: Wheelhouse, redis: Redis, queue: str, kind: str = "ControlledWorker", **environment: str
) -> Process:
    """An RQ worker that listens on the queue."""
    worker: Process = start(
        [str(BIN / "rq"), "worker", "-u", redis.url, "-w", f"wheelhouse_client.rq.{kind}", "-P", str(PROGRAMS), queue],
        {**wheelhouse.environment, "PYTHONUNBUFFERED": "1", **environment},
    )
    worker.wait_for("istening on")
    return worker
