"""The specification's own listener goes on hearing commands beside controlled workers, and disturbs nothing."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable

from bed.processes import Process, Ticks
from bed.queues import PROGRAMS, CeleryBed
from bed.wheelhouse import Redis

MakeTicks = Callable[[], Ticks]


def test_it_hears_commands_on_controlled_and_on_external_jobs(
    celery: CeleryBed, redis: Redis, start: Callable[..., Process], ticks: MakeTicks
) -> None:
    listener = start([sys.executable, str(PROGRAMS / "specification_listener.py")], {"TEST_REDIS": redis.url})
    listener.wait_for("listening")
    celery.worker()
    seen = ticks()
    task = celery.tasks.plain.delay(str(seen), 10_000)
    seen.wait_for()
    answer = celery.wheelhouse.command(task.id, "pause")
    assert (answer.kind, answer.message["control"]) == ("pause_succeeded", "live")
    listener.wait_for(f"heard pause {task.id} acme ann")
    seen.assert_none_for(1.0)
    assert celery.wheelhouse.command(task.id, "cancel").kind == "cancel_succeeded"
    listener.wait_for(f"heard cancel {task.id} acme ann")

    # A row of another system, whose work only such a listener can stop: the answer says that it was the row alone.
    with sqlite3.connect(celery.wheelhouse.folder / "wheelhouse.db", timeout=30) as database:
        database.execute("INSERT INTO jobs (id, tenant_id, job_type, status) VALUES ('theirs-1', 'acme', 'x', 'running')")
    answer = celery.wheelhouse.command("theirs-1", "cancel")
    assert (answer.kind, answer.message["control"]) == ("cancel_succeeded", "row")
    listener.wait_for("heard cancel theirs-1 acme ann")
