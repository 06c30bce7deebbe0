"""The wall clock of a client's machine is set back and forward: nothing depends on it. While the machine sleeps, time goes on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from bed.clock import DAY, Clock
from bed.processes import Process, Ticks
from bed.queues import CeleryBed
from bed.wheelhouse import Wheelhouse

PROGRAMS = Path(__file__).parent / "programs"
MakeTicks = Callable[[], Ticks]


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def test_every_rule_is_kept_while_the_clock_jumps(clock: Clock) -> None:
    """A day forward and a day back, several times a second, under all checks of the protocol."""
    over = threading.Event()

    def jump() -> None:
        way = 1
        while not over.wait(0.15):
            clock.set(way * DAY)
            way = -way

    jumping = threading.Thread(target=jump)
    jumping.start()
    try:
        preload = [f"{name}={value}" for name, value in clock.environment.items()]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "wheelhouse_client.conformance", "--parallel", "4", "--"),
                *("env", *preload, sys.executable, str(PROGRAMS / "small_job.py")),
            ],
            capture_output=True,
            text=True,
            timeout=170,
        )
    finally:
        over.set()
        jumping.join()
    assert done.returncode == 0, done.stdout


def test_a_celery_task_is_held_resumed_and_cancelled_across_jumps(
    celery: CeleryBed, clock: Clock, ticks: MakeTicks
) -> None:
    celery.worker(**clock.environment)
    seen = ticks()
    task = celery.tasks.plain.delay(str(seen), 10_000, 0.05)
    seen.wait_for()
    with celery.wheelhouse.operator(task.id) as operator:
        for jump in (DAY, -DAY, 0):
            operator.succeed("pause")
            clock.set(jump)
            seen.assert_none_for(1.5)
            operator.succeed("resume")
            seen.wait_for()
            clock.set(-jump)
            seen.wait_for()
        operator.succeed("cancel")
    seen.assert_none_for(0.5)


def test_a_jump_neither_shortens_nor_lengthens_the_time_out_of_touch(
    wheelhouse: Wheelhouse, clock: Clock, start: Callable[..., Process], ticks: MakeTicks
) -> None:
    """The worker dies, and the clock jumps: the work is held when two thirds of reattach_seconds are over, and no later."""
    seen = ticks()
    name = f"clock-{uuid.uuid4().hex[:8]}"
    start([sys.executable, str(PROGRAMS / "ticking_job.py"), name, str(seen)], {**wheelhouse.environment, **clock.environment})
    seen.wait_for()
    wheelhouse.worker.stop(9)
    before = seen.count()
    clock.set(DAY)
    seen.wait_for(3)  # Not held at once.
    clock.set(-DAY)
    time.sleep(8.0)
    assert seen.count() > before
    seen.assert_none_for(1.0)
    wheelhouse.worker = wheelhouse.start_worker()
    seen.wait_for()
    assert wheelhouse.command(name, "cancel").kind == "cancel_succeeded"
    seen.assert_none_for(0.5)


def test_the_sleep_of_the_machine_counts_as_time_out_of_touch(
    wheelhouse: Wheelhouse, clock: Clock, start: Callable[..., Process], ticks: MakeTicks
) -> None:
    """The worker dies and the machine sleeps past the lease: the work is held at once, and not two thirds of reattach_seconds later."""
    seen = ticks()
    name = f"slept-{uuid.uuid4().hex[:8]}"
    start([sys.executable, str(PROGRAMS / "ticking_job.py"), name, str(seen)], {**wheelhouse.environment, **clock.environment})
    seen.wait_for()
    wheelhouse.worker.stop(9)
    clock.sleep(3_600)
    time.sleep(0.3)  # A step that had begun.
    seen.assert_none_for(1.0)
    wheelhouse.worker = wheelhouse.start_worker()
    seen.wait_for()
    assert wheelhouse.command(name, "cancel").kind == "cancel_succeeded"
    seen.assert_none_for(0.5)
