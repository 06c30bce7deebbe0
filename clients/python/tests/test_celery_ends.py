"""retry(), Reject, Ignore, ETA and failures are what Celery's users know, and the row follows."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from bed.processes import Ticks, eventually
from bed.queues import CeleryBed

from wheelhouse_client import fitting_id

MakeTicks = Callable[[], Ticks]


@pytest.fixture(autouse=True)
def worker(celery: CeleryBed) -> object:
    return celery.worker(concurrency=2)


def test_completed(celery: CeleryBed, ticks: MakeTicks) -> None:
    task = celery.tasks.plain.delay(str(ticks()), 2)
    assert task.get(timeout=60) == 2
    row = celery.wheelhouse.row(task.id)
    assert (row["status"], row["result"]) == ("completed", "2")


def test_failed(celery: CeleryBed) -> None:
    task = celery.tasks.fails.delay()
    eventually("FAILURE", lambda: task.state == "FAILURE")
    row = celery.wheelhouse.row(task.id)
    assert row["status"] == "failed"
    assert row["error_message"] == "ValueError: it went wrong"


@pytest.mark.parametrize("code", [0, None, 3])
def test_an_exit_is_a_failure_as_celery_has_it(celery: CeleryBed, code: int | None) -> None:
    task = celery.tasks.exits.delay(code)
    eventually("FAILURE", lambda: task.state == "FAILURE")
    row = celery.wheelhouse.row(task.id)
    assert row["status"] == "failed"
    assert row["error_message"].startswith("SystemExit")


def test_a_result_that_celery_cannot_store_is_a_failure_in_both(celery: CeleryBed) -> None:
    task = celery.tasks.gives_a_set.delay()
    eventually("FAILURE", lambda: task.state == "FAILURE")
    row = celery.wheelhouse.row(task.id)
    assert row["status"] == "failed"
    assert "set is not JSON serializable" in row["error_message"]
    ignored = celery.tasks.gives_a_set_to_nobody.delay()
    celery.wheelhouse.wait_status(ignored.id, "completed")
    # What it stores in a way of its own is none.
    other = celery.tasks.gives_a_task.delay()
    eventually("SUCCESS", lambda: other.state == "SUCCESS")
    celery.wheelhouse.wait_status(other.id, "completed")


def test_retry(celery: CeleryBed, ticks: MakeTicks) -> None:
    seen = ticks()
    task = celery.tasks.retries.delay(str(seen))
    assert task.get(timeout=60) == "done"
    assert seen.steps() == [0, 1, 2]
    celery.wheelhouse.wait_status(task.id, "completed")


def test_autoretry_ends_failed(celery: CeleryBed, ticks: MakeTicks) -> None:
    seen = ticks()
    task = celery.tasks.autoretries.delay(str(seen))
    eventually("FAILURE", lambda: task.state == "FAILURE")
    assert seen.count() == 3
    celery.wheelhouse.wait_status(task.id, "failed")


def test_cancelled_between_two_retries(celery: CeleryBed, ticks: MakeTicks) -> None:
    seen = ticks()
    task = celery.tasks.autoretries.apply_async((str(seen),), {})
    eventually("RETRY", lambda: task.state in ("RETRY", "FAILURE"))
    answer = celery.wheelhouse.command(task.id, "cancel")
    if answer.kind == "cancel_succeeded":  # It may also have failed for good just before.
        eventually("REVOKED", lambda: task.state == "REVOKED")
        assert celery.wheelhouse.status(task.id) == "cancelled"


def test_reject_with_requeue_runs_again(celery: CeleryBed, ticks: MakeTicks) -> None:
    seen = ticks()
    task = celery.tasks.rejects.delay(str(seen), True)
    assert task.get(timeout=60) == "second time"
    assert seen.count() == 2
    celery.wheelhouse.wait_status(task.id, "completed")


def test_reject_without_requeue_has_failed(celery: CeleryBed, ticks: MakeTicks) -> None:
    seen = ticks()
    task = celery.tasks.rejects.delay(str(seen), False)
    celery.wheelhouse.wait_status(task.id, "failed")
    assert seen.count() == 1


def test_ignore(celery: CeleryBed, ticks: MakeTicks) -> None:
    task = celery.tasks.ignores.delay(str(ticks()))
    celery.wheelhouse.wait_status(task.id, "completed")
    assert task.state == "PENDING"


def test_eta(celery: CeleryBed, ticks: MakeTicks) -> None:
    seen = ticks()
    began = time.time()
    task = celery.tasks.plain.apply_async((str(seen), 1), countdown=2)
    celery.wheelhouse.wait_status(task.id, "pending")
    assert task.get(timeout=60) == 1
    assert seen.stamps()[0] >= began + 2


def test_a_completed_task_delivered_again_keeps_its_state(celery: CeleryBed, ticks: MakeTicks) -> None:
    seen = ticks()
    task = celery.tasks.plain.delay(str(seen), 2)
    assert task.get(timeout=60) == 2
    celery.tasks.plain.apply_async((str(seen), 2), task_id=task.id)
    assert celery.tasks.plain.delay(str(ticks()), 1).get(timeout=60) == 1
    eventually("nothing of it in the queue", lambda: celery.tasks.plain.delay(str(ticks()), 1).get(timeout=60) == 1)
    assert seen.count() == 2
    assert (task.state, task.get(timeout=5)) == ("SUCCESS", 2)


def test_the_tenant_travels_with_the_message(celery: CeleryBed, ticks: MakeTicks) -> None:
    task = celery.tasks.plain.apply_async((str(ticks()), 1), headers={"wheelhouse_tenant": "globex"})
    assert task.get(timeout=60) == 1
    assert celery.wheelhouse.row(task.id)["tenant_id"] == "globex"


def test_a_tenant_that_the_token_has_not_fails_with_words(celery: CeleryBed, ticks: MakeTicks) -> None:
    seen = ticks()
    task = celery.tasks.plain.apply_async((str(seen), 1), headers={"wheelhouse_tenant": "initech"})
    eventually("FAILURE", lambda: task.state == "FAILURE")
    assert "initech" in str(task.result) or "tenant" in str(task.result)
    assert seen.count() == 0


def test_ids_of_any_kind(celery: CeleryBed, ticks: MakeTicks) -> None:
    """Each is a job of its own, can be cancelled, and is the same job when it is delivered again."""
    for own in ("import:2026/05", "../größe-\U0001f600", "x" * 300, " "):
        name = fitting_id(own)
        assert len(name) <= 128 and name != own
        seen = ticks()
        task = celery.tasks.plain.apply_async((str(seen), 10_000), task_id=own)
        seen.wait_for(1)
        assert celery.wheelhouse.command(name, "cancel").kind == "cancel_succeeded"
        celery.wheelhouse.wait_status(name, "cancelled")
        eventually("REVOKED", lambda: task.state == "REVOKED")  # noqa: B023
    assert fitting_id("a:b") != fitting_id("a-b") == "a-b"


def test_called_as_a_function_and_eagerly_it_needs_no_wheelhouse(celery: CeleryBed, ticks: MakeTicks) -> None:
    assert celery.tasks.careful(str(ticks()), 2, 0.0) == 2
    assert celery.tasks.careful.apply((str(ticks()), 2, 0.0)).get() == 2
