"""What those who run Celery do to its workers: limits, recycling, scaling, revoking, and the three kinds of shutdown."""

from __future__ import annotations

import signal
from collections.abc import Callable

from bed.processes import Ticks, children_of, eventually
from bed.queues import CeleryBed

MakeTicks = Callable[[], Ticks]


def test_children_that_come_and_go(celery: CeleryBed, ticks: MakeTicks) -> None:
    """``--autoscale`` with ``--max-tasks-per-child``, then ``--max-memory-per-child``: each task has a child of its own."""
    plain = celery.tasks.plain
    scaled = celery.worker(options=("--autoscale=3,1", "--max-tasks-per-child=1"))
    files = [ticks() for _ in range(3)]
    tasks = [plain.delay(str(file), 10_000, 0.05) for file in files]
    for file in files:
        file.wait_for()  # All three run: it has scaled up.
    for task, file in zip(tasks, files, strict=True):
        with celery.wheelhouse.operator(task.id) as operator:
            operator.succeed("pause")
            file.assert_none_for(0.3)
            operator.succeed("resume")
            file.wait_for()
            operator.succeed("cancel")
    short = [plain.delay(str(ticks()), 2) for _ in range(5)]
    for task in short:
        assert task.get(timeout=60) == 2
        celery.wheelhouse.wait_status(task.id, "completed")
    scaled.stop(signal.SIGTERM)

    recycled = celery.worker(options=("--max-memory-per-child=1",))
    for _ in range(3):
        before = set(children_of(recycled.pid))
        task = plain.delay(str(ticks()), 2)
        assert task.get(timeout=60) == 2
        celery.wheelhouse.wait_status(task.id, "completed")
        eventually("another child", lambda: not before & set(children_of(recycled.pid)))  # noqa: B023


def test_revoked_by_celery(celery: CeleryBed, ticks: MakeTicks) -> None:
    """``revoke(id)`` keeps a waiting task from beginning; ``revoke(id, terminate=True)`` ends one that runs, or is paused."""
    celery.worker()
    control = celery.tasks.app.control
    running, waiting, paused, late = ticks(), ticks(), ticks(), ticks()
    first = celery.tasks.plain.delay(str(running), 10_000)
    running.wait_for()
    second = celery.tasks.plain.delay(str(waiting), 3)
    control.revoke(second.id)
    control.revoke(first.id)  # It runs: for Celery this changes nothing.
    running.wait_for()
    control.revoke(first.id, terminate=True)
    for task in (first, second):
        eventually("REVOKED", lambda: task.state == "REVOKED")  # noqa: B023
        celery.wheelhouse.wait_status(task.id, "cancelled")
    assert waiting.count() == 0
    running.assert_none_for(0.5)

    third = celery.tasks.plain.delay(str(paused), 10_000)
    paused.wait_for()
    assert celery.wheelhouse.command(third.id, "pause").kind == "pause_succeeded"
    control.revoke(third.id, terminate=True)
    fourth = celery.tasks.late.delay(str(late), 10_000)
    late.wait_for()
    control.revoke(fourth.id, terminate=True)
    for task in (third, fourth):
        eventually("REVOKED", lambda: task.state == "REVOKED")  # noqa: B023
        celery.wheelhouse.wait_status(task.id, "cancelled")
    late.assert_none_for(1.0)


def test_a_greenlet_is_revoked(celery: CeleryBed, ticks: MakeTicks) -> None:
    celery.worker("gevent", 4)
    running, paused = ticks(), ticks()
    first = celery.tasks.careful.delay(str(running), 10_000)
    second = celery.tasks.careful.delay(str(paused), 10_000)
    running.wait_for()
    paused.wait_for()
    assert celery.wheelhouse.command(second.id, "pause").kind == "pause_succeeded"
    for task in (first, second):
        celery.tasks.app.control.revoke(task.id, terminate=True)
        eventually("REVOKED", lambda: task.state == "REVOKED")  # noqa: B023
        celery.wheelhouse.wait_status(task.id, "cancelled")
    running.assert_none_for(0.5)


def test_soft_and_hard_time_limits(celery: CeleryBed, ticks: MakeTicks) -> None:
    celery.worker(concurrency=4)
    tasks, wheelhouse = celery.tasks, celery.wheelhouse
    seen, hard, held = ticks(), ticks(), ticks()
    in_time = tasks.limited_softly.delay(str(ticks()), 0.1)
    cleans = tasks.limited_softly.delay(str(ticks()), 30.0)
    fails = tasks.limited_softly_and_fails.delay(str(seen))
    killed = tasks.limited.delay(str(hard))
    assert in_time.get(timeout=60) == "in time"
    paused = tasks.limited_softly_and_fails.apply_async((str(held),), soft_time_limit=8)
    held.wait_for(1)
    assert wheelhouse.command(paused.id, "pause").kind == "pause_succeeded"
    assert cleans.get(timeout=60) == "cleaned up"
    for task in (fails, killed, paused):
        eventually("FAILURE", lambda: task.state == "FAILURE")  # noqa: B023
        wheelhouse.wait_status(task.id, "failed")
    for task in (in_time, cleans):
        wheelhouse.wait_status(task.id, "completed")
    assert "SoftTimeLimitExceeded" in str(wheelhouse.row(fails.id)["error_message"])
    assert "time limit of 4" in str(wheelhouse.row(killed.id)["error_message"])


def test_a_warm_shutdown_lets_tasks_end(celery: CeleryBed, ticks: MakeTicks) -> None:
    worker = celery.worker(concurrency=2)
    files = [ticks() for _ in range(2)]
    tasks = [celery.tasks.plain.delay(str(file), 30, 0.1) for file in files]
    for file in files:
        file.wait_for(1)
    worker.send_signal(signal.SIGTERM)
    worker.wait_for("Warm shutdown")
    # Commands reach what still runs.
    with celery.wheelhouse.operator(tasks[0].id) as operator:
        operator.succeed("pause")
        files[0].assert_none_for(0.5)
        operator.succeed("resume")
        files[0].wait_for(1)
    assert worker.child.wait(60) == 0
    for task, file in zip(tasks, files, strict=True):
        assert file.steps() == list(range(30))
        assert celery.wheelhouse.status(task.id) == "completed"


def test_a_cold_shutdown_gives_back_what_is_acknowledged_late_and_fails_the_rest(
    celery: CeleryBed, ticks: MakeTicks
) -> None:
    worker = celery.worker(concurrency=2)
    early, late = ticks(), ticks()
    lost = celery.tasks.plain.delay(str(early), 10_000)
    kept = celery.tasks.late.delay(str(late), 20, 0.1)
    early.wait_for(1)
    late.wait_for(1)
    worker.send_signal(signal.SIGQUIT)
    worker.child.wait(60)
    early.assert_none_for(0.5)
    # Celery has no message for it any more.
    celery.wheelhouse.wait_status(lost.id, "failed")
    celery.wheelhouse.wait_status(kept.id, "pending")
    celery.worker()
    assert kept.get(timeout=60) == 20
    celery.wheelhouse.wait_status(kept.id, "completed")
    assert late.steps()[-20:] == list(range(20))


def test_a_soft_shutdown_waits_and_then_is_a_cold_one(celery: CeleryBed, ticks: MakeTicks) -> None:
    worker = celery.worker(concurrency=3, TEST_SOFT_SHUTDOWN="3")
    short, late, held = ticks(), ticks(), ticks()
    ends = celery.tasks.plain.delay(str(short), 10, 0.1)
    kept = celery.tasks.late.delay(str(late), 60, 0.1)
    paused = celery.tasks.late.delay(str(held), 10, 0.1)
    for file in (short, late, held):
        file.wait_for(1)
    assert celery.wheelhouse.command(paused.id, "pause").kind == "pause_succeeded"
    steps = held.count()
    worker.send_signal(signal.SIGQUIT)
    worker.wait_for("Initiating Soft Shutdown")
    worker.child.wait(60)
    celery.wheelhouse.wait_status(ends.id, "completed")
    celery.wheelhouse.wait_status(kept.id, "pending")
    assert celery.wheelhouse.status(paused.id) == "paused"
    celery.worker(concurrency=2)
    assert kept.get(timeout=60) == 60
    celery.wheelhouse.wait_status(kept.id, "completed")
    # What is paused stays so, whoever has it, and goes on when it is resumed.
    assert held.count() == steps
    assert celery.wheelhouse.command(paused.id, "resume").kind == "resume_succeeded"
    assert paused.get(timeout=60) == 10
    celery.wheelhouse.wait_status(paused.id, "completed")
