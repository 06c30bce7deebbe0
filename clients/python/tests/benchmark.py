"""What control costs: ``WHEELHOUSE_PROGRAM=target/release/wheelhouse python tests/benchmark.py`` in ``clients/python``.

Starts Redis, SQLite, a gateway, a Rust worker and a Celery worker of its own. For docs/performance.md; nothing is judged.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bed.processes import Process, Ticks  # noqa: E402
from bed.queues import CeleryBed  # noqa: E402
from bed.wheelhouse import Redis, Wheelhouse  # noqa: E402

import wheelhouse_client  # noqa: E402

PROGRAMS = Path(__file__).parent / "programs"
ROUNDS = int(os.environ.get("WHEELHOUSE_BENCH_ROUNDS", "200"))
IDLE_SESSIONS = 4


def spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p50, p95 = statistics.median(ordered), ordered[max(0, len(ordered) * 95 // 100 - 1)]
    return f"p50 {p50 * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms, longest {ordered[-1] * 1e3:.1f} ms ({len(ordered)} times)"


def nanoseconds(call: Callable[[], None]) -> str:
    """The cost of one call. The quickest thousand of many is what it costs where nobody else wants the processor."""
    batches = []
    for _ in range(500):
        began = time.perf_counter_ns()
        for _ in range(1000):
            call()
        batches.append((time.perf_counter_ns() - began) / 1000)
    empty = []
    for _ in range(500):
        began = time.perf_counter_ns()
        for _ in range(1000):
            pass
        empty.append((time.perf_counter_ns() - began) / 1000)
    return f"{min(batches) - min(empty):.0f} ns at best, {statistics.median(batches) - statistics.median(empty):.0f} ns in the middle"


def main() -> None:
    started: list[Process] = []

    def start(command: list[str], environment: dict[str, str] | None = None) -> Process:
        process = Process(command, environment or {}, PROGRAMS)
        started.append(process)
        return process

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        redis = Redis(folder)
        wheelhouse = Wheelhouse(folder, redis)
        os.environ.update(wheelhouse.environment)
        try:
            with wheelhouse_client.job("acme", "checkpoints") as job:
                print(f"job.checkpoint(): {nanoseconds(job.checkpoint)}")
                print(f"wheelhouse_client.checkpoint(): {nanoseconds(wheelhouse_client.checkpoint)}")
            pauses_of_a_task(wheelhouse, redis, start, folder)
            pauses_of_rows(wheelhouse, start)
        finally:
            wheelhouse_client.close()
            for process in started:
                process.stop(signal.SIGKILL)
            wheelhouse.stop()
            redis.process.stop(signal.SIGKILL)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def pauses_of_a_task(wheelhouse: Wheelhouse, redis: Redis, start: Callable[..., Process], folder: Path) -> None:
    celery = CeleryBed(wheelhouse, redis, start)
    celery.worker()
    seen = Ticks(folder / "ticks")
    task = celery.tasks.plain.delay(str(seen), 1_000_000, 0.01)
    seen.wait_for()
    took = []
    with wheelhouse.operator(task.id) as operator:
        for _ in range(ROUNDS):
            took.append(operator.succeed("pause").seconds)
            operator.succeed("resume")
        operator.succeed("cancel")
    print(f"pausing an untouched Celery task: {spread(took)}")


def pauses_of_rows(wheelhouse: Wheelhouse, start: Callable[..., Process]) -> None:
    """Jobs of other systems, beside sessions that have nothing to do."""
    jobs = [f"row-{uuid.uuid4().hex[:8]}" for _ in range(20)]
    with sqlite3.connect(wheelhouse.folder / "wheelhouse.db", timeout=30) as database:
        for job in jobs:
            database.execute(
                "INSERT INTO jobs (id, tenant_id, job_type, title, status) VALUES (?, 'acme', 'import', 'another system''s', 'running')", (job,)
            )
    for sessions in (0, IDLE_SESSIONS):
        for number in range(sessions):
            program = "import sys, time, wheelhouse_client\nwheelhouse_client.expect('acme', sys.argv[1])\ntime.sleep(3600)"
            start([sys.executable, "-c", program, f"idle-{number}"], wheelhouse.environment)
            while not wheelhouse.row(f"idle-{number}"):
                time.sleep(0.02)
        took = []
        for job in jobs:
            with wheelhouse.operator(job) as operator:
                for _ in range(max(1, ROUNDS // len(jobs))):
                    took.append(operator.succeed("pause").seconds)
                    operator.succeed("resume")
        print(f"pausing rows of other systems beside {sessions} idle sessions: {spread(took)}")


if __name__ == "__main__":
    main()
