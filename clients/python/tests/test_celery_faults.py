"""Dead children, messages delivered twice, and a Rust worker that goes away."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

from bed.processes import Process, Ticks, children_of, eventually
from bed.queues import CeleryBed

MakeTicks = Callable[[], Ticks]


def _kill_children(worker: Process) -> None:
    for child in children_of(worker.pid):
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_a_killed_child_goes_on_after_its_last_save(celery: CeleryBed, ticks: MakeTicks) -> None:
    worker = celery.worker()
    seen = ticks()
    task = celery.tasks.stepwise.delay(str(seen), 20)
    seen.wait_for(random.randint(4, 10))
    _kill_children(worker)
    assert task.get(timeout=120) == 20
    steps = seen.steps()
    assert sorted(set(steps)) == list(range(20))
    again = next(index for index in range(1, len(steps)) if steps[index] <= steps[index - 1])
    saved = steps[again]
    assert saved % 3 == 0, steps
    assert steps[again - 1] - saved < 3 + 1, f"more than the steps since the last save were done twice: {steps}"
    celery.wheelhouse.wait_status(task.id, "completed")


def test_a_message_delivered_twice_is_run_once(celery: CeleryBed, ticks: MakeTicks) -> None:
    celery.worker()
    celery.worker()
    seen = ticks()
    task = celery.tasks.late.delay(str(seen), 30)
    seen.wait_for(1)
    celery.tasks.late.apply_async((str(seen), 30), task_id=task.id)
    assert task.get(timeout=120) == 30
    celery.wheelhouse.wait_status(task.id, "completed")
    seen.assert_none_for(3.0)
    assert seen.steps() == list(range(30))


def test_a_short_visibility_timeout_does_not_double_a_task(celery: CeleryBed, ticks: MakeTicks) -> None:
    for _ in range(2):
        celery.worker(TEST_VISIBILITY="2")
    seen = ticks()
    task = celery.tasks.late.delay(str(seen), 80)
    assert task.get(timeout=120) == 80
    seen.assert_none_for(3.0)
    assert seen.steps() == list(range(80))


def test_the_rust_worker_is_restarted_under_running_tasks(celery: CeleryBed, ticks: MakeTicks) -> None:
    """SIGTERM and SIGKILL: no step is lost or doubled, and commands are answered afterwards."""
    celery.worker(concurrency=4)
    for number in (signal.SIGTERM, signal.SIGKILL):
        files = [ticks() for _ in range(4)]
        tasks = [celery.tasks.plain.delay(str(file), 60, 0.1) for file in files]
        for file in files:
            file.wait_for(1)
        celery.wheelhouse.worker.stop(number, patience=0.0 if number == signal.SIGKILL else 30.0)
        celery.wheelhouse.worker = celery.wheelhouse.start_worker()
        with celery.wheelhouse.operator(tasks[0].id) as operator:
            operator.succeed("pause")
            files[0].assert_none_for(1.0)
            operator.succeed("resume")
        for task, file in zip(tasks, files, strict=True):
            assert task.get(timeout=120) == 60
            assert file.steps() == list(range(60))
            celery.wheelhouse.wait_status(task.id, "completed")


def test_out_of_touch_the_work_is_held_in_time(celery: CeleryBed, ticks: MakeTicks) -> None:
    celery.worker(concurrency=2)
    files = [ticks() for _ in range(2)]
    tasks = [celery.tasks.plain.delay(str(file), 120, 0.1) for file in files]
    for file in files:
        file.wait_for(1)
    celery.wheelhouse.worker.stop(signal.SIGKILL)
    gone = time.time()
    time.sleep(11.0)
    for file in files:
        # After reattach_seconds another process may have the job; by then no step is made here.
        assert file.stamps()[-1] - gone < 10.0
    celery.wheelhouse.worker = celery.wheelhouse.start_worker()
    for task, file in zip(tasks, files, strict=True):
        assert task.get(timeout=120) == 120
        assert file.steps() == list(range(120))


def test_tasks_wait_for_wheelhouse_and_never_run_uncontrolled(celery: CeleryBed, ticks: MakeTicks) -> None:
    worker = celery.worker()
    seen = ticks()
    celery.wheelhouse.worker.stop(signal.SIGKILL)
    began = time.monotonic()
    task = celery.tasks.plain.delay(str(seen), 3)
    assert time.monotonic() - began < 8.0, "publishing waited for Wheelhouse"
    worker.wait_for("waits for Wheelhouse")
    assert seen.count() == 0
    celery.wheelhouse.worker = celery.wheelhouse.start_worker()
    assert task.get(timeout=60) == 3
    eventually("completed", lambda: celery.wheelhouse.status(task.id) == "completed")
