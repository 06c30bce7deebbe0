"""RQ: the worker with a work horse, and the one without."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import redis as redis_py
from bed.processes import Process, Ticks, children_of, eventually
from bed.queues import rq_worker
from bed.wheelhouse import Redis, Wheelhouse
from rq import Queue, Retry
from rq.job import JobStatus
from rq.registry import StartedJobRegistry

import wheelhouse_client
from wheelhouse_client.rq import ControlledQueue

sys.path.insert(0, str(Path(__file__).parent / "programs"))
import rq_jobs  # noqa: E402

MakeTicks = Callable[[], Ticks]
META = {"tenant_id": "acme"}
KINDS = ["ControlledWorker", "ControlledSimpleWorker"]


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return Queue(f"rq-{uuid.uuid4().hex[:8]}", connection=redis_py.Redis(port=redis.port))


@pytest.mark.parametrize("kind", KINDS)
def test_pause_resume_cancel(
    kind: str, queue: Queue, wheelhouse: Wheelhouse, redis: Redis, start: Callable[..., Process], ticks: MakeTicks
) -> None:
    rq_worker(start, wheelhouse, redis, queue.name, kind)
    seen = ticks()
    job = queue.enqueue(rq_jobs.plain, str(seen), 10_000, meta=META)
    seen.wait_for()
    with wheelhouse.operator(job.id) as operator:
        operator.succeed("pause")
        seen.assert_none_for(3.0)
        operator.succeed("resume")
        seen.wait_for()
        operator.succeed("cancel")
    seen.assert_none_for(1.0)
    eventually("canceled", lambda: job.get_status() == "canceled")
    row = wheelhouse.row(job.id)
    assert (row["status"], row["job_type"]) == ("cancelled", "rq:rq_jobs.plain")


@pytest.mark.parametrize("kind", KINDS)
def test_paused_time_does_not_count_against_the_job_timeout(
    kind: str, queue: Queue, wheelhouse: Wheelhouse, redis: Redis, start: Callable[..., Process], ticks: MakeTicks
) -> None:
    rq_worker(start, wheelhouse, redis, queue.name, kind)
    seen = ticks()
    job = queue.enqueue(rq_jobs.plain, str(seen), 20, job_timeout=5, meta=META)
    seen.wait_for(1)
    with wheelhouse.operator(job.id) as operator:
        operator.succeed("pause")
        seen.assert_none_for(6.0)
        operator.succeed("resume")
    eventually("finished", lambda: job.get_status() == "finished")
    assert seen.count() == 20
    wheelhouse.wait_status(job.id, "completed")


def test_the_job_timeout_itself_stays(
    queue: Queue, wheelhouse: Wheelhouse, redis: Redis, start: Callable[..., Process], ticks: MakeTicks
) -> None:
    rq_worker(start, wheelhouse, redis, queue.name)
    job = queue.enqueue(rq_jobs.plain, str(ticks()), 1000, job_timeout=1, meta=META)
    eventually("failed", lambda: job.get_status() == "failed")
    wheelhouse.wait_status(job.id, "failed")


def test_retries_failures_and_resume_points(
    queue: Queue, wheelhouse: Wheelhouse, redis: Redis, start: Callable[..., Process], ticks: MakeTicks
) -> None:
    rq_worker(start, wheelhouse, redis, queue.name)
    seen = ticks()
    flaky = queue.enqueue(rq_jobs.flaky, str(seen), retry=Retry(max=3), meta=META)
    eventually("finished", lambda: flaky.get_status() == "finished")
    assert seen.count() == 3
    wheelhouse.wait_status(flaky.id, "completed")
    failed = queue.enqueue(rq_jobs.fails, meta=META)
    eventually("failed", lambda: failed.get_status() == "failed")
    wheelhouse.wait_status(failed.id, "failed")
    assert wheelhouse.row(failed.id)["error_message"] == "ValueError: it went wrong"
    careful = queue.enqueue(rq_jobs.careful, str(ticks()), 5, meta=META)
    eventually("finished", lambda: careful.get_status() == "finished")
    wheelhouse.wait_status(careful.id, "completed")
    assert wheelhouse.row(careful.id)["items_processed"] == 5


def test_a_hang_is_killed_after_the_grace(
    queue: Queue, wheelhouse: Wheelhouse, redis: Redis, start: Callable[..., Process], ticks: MakeTicks
) -> None:
    rq_worker(start, wheelhouse, redis, queue.name)
    seen = ticks()
    job = queue.enqueue(rq_jobs.hangs, str(seen), retry=Retry(max=3), meta=META)
    seen.wait_for()
    answer = wheelhouse.command(job.id, "cancel")
    assert answer.kind == "cancel_succeeded", answer.message
    time.sleep(0.05)
    assert seen.stamps()[-1] <= answer.at
    eventually("canceled", lambda: job.get_status() == "canceled")
    seen.assert_none_for(1.0)


@pytest.mark.parametrize("code", [0, None, 3])
def test_an_exit_is_a_failure_as_rq_has_it(
    code: int | None, queue: Queue, wheelhouse: Wheelhouse, redis: Redis, start: Callable[..., Process]
) -> None:
    rq_worker(start, wheelhouse, redis, queue.name)
    job = queue.enqueue("sys.exit", code, meta=META)
    eventually("failed", lambda: job.get_status() == "failed")
    wheelhouse.wait_status(job.id, "failed")


def test_a_lost_work_horse_fails_its_row(
    queue: Queue, wheelhouse: Wheelhouse, redis: Redis, start: Callable[..., Process], ticks: MakeTicks
) -> None:
    rq_worker(start, wheelhouse, redis, queue.name)
    job = queue.enqueue(rq_jobs.dies, str(ticks()), meta=META)
    eventually("failed", lambda: job.get_status() == "failed")
    wheelhouse.wait_status(job.id, "failed")


@pytest.mark.parametrize("kind", KINDS)
def test_what_rq_gives_up_since_its_worker_was_killed_fails_its_row(
    kind: str, queue: Queue, wheelhouse: Wheelhouse, redis: Redis, start: Callable[..., Process], ticks: MakeTicks
) -> None:
    """And a job that RQ runs again goes on."""
    worker = rq_worker(start, wheelhouse, redis, queue.name, kind)
    seen = ticks()
    lost = queue.enqueue(rq_jobs.plain, str(seen), 10_000, meta=META)
    seen.wait_for()
    for child in children_of(worker.pid):
        os.kill(child, signal.SIGKILL)
    worker.stop(signal.SIGKILL)
    again = queue.enqueue(rq_jobs.careful, str(ticks()), 3, meta=META, retry=Retry(max=1))
    # As it stands when a worker was killed with it, and some time later.
    registry = StartedJobRegistry(queue=queue)
    queue.remove(again)
    again.set_status(JobStatus.STARTED)
    for member in [*registry.connection.zrange(registry.key, 0, -1), f"{again.id}:gone"]:
        registry.connection.zadd(registry.key, {member: 1})
    rq_worker(start, wheelhouse, redis, queue.name, kind)
    eventually("failed", lambda: lost.get_status() == "failed")
    wheelhouse.wait_status(lost.id, "failed")
    assert "ended without a word" in wheelhouse.row(lost.id)["error_message"]
    wheelhouse.wait_status(again.id, "completed")


def test_a_job_without_a_tenant_runs_with_a_warning(
    queue: Queue, wheelhouse: Wheelhouse, redis: Redis, start: Callable[..., Process], ticks: MakeTicks
) -> None:
    worker = rq_worker(start, wheelhouse, redis, queue.name)
    job = queue.enqueue(rq_jobs.plain, str(ticks()), 1)
    eventually("finished", lambda: job.get_status() == "finished")
    worker.wait_for("runs without control")
    assert wheelhouse.row(job.id) == {}


def test_jobs_that_no_worker_has_yet(
    wheelhouse: Wheelhouse,
    redis: Redis,
    start: Callable[..., Process],
    ticks: MakeTicks,
    own: None,
) -> None:
    queue = ControlledQueue(f"rq-{uuid.uuid4().hex[:8]}", connection=redis_py.Redis(port=redis.port))
    never, later, after, soon = ticks(), ticks(), ticks(), ticks()
    cancelled = queue.enqueue(rq_jobs.plain, str(never), 3, meta=META)
    paused = queue.enqueue(rq_jobs.plain, str(later), 3, meta=META)
    dependent = queue.enqueue(rq_jobs.plain, str(after), 1, meta=META, depends_on=paused)
    (many,) = queue.enqueue_many([Queue.prepare_data(rq_jobs.plain, (str(soon), 1), meta=META)])
    scheduled = queue.enqueue_in(timedelta(hours=1), rq_jobs.plain, str(ticks()), 1, meta=META)
    for job in (cancelled, paused, dependent, many, scheduled):
        wheelhouse.wait_status(job.id, "pending")
    assert wheelhouse.row(scheduled.id)["run_after"] is not None
    for job, action in ((cancelled, "cancel"), (paused, "pause")):
        assert wheelhouse.command(job.id, action).kind == f"{action}_succeeded"
    rq_worker(start, wheelhouse, redis, queue.name)
    eventually("canceled", lambda: cancelled.get_status() == "canceled")
    time.sleep(2.0)
    assert (never.count(), later.count()) == (0, 0)
    assert wheelhouse.command(paused.id, "resume").kind == "resume_succeeded"
    for job in (paused, dependent, many):
        wheelhouse.wait_status(job.id, "completed")
    assert (later.count(), after.count(), soon.count()) == (3, 1, 1)


def test_what_is_removed_before_it_has_begun_is_cancelled(wheelhouse: Wheelhouse, redis: Redis, own: None) -> None:
    queue = ControlledQueue(f"rq-{uuid.uuid4().hex[:8]}", connection=redis_py.Redis(port=redis.port))
    jobs = {name: queue.enqueue(rq_jobs.fails, meta=META) for name in ("cancelled", "deleted", "fetched", "emptied")}
    for job in jobs.values():
        wheelhouse.wait_status(job.id, "pending")
    jobs["cancelled"].cancel()
    jobs["deleted"].delete()
    fetched = queue.fetch_job(jobs["fetched"].id)
    assert fetched is not None
    fetched.cancel()
    queue.empty()
    for job in jobs.values():
        wheelhouse.wait_status(job.id, "cancelled")
    # A program that ends right after removing says so all the same.
    later = queue.enqueue_in(timedelta(hours=1), rq_jobs.fails, meta=META)
    wheelhouse.wait_status(later.id, "pending")
    later.cancel()
    wheelhouse_client.close()
    wheelhouse.wait_status(later.id, "cancelled")
