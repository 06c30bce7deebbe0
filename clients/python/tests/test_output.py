"""What jobs say by ``log``, read from outside as everybody reads it."""

from __future__ import annotations

import asyncio
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import redis as redis_py
from bed.processes import Process, Ticks, eventually
from bed.proxy import Proxy
from bed.queues import CeleryBed, rq_worker
from bed.wheelhouse import Redis, Wheelhouse
from rq import Queue

import wheelhouse_client
from wheelhouse_client import aio, messages, process
from wheelhouse_client.output import MAX_WAITING, Output

sys.path.insert(0, str(Path(__file__).parent / "programs"))
import rq_jobs  # noqa: E402

MakeTicks = Callable[[], Ticks]


def new_id() -> str:
    return f"said-{uuid.uuid4().hex[:10]}"


def left_out(wheelhouse: Wheelhouse, job_id: str) -> bool:
    return any(str(line["text"]).endswith(" lines left out") for line in wheelhouse.output(job_id))


def test_celery(celery: CeleryBed, ticks: MakeTicks) -> None:
    celery.worker()
    task = celery.tasks.says.delay(3)
    assert task.get(timeout=60) == 3
    wheelhouse = celery.wheelhouse
    assert wheelhouse.said(task.id, "deep inside") == ["step 0", "step 1", "step 2", "deep inside"]
    assert [line["stream"] for line in wheelhouse.output(task.id)] == ["log", "log", "log", "stderr"]

    # Whoever says lines as fast as he can is not held up, is told of what was left out, and obeys as ever.
    seen = ticks()
    flood = celery.tasks.says_for_ever.delay(str(seen))
    seen.wait_for(20)
    with wheelhouse.operator(flood.id) as operator:
        operator.succeed("pause")
        seen.assert_none_for(1.0)
        operator.succeed("resume")
        seen.wait_for()
        eventually("what was left out is said", lambda: left_out(wheelhouse, flood.id))
        operator.succeed("cancel")


@pytest.mark.parametrize("kind", ["ControlledWorker", "ControlledSimpleWorker"])
def test_rq(kind: str, wheelhouse: Wheelhouse, redis: Redis, start: Callable[..., Process]) -> None:
    queue = Queue(f"rq-{uuid.uuid4().hex[:8]}", connection=redis_py.Redis(port=redis.port))
    rq_worker(start, wheelhouse, redis, queue.name, kind)
    job = queue.enqueue(rq_jobs.says, 2, meta={"tenant_id": "acme"})
    wheelhouse.wait_status(job.id, "completed")
    assert wheelhouse.said(job.id, "deep inside") == ["step 0", "step 1", "deep inside"]


@pytest.mark.usefixtures("own")
def test_plain_python_and_its_threads(wheelhouse: Wheelhouse) -> None:
    name = new_id()
    wheelhouse_client.log("nobody's")  # Outside of a job nothing happens.
    with wheelhouse_client.job("acme", name) as j:
        j.log("one\ntwo\r\n\nfour\n")
        j.log(5)
        with pytest.raises(ValueError, match="stdout"):
            j.log("x", stream="loud")
        helper = threading.Thread(target=j.log, args=("from a thread",))
        helper.start()
        helper.join()
        j.log("long " + "y" * 10_000)
        j.log("ünï\U0001f600 \ud800 \x00\x1b[31mred\x1b[0m")
        wheelhouse_client.log("last")
    j.log("too late")
    texts = wheelhouse.said(name, "last")
    assert texts[:6] == ["one", "two", "", "four", "5", "from a thread"]
    assert len(texts[6]) <= 4000 and texts[6].endswith("characters left out]")
    assert texts[7].startswith("ünï\U0001f600 ")
    assert len(texts) == 9


@pytest.mark.usefixtures("own")
def test_asyncio(wheelhouse: Wheelhouse) -> None:
    name = new_id()

    def deep() -> None:
        wheelhouse_client.log("from a thread of asyncio's")

    async def main() -> None:
        async with aio.job("acme", name) as j:
            j.log("begun")
            await asyncio.to_thread(deep)
            wheelhouse_client.log("last")
        wheelhouse_client.log("nobody's")

    asyncio.run(main())
    assert wheelhouse.said(name, "last") == ["begun", "from a thread of asyncio's", "last"]


def test_what_is_said_while_the_link_is_cut_arrives_later_and_a_doubt_is_said(
    wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(wheelhouse.worker_port)
    monkeypatch.setenv("WHEELHOUSE_URL", proxy.url)
    monkeypatch.setenv("WHEELHOUSE_TOKEN", wheelhouse.token)
    wheelhouse_client.close()
    name = new_id()
    try:
        with wheelhouse_client.job("acme", name) as j:
            j.log("before")
            wheelhouse.said(name, "before")
            proxy.cut()
            proxy.drop()
            eventually("the loss is seen", lambda: not process.session().connected)
            for number in range(5):
                j.log(f"line {number}")
            proxy.mend()
            j.save(1)  # Returns when the link is there again.
            j.log("last")
    finally:
        wheelhouse_client.close()
        proxy.stop()
    doubt = "… the connection broke off: lines may be missing here"
    assert wheelhouse.said(name, "last") == ["before", doubt, *(f"line {number}" for number in range(5)), "last"]


def test_no_more_than_is_kept_waits_and_messages_fit_into_frames() -> None:
    output = Output()
    for number in range(MAX_WAITING + 7):
        output.add(f"{number} " + "\x01" * 3000, "stdout" if number % 500 else "stderr")
    frame = 64 * 1024
    taken = list(output.take(3, frame))
    assert all(len(messages.to_text(message).encode()) <= frame for message in taken)
    lines = [line for message in taken for line in message["lines"]]
    assert lines[0] == "… 7 lines left out"
    assert [int(line.split()[0]) for line in lines[1:]] == list(range(7, MAX_WAITING + 7))
    assert not output
    output.add("\n".join(map(str, range(5000))), "log")
    first = next(output.take(3, frame))
    assert first["lines"][0] == f"… {5000 - MAX_WAITING} lines left out"
