"""Plain Python and asyncio, in this very process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from decimal import Decimal

import pytest
from bed.processes import Ticks, eventually
from bed.wheelhouse import Wheelhouse

import wheelhouse_client
from wheelhouse_client import aio

MakeTicks = Callable[[], Ticks]
pytestmark = pytest.mark.usefixtures("own")


def new_id() -> str:
    return f"plain-{uuid.uuid4().hex[:10]}"


def tick(file: Ticks, step: int) -> None:
    with open(file.path, "a") as out:
        out.write(f"{step} {time.time()}\n")


class Work(threading.Thread):
    """A job in a thread of its own."""

    def __init__(self, job_id: str, file: Ticks, steps: int = 10_000) -> None:
        super().__init__(daemon=True)
        self.job_id, self.file, self.steps = job_id, file, steps
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            with wheelhouse_client.job("acme", self.job_id, title="A test") as j:
                for step in j.track(range(self.steps)):
                    tick(self.file, step)
                    wheelhouse_client.checkpoint()
                    time.sleep(0.02)
        except BaseException as error:
            self.error = error


def test_pause_resume_cancel(wheelhouse: Wheelhouse, ticks: MakeTicks) -> None:
    seen = ticks()
    work = Work(new_id(), seen)
    seen.wait_for()
    with wheelhouse.operator(work.job_id) as operator:
        operator.succeed("pause")
        seen.assert_none_for(1.0)
        operator.succeed("resume")
        seen.wait_for()
        operator.succeed("cancel")
    work.join(10)
    assert isinstance(work.error, wheelhouse_client.Cancelled)
    assert (work.error.by, work.error.reason) == ("ann", "a test")
    assert wheelhouse.status(work.job_id) == "cancelled"


def test_figures_of_any_kind_do_no_harm(wheelhouse: Wheelhouse) -> None:
    """What data libraries give as numbers, and what is none, neither stops the work nor its link."""

    class Integer:  # As numpy's are: no int, and json does not write them.
        def __int__(self) -> int:
            return 7

    name = new_id()
    with wheelhouse_client.job("acme", name) as j:
        j.progress(done=Integer(), total=Decimal("12.5"))  # type: ignore[arg-type]
        j.progress(succeeded=float("nan"), failed=float("inf"), percent=float("nan"), item="\ud800 \x00 " + "ü" * 5000)  # type: ignore[arg-type]
        j.progress(succeeded=-3, failed=2**70)
        with pytest.raises(TypeError, match="must be a number"):
            j.progress(done="many")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            j.save({1, 2})
        with pytest.raises(ValueError, match="bytes at most"):
            j.save("x" * 1_000_000)
        j.save({"at": 1})  # The link lives.
    row = wheelhouse.row(name)
    assert (row["status"], row["items_processed"], row["items_total"]) == ("completed", 7, 12)
    assert (row["items_succeeded"], row["items_failed"]) == (0, 2**53 - 1)


def test_completed_with_progress_and_result(wheelhouse: Wheelhouse) -> None:
    name = new_id()
    block = wheelhouse_client.job("acme", name, title="Import", parameters={"file": "a.csv"})
    with block as j:
        for _ in j.track(["a", "b", "c"]):
            pass
        j.failed_item("b", ValueError("bad row"))
        block.result = {"rows": 3}
    assert block.status == "completed"
    row = wheelhouse.row(name)
    assert (row["items_total"], row["items_processed"]) == (3, 3)
    assert row["result"] == '{"rows":3}'
    assert row["title"] == "Import"


def test_a_failure_and_its_retry_go_on_at_the_resume_point(wheelhouse: Wheelhouse) -> None:
    name = new_id()
    with pytest.raises(ValueError), wheelhouse_client.job("acme", name, max_retries=1) as j:
        assert j.resume_point is None
        j.save({"row": 7})
        raise ValueError("broken")
    assert wheelhouse.status(name) == "pending"
    with wheelhouse_client.job("acme", name, max_retries=1) as j:
        assert j.resume_point == {"row": 7}
    assert wheelhouse.status(name) == "completed"
    with pytest.raises(wheelhouse_client.AlreadyEnded) as refusal:
        wheelhouse_client.job("acme", name).__enter__()
    assert refusal.value.status == "completed"


def test_a_paused_job_begins_only_when_it_is_resumed(wheelhouse: Wheelhouse, ticks: MakeTicks) -> None:
    name, seen = new_id(), ticks()
    wheelhouse_client.process.session().expect(wheelhouse_client.messages.Job("acme", name))
    assert wheelhouse.command(name, "pause").kind == "pause_succeeded"
    work = Work(name, seen, 3)
    seen.assert_none_for(1.0)
    assert wheelhouse.command(name, "resume").kind == "resume_succeeded"
    work.join(30)
    assert seen.steps() == [0, 1, 2]


def test_a_foreign_tenant_is_denied(wheelhouse: Wheelhouse) -> None:
    with pytest.raises(wheelhouse_client.Denied):
        wheelhouse_client.job("initech", new_id()).__enter__()
    with pytest.raises(wheelhouse_client.Invalid, match="letters, digits"):
        wheelhouse_client.job("acme", "a b").__enter__()


def test_timeout_seconds_does_not_count_paused_time(wheelhouse: Wheelhouse) -> None:
    name = new_id()
    with pytest.raises(wheelhouse_client.TimedOut), wheelhouse_client.job("acme", name, timeout_seconds=1) as j:
        while True:
            j.checkpoint()
            time.sleep(0.01)
    assert wheelhouse.status(name) == "failed"


def test_a_user_token_is_none_here(wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEELHOUSE_TOKEN", wheelhouse.user_token)
    wheelhouse_client.close()
    with pytest.raises(wheelhouse_client.NotReachable, match="401"):
        wheelhouse_client.job("acme", new_id(), unreachable_for=2).__enter__()


def test_asyncio_pause_resume_cancel(wheelhouse: Wheelhouse, ticks: MakeTicks) -> None:
    name, seen = new_id(), ticks()
    cancelled = []

    async def work() -> None:
        async with aio.job("acme", name) as j:
            try:
                async for step in j.track(range(10_000)):
                    tick(seen, step)
                    await asyncio.sleep(0.02)
            finally:
                cancelled.append(j.cancelled)

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(work())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    seen.wait_for()
    with wheelhouse.operator(name) as operator:
        operator.succeed("pause")
        seen.assert_none_for(3.0)
        operator.succeed("resume")
        seen.wait_for()
        operator.succeed("cancel")
    seen.assert_none_for(0.5)
    thread.join(10)
    assert cancelled == [True]
    assert wheelhouse.status(name) == "cancelled"


def test_asyncio_cancel_reaches_an_await(wheelhouse: Wheelhouse) -> None:
    name = new_id()

    async def work() -> None:
        async with aio.job("acme", name) as j:
            await j.save(1)
            await asyncio.sleep(3600)

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(work())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    eventually("running", lambda: wheelhouse.status(name) == "running")
    assert wheelhouse.command(name, "cancel").kind == "cancel_succeeded"
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(("code", "status"), [(None, "completed"), (0, "completed"), (3, "failed")])
def test_a_program_that_leaves_its_block_by_an_exit_ends_as_it_says(
    own: None, wheelhouse: Wheelhouse, code: int | None, status: str
) -> None:
    job_id = new_id()
    with pytest.raises(SystemExit), wheelhouse_client.job("acme", job_id):
        raise SystemExit(code)
    assert wheelhouse.status(job_id) == status
