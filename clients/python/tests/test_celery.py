"""Pause, resume and cancel of Celery tasks, in each of its pools."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from bed.processes import Ticks, children_of, eventually
from bed.queues import CeleryBed

MakeTicks = Callable[[], Ticks]
MANY = int(os.environ.get("WHEELHOUSE_TEST_ROUNDS", "20"))


def _ends(audit: list[dict], action: str) -> list[str]:
    return [row["event"] for row in audit if row["action"] == action and row["event"] in ("succeeded", "failed", "expired")]


def test_an_untouched_task_is_paused_resumed_and_cancelled(celery: CeleryBed, ticks: MakeTicks) -> None:
    celery.worker()
    seen = ticks()
    task = celery.tasks.plain.delay(str(seen), 10_000, 0.05)
    seen.wait_for()
    with celery.wheelhouse.operator(task.id) as operator:
        paused = operator.succeed("pause")
        assert paused.message["control"] == "live"
        seen.assert_none_for(3.0)
        assert celery.wheelhouse.status(task.id) == "paused"
        operator.succeed("resume")
        seen.wait_for()
        operator.succeed("cancel")
    seen.assert_none_for(1.0)
    eventually("REVOKED", lambda: task.state == "REVOKED")
    row = celery.wheelhouse.row(task.id)
    assert row["status"] == "cancelled"
    assert row["job_type"] == "celery:tasks.plain"
    assert row["cancelled_by"] == "ann"
    eventually("one audit end", lambda: _ends(celery.wheelhouse.audit(task.id), "cancel") == ["succeeded"])
    # The message is acknowledged: a worker that starts now finds nothing.
    again = celery.worker()
    seen.assert_none_for(1.0)
    assert task.id not in again.output()


def test_a_task_is_reached_inside_a_long_sleep(celery: CeleryBed, ticks: MakeTicks) -> None:
    celery.worker()
    seen = ticks()
    task = celery.tasks.long_sleep.delay(str(seen))
    seen.wait_for(1)
    with celery.wheelhouse.operator(task.id) as operator:
        paused = operator.succeed("pause")
        assert paused.at < seen.stamps()[-1] + 5.0, "the pause waited for the sleep's end"
        seen.assert_none_for(3.0)
        operator.succeed("resume")
        seen.wait_for(1)
        operator.succeed("cancel")
    seen.assert_none_for(2.5)


@pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
def test_tasks_with_checkpoints_in_the_other_pools(celery: CeleryBed, ticks: MakeTicks, pool: str) -> None:
    celery.worker(pool, 4)
    seen = ticks()
    task = celery.tasks.careful.delay(str(seen), 10_000)
    seen.wait_for()
    with celery.wheelhouse.operator(task.id) as operator:
        operator.succeed("pause")
        seen.assert_none_for(3.0)
        operator.succeed("resume")
        seen.wait_for()
        eventually("progress", lambda: (celery.wheelhouse.row(task.id)["items_processed"] or 0) > 0)
        operator.succeed("cancel")
    seen.assert_none_for(1.0)
    eventually("REVOKED", lambda: task.state == "REVOKED")
    assert celery.wheelhouse.status(task.id) == "cancelled"


def test_no_stamp_is_later_than_the_result(celery: CeleryBed, ticks: MakeTicks) -> None:
    """WHEELHOUSE_TEST_ROUNDS pauses and as many cancels of a task that stamps each millisecond."""
    celery.worker(concurrency=2)
    for _ in range(max(1, MANY // 10)):
        seen = ticks()
        task = celery.tasks.stamps.delay(str(seen))
        seen.wait_for()
        with celery.wheelhouse.operator(task.id) as operator:
            for _ in range(10):
                paused = operator.succeed("pause")
                time.sleep(0.05)
                assert seen.stamps()[-1] <= paused.at
                operator.succeed("resume")
                seen.wait_for(1)
            cancelled = operator.succeed("cancel")
        time.sleep(0.05)
        assert seen.stamps()[-1] <= cancelled.at
    for _ in range(MANY):
        seen = ticks()
        task = celery.tasks.stamps.delay(str(seen))
        seen.wait_for(1)
        cancelled = celery.wheelhouse.command(task.id, "cancel")
        assert cancelled.kind == "cancel_succeeded", cancelled.message
        time.sleep(0.05)
        assert seen.stamps()[-1] <= cancelled.at


def test_commands_on_tasks_in_the_broker(celery: CeleryBed, ticks: MakeTicks) -> None:
    """No Celery worker is up: the row is there all the same, and what was asked holds when one comes."""
    never, later, free = ticks(), ticks(), ticks()
    cancelled = celery.tasks.plain.delay(str(never), 3)
    paused = celery.tasks.plain.delay(str(later), 3)
    for task, action in ((cancelled, "cancel"), (paused, "pause")):
        answer = celery.wheelhouse.command(task.id, action)
        assert answer.kind == f"{action}_succeeded", answer.message
    celery.worker(concurrency=2)
    eventually("REVOKED", lambda: cancelled.state == "REVOKED")
    after = celery.tasks.plain.delay(str(free), 3)
    assert after.get(timeout=60) == 3
    assert never.count() == 0
    assert later.count() == 0
    assert celery.wheelhouse.status(paused.id) == "paused"
    assert celery.wheelhouse.command(paused.id, "resume").kind == "resume_succeeded"
    assert paused.get(timeout=60) == 3
    assert later.steps() == [0, 1, 2]
    celery.wheelhouse.wait_status(paused.id, "completed")


def test_a_loop_that_swallows_exceptions_is_cancelled(celery: CeleryBed, ticks: MakeTicks) -> None:
    celery.worker()
    seen = ticks()
    task = celery.tasks.swallows.delay(str(seen))
    seen.wait_for()
    assert celery.wheelhouse.command(task.id, "cancel").kind == "cancel_succeeded"
    seen.assert_none_for(1.0)
    eventually("REVOKED", lambda: task.state == "REVOKED")


def test_a_hang_is_killed_after_the_grace_and_never_comes_back(celery: CeleryBed, ticks: MakeTicks) -> None:
    celery.worker()
    seen = ticks()
    task = celery.tasks.hangs.delay(str(seen))
    seen.wait_for()
    answer = celery.wheelhouse.command(task.id, "cancel")
    assert answer.kind == "cancel_succeeded", answer.message
    time.sleep(0.05)
    assert seen.stamps()[-1] <= answer.at
    eventually("REVOKED", lambda: task.state == "REVOKED")
    # The same message once more, as a broker may deliver it: refused.
    before = seen.count()
    celery.tasks.hangs.apply_async((str(seen),), task_id=task.id)
    after = celery.tasks.plain.delay(str(ticks()), 1)
    assert after.get(timeout=60) == 1
    assert seen.count() == before
    assert celery.wheelhouse.status(task.id) == "cancelled"


def test_a_critical_section_is_not_stopped_halfway(celery: CeleryBed, ticks: MakeTicks) -> None:
    celery.worker()
    seen = ticks()
    task = celery.tasks.shielded.delay(str(seen))
    seen.wait_for(2)
    assert celery.wheelhouse.command(task.id, "cancel").kind == "cancel_succeeded"
    assert seen.steps() == list(range(10))
    seen.assert_none_for(1.0)


def test_a_pause_beyond_the_time_limit_fails_and_is_never_stuck(celery: CeleryBed, ticks: MakeTicks) -> None:
    worker = celery.worker()
    seen = ticks()
    task = celery.tasks.limited.delay(str(seen))
    seen.wait_for(1)
    worker.wait_for("runs on while the task is paused")
    assert celery.wheelhouse.command(task.id, "pause").kind == "pause_succeeded"
    eventually("FAILURE", lambda: task.state == "FAILURE")
    celery.wheelhouse.wait_status(task.id, "failed")
    after = ticks()
    assert celery.tasks.plain.delay(str(after), 1).get(timeout=60) == 1


def test_a_worker_that_is_cancelled_by_celery_itself_tells_the_row(celery: CeleryBed, ticks: MakeTicks) -> None:
    celery.worker()
    seen = ticks()
    task = celery.tasks.plain.delay(str(seen), 10_000)
    seen.wait_for()
    task.revoke(terminate=True, signal="SIGKILL")
    eventually("REVOKED", lambda: task.state == "REVOKED")
    celery.wheelhouse.wait_status(task.id, "cancelled")


def test_a_lost_child_without_acks_late_fails_its_row(celery: CeleryBed, ticks: MakeTicks) -> None:
    worker = celery.worker()
    seen = ticks()
    task = celery.tasks.plain.delay(str(seen), 10_000)
    seen.wait_for()
    line = worker.wait_for("received")
    assert task.id in line
    for child in children_of(worker.pid):
        os.kill(child, signal.SIGKILL)
    eventually("FAILURE", lambda: task.state == "FAILURE")
    celery.wheelhouse.wait_status(task.id, "failed")
