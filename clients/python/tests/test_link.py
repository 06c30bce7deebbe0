"""The link between a process and the Rust worker: cut for a while, shared by many jobs, never carried over a fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bed.processes import Process, Ticks, eventually
from bed.proxy import Proxy
from bed.queues import PROGRAMS, CeleryBed
from bed.wheelhouse import Wheelhouse

MakeTicks = Callable[[], Ticks]
LONG_CUT = float(os.environ.get("WHEELHOUSE_TEST_LONG_CUT", "14"))
REATTACH = 10.0


@pytest.mark.parametrize("seconds", [1.0, 6.0, LONG_CUT])
def test_fifty_tasks_over_a_link_that_is_cut(celery: CeleryBed, ticks: MakeTicks, seconds: float) -> None:
    proxy = Proxy(celery.wheelhouse.worker_port)
    worker = celery.worker("threads", 50, WHEELHOUSE_URL=proxy.url)
    files = [ticks() for _ in range(50)]
    tasks = [celery.tasks.careful.delay(str(file), 60, 0.2) for file in files]
    for file in files:
        file.wait_for(1)
    proxy.cut()
    began = time.time()
    time.sleep(seconds)
    if seconds > REATTACH:
        # Beyond reattach_seconds the runs may be given to others: by then nothing of the work goes on.
        late = [stamp for file in files for stamp in file.stamps() if stamp > began + REATTACH]
        assert not late, f"{len(late)} steps later than reattach_seconds"
    proxy.mend()
    with celery.wheelhouse.operator(tasks[0].id) as operator:
        answer = operator.command("pause")
        if answer.kind == "pause_succeeded":
            time.sleep(0.1)
            files[0].assert_none_for(1.0)
            operator.succeed("resume")
    for task, file in zip(tasks, files, strict=True):
        assert task.get(timeout=150) == 60, worker.output()
        assert file.steps() == list(range(60))
        celery.wheelhouse.wait_status(task.id, "completed")
    proxy.stop()


def test_a_fork_has_a_session_of_its_own(wheelhouse: Wheelhouse) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "forks.py")],
        env={**os.environ, **wheelhouse.environment},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    for name in ("fork-parent", "fork-child"):
        assert wheelhouse.status(name) == "completed"


def test_a_published_job_is_told_of_before_a_short_program_ends(wheelhouse: Wheelhouse, celery: CeleryBed) -> None:
    program = "import tasks; print(tasks.plain.delay('/dev/null', 1).id)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **celery.environment},
        cwd=PROGRAMS,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    wheelhouse.wait_status(done.stdout.strip(), "pending", 10)


def test_publishing_neither_waits_nor_fails_without_wheelhouse(celery: CeleryBed) -> None:
    program = (
        "import time, tasks\n"
        "tasks.plain.delay('/dev/null', 1)\n"
        "began = time.monotonic()\n"
        "for _ in range(2000): tasks.plain.delay('/dev/null', 1)\n"
        "print(time.monotonic() - began)\n"
    )

    def publish(**environment: str) -> float:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **celery.environment, **environment},
            cwd=PROGRAMS,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    publish(WHEELHOUSE_URL="http://127.0.0.1:9")  # Nobody listens there: every one is published all the same.
    publish(WHEELHOUSE_URL="")
    publish()


def test_not_required_means_that_tasks_run_without_wheelhouse(celery: CeleryBed, ticks: MakeTicks) -> None:
    worker = celery.worker(WHEELHOUSE_URL="http://127.0.0.1:9", TEST_REQUIRED="0")
    task = celery.tasks.plain.delay(str(ticks()), 2)
    assert task.get(timeout=60) == 2
    worker.wait_for("runs without control")


def test_a_stopped_process_asks_before_it_goes_on(wheelhouse: Wheelhouse, start: Callable[..., Process]) -> None:
    """SIGSTOP: its run is handed back, and what became of the job counts when it goes on."""
    program = start([sys.executable, str(PROGRAMS / "stops.py")], wheelhouse.environment)
    line = program.wait_for("ticking")
    ticks = Ticks(Path(line.split()[1]))
    ticks.wait_for(3)
    program.send_signal(signal.SIGSTOP)
    time.sleep(12.0)
    eventually("handed back", lambda: wheelhouse.status("stops") == "pending")
    # Cancelled while the process could not hear of it: it may not do a single step more.
    assert wheelhouse.command("stops", "cancel").kind == "cancel_succeeded"
    before = ticks.count()
    program.send_signal(signal.SIGCONT)
    program.wait_for("lost")
    assert ticks.count() <= before + 1, "it went on before it had asked"
