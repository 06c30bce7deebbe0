"""dramatiq, taskiq and arq, as far as their hooks carry."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable

import pytest
from bed.processes import Process, Ticks, eventually
from bed.queues import BIN, PROGRAMS
from bed.wheelhouse import Redis, Wheelhouse

MakeTicks = Callable[[], Ticks]


@pytest.fixture
def environment(wheelhouse: Wheelhouse, redis: Redis) -> dict[str, str]:
    return {
        **wheelhouse.environment,
        "TEST_BROKER": f"{redis.url}/0",
        "TEST_QUEUE": f"queue-{uuid.uuid4().hex[:8]}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(PROGRAMS),
    }


def _controlled(wheelhouse: Wheelhouse, job_id: str, seen: Ticks) -> None:
    seen.wait_for()
    with wheelhouse.operator(job_id) as operator:
        operator.succeed("pause")
        seen.assert_none_for(1.0)
        operator.succeed("resume")
        seen.wait_for()
        operator.succeed("cancel")
    seen.assert_none_for(1.0)
    wheelhouse.wait_status(job_id, "cancelled")


def _program(name: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> object:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.syspath_prepend(str(PROGRAMS))
    sys.modules.pop(name, None)
    return __import__(name)


def test_dramatiq(
    wheelhouse: Wheelhouse,
    environment: dict[str, str],
    start: Callable[..., Process],
    ticks: MakeTicks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    actors = _program("dramatiq_actors", environment, monkeypatch)
    never = ticks()
    waiting = actors.careful.send(str(never), 1)  # type: ignore[attr-defined]
    wheelhouse.wait_status(waiting.message_id, "pending")
    assert wheelhouse.command(waiting.message_id, "cancel").kind == "cancel_succeeded"
    start([str(BIN / "dramatiq"), "dramatiq_actors", "--processes", "1", "--threads", "2"], environment)
    seen = ticks()
    message = actors.careful.send(str(seen), 10_000)  # type: ignore[attr-defined]
    _controlled(wheelhouse, message.message_id, seen)
    again = ticks()
    flaky = actors.flaky.send(str(again))  # type: ignore[attr-defined]
    again.wait_for(2)
    wheelhouse.wait_status(flaky.message_id, "completed")
    assert again.count() == 2
    assert never.count() == 0, "it was cancelled before any worker was up"


def test_taskiq(
    wheelhouse: Wheelhouse,
    environment: dict[str, str],
    start: Callable[..., Process],
    ticks: MakeTicks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = _program("taskiq_tasks", environment, monkeypatch)
    seen, short = ticks(), ticks()

    async def publish_only() -> str:
        await tasks.broker.startup()  # type: ignore[attr-defined]
        task = await tasks.careful.kiq(str(ticks()), 1)  # type: ignore[attr-defined]
        await tasks.broker.shutdown()  # type: ignore[attr-defined]
        return str(task.task_id)

    wheelhouse.wait_status(asyncio.run(publish_only()), "pending")
    start([str(BIN / "taskiq"), "worker", "taskiq_tasks:broker", "--workers", "1"], environment)

    async def publish() -> tuple[str, object]:
        await tasks.broker.startup()  # type: ignore[attr-defined]
        task = await tasks.careful.kiq(str(seen), 10_000)  # type: ignore[attr-defined]
        done = await tasks.careful.kiq(str(short), 3)  # type: ignore[attr-defined]
        result = await done.wait_result(timeout=60)
        await tasks.broker.shutdown()  # type: ignore[attr-defined]
        return task.task_id, result.return_value

    task_id, result = asyncio.run(publish())
    assert result == 3
    _controlled(wheelhouse, task_id, seen)

    # As the guide says: a retry middleware sends a task again whose job has failed already, and that is refused.
    again = ticks()

    async def publish_failing() -> str:
        await tasks.broker.startup()  # type: ignore[attr-defined]
        task = await tasks.fails.kicker().with_labels(retry_on_error=True, max_retries=2).kiq(str(again))  # type: ignore[attr-defined]
        await tasks.broker.shutdown()  # type: ignore[attr-defined]
        return str(task.task_id)

    wheelhouse.wait_status(asyncio.run(publish_failing()), "failed")
    again.assert_none_for(1.0)
    assert again.count() == 1


def test_arq(
    wheelhouse: Wheelhouse, environment: dict[str, str], start: Callable[..., Process], ticks: MakeTicks, redis: Redis
) -> None:
    python = os.environ.get("WHEELHOUSE_TEST_ARQ")
    assert python, "WHEELHOUSE_TEST_ARQ is not set: scripts/test-python.sh makes arq's own environment"
    start([str(os.path.join(os.path.dirname(python), "arq")), "arq_functions.WorkerSettings"], environment)

    def enqueue(function: str, job_id: str, *arguments: object) -> None:
        command = [python, str(PROGRAMS / "arq_enqueue.py"), function, job_id, *map(json.dumps, arguments)]
        subprocess.run(command, env={**os.environ, **environment}, check=True, timeout=60)

    seen, again = ticks(), ticks()
    enqueue("flaky", "arq-flaky", str(again))
    wheelhouse.wait_status("arq-flaky", "completed")
    assert again.steps() == [1, 2]
    enqueue("careful", "arq-careful", str(seen), 10_000)
    _controlled(wheelhouse, "arq-careful", seen)
    # As the guide says of a job that arq itself times out.
    late = ticks()
    enqueue("limited", "arq-limited", str(late), 10_000)
    eventually("a row of arq-limited", lambda: wheelhouse.row("arq-limited"))
    wheelhouse.wait_status("arq-limited", "pending")
    late.assert_none_for(1.0)
