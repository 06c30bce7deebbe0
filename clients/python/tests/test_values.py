"""Values that Wheelhouse cannot keep: the work says so or is shown without them, and never waits for an answer that does not come."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Any

import pytest
from bed.processes import eventually
from bed.wheelhouse import Wheelhouse

import wheelhouse_client
from wheelhouse_client import aio, process
from wheelhouse_client.messages import jsonable, rfc3339

NUMBER = 10**1_001


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", [nested(128), {"rows": nested(127)}, NUMBER, [-NUMBER]])
def test_a_result_that_cannot_be_kept_is_described_and_the_job_ends(own: None, wheelhouse: Wheelhouse, value: Any) -> None:
    job_id = f"odd-result-{id(value)}"
    block = wheelhouse_client.job("acme", job_id)
    with block:
        block.result = value
    assert block.status == "completed"
    assert wheelhouse.row(job_id)["result"].startswith('"')


def test_a_result_at_the_limit_is_kept_as_it_is(own: None, wheelhouse: Wheelhouse) -> None:
    block = wheelhouse_client.job("acme", "deepest-result")
    with block:
        block.result = [nested(126), 10**999, "[" * 500, '"\\' * 200]
    assert block.status == "completed"
    assert wheelhouse.row("deepest-result")["result"].startswith("[[[")


@pytest.mark.parametrize("point", [nested(128), nested(100_000), NUMBER, float("nan"), "x" * 300_000])
def test_a_resume_point_that_cannot_be_kept_is_refused_and_the_one_before_stays(
    own: None, wheelhouse: Wheelhouse, point: Any
) -> None:
    job_id = f"odd-point-{id(point)}"
    with wheelhouse_client.job("acme", job_id) as job:
        job.save("good")
        with pytest.raises(ValueError):
            job.save(point)
        assert job.resume_point == "good"
        job.save("better")
    assert wheelhouse.row(job_id)["resume_point"] == '"better"'


def test_in_asyncio_too(own: None, wheelhouse: Wheelhouse) -> None:
    async def work() -> None:
        async with aio.job("acme", "odd-point-aio") as job:
            await job.save("good")
            with pytest.raises(ValueError):
                await job.save(nested(128))

    asyncio.run(asyncio.wait_for(work(), 30))
    assert wheelhouse.row("odd-point-aio")["resume_point"] == '"good"'


def test_what_the_worker_alone_refuses_is_not_waited_for_either(
    own: None, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is where the worker is a later one, with another rule."""
    monkeypatch.setattr("wheelhouse_client.messages.unfit", lambda text: None)
    block = wheelhouse_client.job("acme", "refused-by-the-worker")
    with block as job:
        job.save("good")
        with pytest.raises(ValueError, match="127 arrays"):
            job.save(nested(200))
        assert job.resume_point == "good"
        job.save("better")
        block.result = nested(200)
    assert block.status == "completed"
    row = wheelhouse.row("refused-by-the-worker")
    assert (row["result"], row["resume_point"]) == ("null", '"better"')


def test_parameters_that_are_too_many_bytes_are_left_out_and_the_link_stays(own: None, wheelhouse: Wheelhouse) -> None:
    """Few enough characters, but three bytes each."""
    wheelhouse_client.expect("acme", "large-published", parameters="字" * 100_000)
    with wheelhouse_client.job("acme", "large-attached", parameters="字" * 100_000, unreachable_for=20):
        pass
    assert wheelhouse.status("large-attached") == "completed"
    eventually("a row", lambda: wheelhouse.status("large-published") == "pending")
    assert process.session().problem is None


def test_what_is_only_shown_is_described_where_it_cannot_be_kept() -> None:
    assert jsonable({"rows": nested(126)}) == {"rows": nested(126)}
    assert isinstance(jsonable({"rows": nested(127)}), str)
    assert isinstance(jsonable([NUMBER]), str)
    assert jsonable(["[" * 300, '"' * 300, "1" * 2_000]) == ["[" * 300, '"' * 300, "1" * 2_000]


def test_a_time_that_the_protocol_does_not_have_is_the_next_one_that_it_has() -> None:
    assert rfc3339(datetime.max) == rfc3339(datetime.max.replace(tzinfo=timezone.utc)) == "9998-12-31T00:00:00.000000Z"
    assert rfc3339(datetime.min) == "1970-01-01T00:00:00.000000Z"
