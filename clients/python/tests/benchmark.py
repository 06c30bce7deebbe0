"""What control of Python work costs: `python tests/benchmark.py [checkpoint attach many rows celery]`, all five by default.

Needs the package with its test requirements, redis-server, and the program (WHEELHOUSE_PROGRAM, else the debug build; take a
release for figures that mean something). Starts Redis, SQLite, a gateway and workers of its own. Prints figures; it judges none.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import timeit
import uuid
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
sys.path.insert(0, str(HERE))
from bed.processes import Process, Ticks, eventually  # noqa: E402
from bed.queues import CeleryBed  # noqa: E402
from bed.wheelhouse import Redis, Wheelhouse  # noqa: E402

import wheelhouse_client  # noqa: E402
from wheelhouse_client.begin import begin, finish  # noqa: E402
from wheelhouse_client.control import Control, _current  # noqa: E402
from wheelhouse_client.messages import Job  # noqa: E402
from wheelhouse_client.run import Clock, Lease, Run  # noqa: E402

RUNS = int(os.environ.get("WHEELHOUSE_BENCH_RUNS", "10000"))
RUNS_PER_PROCESS = 1000
ROUNDS = int(os.environ.get("WHEELHOUSE_BENCH_ROUNDS", "200"))
IDLE_SESSIONS = 4


def line(what: str, figure: str) -> None:
    print(f"{what:<66}{figure:>20}", flush=True)


def percentiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000 for part in (0.5, 0.95)]
    return f"{at[0]:.1f} / {at[1]:.1f} ms"


def checkpoint() -> None:
    run = Run(1, Job("acme", "bench"), lease=Lease(Clock() + 1e6))
    run.set_gate()
    control = Control(run, None)  # type: ignore[arg-type]
    token = _current.set(control)
    for name, function in (("job.checkpoint()", control.checkpoint), ("wheelhouse_client.checkpoint()", wheelhouse_client.checkpoint)):
        best = min(timeit.repeat(function, number=500_000, repeat=9)) / 500_000 * 1e9
        line(f"{name}, nothing wanted", f"{best:.0f} ns")
    _current.reset(token)


def attach(wheelhouse: Wheelhouse) -> None:
    session = wheelhouse_client.process.session()

    def some(count: int, seconds: list[float]) -> None:
        for _ in range(count):
            began = time.monotonic()
            run = begin(session, Job("acme", f"bench-{uuid.uuid4().hex}"))
            seconds.append(time.monotonic() - began)
            finish(session, run, None, {"how": "completed"})

    for threads in (1, 32):
        seconds: list[float] = []
        began = time.monotonic()
        work = [threading.Thread(target=some, args=(640 // threads, seconds)) for _ in range(threads)]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        rate = len(seconds) / (time.monotonic() - began)
        line(f"attach and end, {threads} at a time on one socket", f"{rate:.0f} a second")
        line("  attach, p50 / p95", percentiles(seconds))


def many(wheelhouse: Wheelhouse) -> None:
    """Runs on one Rust worker that do nothing, RUNS_PER_PROCESS to a socket."""
    before = memory(wheelhouse.worker.pid)
    programs = []
    began = time.monotonic()
    for number in range(RUNS // RUNS_PER_PROCESS):
        programs.append(
            Process([sys.executable, str(PROGRAMS / "hold_runs.py"), str(number), str(RUNS_PER_PROCESS)], wheelhouse.environment)
        )
    for program in programs:
        program.wait_for("attached", patience=300)
    line(f"{RUNS} runs attached on one worker, all of them", f"{time.monotonic() - began:.1f} s")
    after = memory(wheelhouse.worker.pid)
    line("  memory of the worker, each run", f"{(after - before) / RUNS:.1f} KiB")
    used, at = cpu(wheelhouse.worker.pid), time.monotonic()
    time.sleep(10)
    share = (cpu(wheelhouse.worker.pid) - used) / (time.monotonic() - at) * 100
    line("  processor of the worker while they are idle", f"{share:.0f} % of a core")
    seconds = []
    for number in range(20):
        with wheelhouse.operator(f"many-0-{number}") as operator:
            seconds.append(operator.succeed("pause").seconds)
    line("  pause beside them (runs that answer at once), p50 / p95", percentiles(seconds))
    for program in programs:
        program.stop(signal.SIGTERM)


def rows(wheelhouse: Wheelhouse) -> None:
    """Pauses of jobs of other systems, beside sessions that have nothing to do."""
    jobs = [f"row-{uuid.uuid4().hex[:8]}" for _ in range(20)]
    with sqlite3.connect(wheelhouse.folder / "wheelhouse.db", timeout=30) as database:
        insert = "INSERT INTO jobs (id, tenant_id, job_type, title, status) VALUES (?, 'acme', 'import', 'of another system', 'running')"
        database.executemany(insert, [(job,) for job in jobs])
    started = []
    for sessions in (0, IDLE_SESSIONS):
        for number in range(sessions):
            program = "import sys, time, wheelhouse_client\nwheelhouse_client.expect('acme', sys.argv[1])\ntime.sleep(3600)"
            started.append(Process([sys.executable, "-c", program, f"idle-{number}"], wheelhouse.environment))
            eventually(f"idle-{number}", lambda n=number: wheelhouse.row(f"idle-{n}"))
        seconds = []
        for job in jobs:
            with wheelhouse.operator(job) as operator:
                for _ in range(max(1, ROUNDS // len(jobs))):
                    seconds.append(operator.succeed("pause").seconds)
                    operator.succeed("resume")
        line(f"pause of rows of other systems beside {sessions} idle sessions, p50 / p95", percentiles(seconds))
    for process in started:
        process.stop(signal.SIGKILL)


def celery(wheelhouse: Wheelhouse, redis: Redis, folder: Path) -> None:
    started: list[Process] = []

    def start(command: list[str], environment: dict[str, str]) -> Process:
        started.append(Process(command, environment, PROGRAMS))
        return started[-1]

    bed = CeleryBed(wheelhouse, redis, start)
    bed.worker(concurrency=2)
    seen = Ticks(folder / "ticks")
    task = bed.tasks.plain.delay(str(seen), 1_000_000, 0.01)
    seen.wait_for()
    seconds: dict[str, list[float]] = {"pause": [], "resume": []}
    with wheelhouse.operator(task.id) as operator:
        for _ in range(ROUNDS):
            for action in ("pause", "resume"):
                seconds[action].append(operator.succeed(action).seconds)
        cancelled = operator.succeed("cancel").seconds
    for action, figures in seconds.items():
        line(f"{action} of an untouched Celery task (prefork), p50 / p95", percentiles(figures))
    line("cancel of it", f"{cancelled * 1000:.1f} ms")
    for process in started:
        process.stop(signal.SIGKILL)


def memory(pid: int) -> int:
    """Resident memory in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def cpu(pid: int) -> float:
    """Seconds of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    wanted = sys.argv[1:] or ["checkpoint", "attach", "many", "rows", "celery"]
    if "checkpoint" in wanted:
        checkpoint()
    if wanted == ["checkpoint"]:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        redis = Redis(folder)
        wheelhouse = Wheelhouse(folder, redis)
        os.environ.update(wheelhouse.environment)
        parts: dict[str, Callable[[], None]] = {
            "attach": lambda: attach(wheelhouse),
            "many": lambda: many(wheelhouse),
            "rows": lambda: rows(wheelhouse),
            "celery": lambda: celery(wheelhouse, redis, folder),
        }
        try:
            for part, run in parts.items():
                if part in wanted:
                    run()
        finally:
            wheelhouse_client.close()
            wheelhouse.stop()
            redis.process.stop(signal.SIGKILL)
    line("load of the machine at the end", f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
