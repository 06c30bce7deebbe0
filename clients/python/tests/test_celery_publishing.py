"""Whatever publishes a task, it is shown before any worker is up, and what was asked then holds."""

from __future__ import annotations

import time
from collections.abc import Callable

from bed.processes import Ticks, eventually
from bed.queues import CeleryBed
from celery import Celery, chain, chord, group

from wheelhouse_client.celery import ControlledTask, track

MakeTicks = Callable[[], Ticks]


def _pending(celery: CeleryBed, task_id: str) -> dict:
    celery.wheelhouse.wait_status(task_id, "pending")
    return celery.wheelhouse.row(task_id)


def test_by_name_from_an_app_without_tasks(celery: CeleryBed, ticks: MakeTicks) -> None:
    tasks = celery.tasks  # Sets the environment, too.
    web = Celery("web", broker=tasks.BROKER, backend=tasks.BROKER)
    web.conf.task_default_queue = celery.queue
    web.conf.wheelhouse_tenant = lambda task, args, kwargs: "acme" if task.name == "tasks.plain" else None
    track(web)
    track(web)
    never, later = ticks(), ticks()
    cancelled = web.send_task("tasks.plain", (str(never), 3))
    paused = web.send_task("tasks.plain", (str(later), 3), {}, countdown=1)
    assert _pending(celery, cancelled.id)["job_type"] == "celery:tasks.plain"
    assert _pending(celery, paused.id)["run_after"] is not None
    for task, action in ((cancelled, "cancel"), (paused, "pause")):
        answer = celery.wheelhouse.command(task.id, action)
        assert answer.kind == f"{action}_succeeded", answer.message
    celery.worker(concurrency=2)
    eventually("REVOKED", lambda: cancelled.state == "REVOKED")
    time.sleep(2.0)
    assert (never.count(), later.count()) == (0, 0)
    assert celery.wheelhouse.command(paused.id, "resume").kind == "resume_succeeded"
    assert paused.get(timeout=60) == 3


def test_an_app_whose_tasks_are_elsewhere_and_whose_tenant_is_in_the_header(celery: CeleryBed, ticks: MakeTicks) -> None:
    tasks = celery.tasks
    web = Celery("web", broker=tasks.BROKER, backend=tasks.BROKER, task_cls=ControlledTask)
    web.conf.task_default_queue = celery.queue

    @web.task(name="web.nothing")
    def nothing() -> None:
        pass

    nothing.name  # noqa: B018  The first use of a task gives it its app.
    sent = web.send_task("tasks.plain", (str(ticks()), 1), headers={"wheelhouse_tenant": "globex"})
    assert _pending(celery, sent.id)["tenant_id"] == "globex"


def test_signatures_chains_groups_and_chords(celery: CeleryBed, ticks: MakeTicks) -> None:
    tasks = celery.tasks
    seen = ticks()
    part = tasks.plain.si(str(seen), 1, 0.0)
    single = tasks.app.signature("tasks.plain", (str(seen), 1, 0.0), immutable=True).apply_async()
    parts = group(part, part).apply_async()
    both = chord([part, part])(tasks.plain.si(str(seen), 1, 0.0))
    row = chain(part, tasks.plain.si(str(seen), 2, 0.0)).apply_async()
    published = [single.id, *(child.id for child in parts.children), *(child.id for child in both.parent.children), row.parent.id]
    for task_id in published:
        _pending(celery, task_id)
    # What a worker publishes later is not there yet.
    assert celery.wheelhouse.row(row.id) == {}
    celery.worker(concurrency=2)
    assert (row.get(timeout=60), both.get(timeout=60), parts.get(timeout=60)) == (2, 1, [1, 1])
    for task_id in (*published, row.id, both.id):
        celery.wheelhouse.wait_status(task_id, "completed")


def test_the_error_and_the_number_of_a_retry_are_in_its_row(celery: CeleryBed, ticks: MakeTicks) -> None:
    task = celery.tasks.autoretries.apply_async((str(ticks()),), {})
    celery.worker(concurrency=1)
    eventually("FAILURE", lambda: task.state == "FAILURE")
    row = celery.wheelhouse.row(task.id)
    assert (row["status"], row["retry_count"]) == ("failed", 2)
