"""Control of asyncio work: ``async with aio.job("acme", "import-7") as j: await j.checkpoint()``.

A pause holds the work at its next ``await j.checkpoint()``. A cancel is ``task.cancel()`` of the task that entered the block,
so it also reaches an ``await`` that waits for something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Token
from types import TracebackType
from typing import Any, TypeVar

from . import process
from .begin import BEYOND_REATTACH, end_message, kill_process, unless_done
from .control import Control, _speaking
from .errors import Elsewhere, Lost, NotReachable
from .messages import Job, Message, check_point
from .run import Clock, Run
from .session import Session
from .waiting import Waiters

Item = TypeVar("Item")


async def _wait(changed: Waiters, ready: Callable[[], bool], timeout: float) -> bool:
    if ready():
        return True
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(event.set)

    changed.call(wake)
    if not ready():
        try:
            await asyncio.wait_for(event.wait(), timeout)
        except asyncio.TimeoutError:
            pass
    return ready()


class AsyncControl:
    """A job's handle in a coroutine. Methods are for the task that entered the block."""

    def __init__(self, run: Run, session: Session) -> None:
        self._run = run
        self._session = session
        self._sync = Control(run, session)
        self._shield = 0
        self._cancelled = False
        self._task: asyncio.Task[Any] | None = asyncio.current_task()

    @property
    def tenant_id(self) -> str:
        return self._run.job.tenant_id

    @property
    def job_id(self) -> str:
        return self._run.job.job_id

    @property
    def resume_point(self) -> Any:
        """What ``save`` stored last, in this run or an earlier one; None where nothing was."""
        return self._sync.resume_point

    @property
    def cancelled(self) -> bool:
        """Whether it was Wheelhouse that ended the work."""
        return self._run.ending is not None

    def progress(self, done: int | None = None, total: int | None = None, item: str | None = None, **more: Any) -> None:
        """Says how far the work is; see ``Control.progress``."""
        self._sync.progress(done, total, item, **more)

    def failed_item(self, item: str, error: BaseException | str) -> None:
        """An item that could not be done, and why. The job goes on."""
        self._sync.failed_item(item, error)

    def log(self, text: object, *, stream: str = "log") -> None:
        """Adds lines to the job's output; see ``Control.log``. Never waits."""
        self._sync.log(text, stream=stream)

    async def checkpoint(self) -> None:
        """The work can stop here: waits while the job is paused; raises CancelledError when it is to end."""
        run = self._run
        if Clock() < run.open_until or self._shield:
            return
        while not run.over:
            if run.ending is not None:
                raise asyncio.CancelledError(str(run.ending.exception()))
            if not run.must_hold:
                return
            pause = run.pause
            if pause is not None and pause is not run.confirmed:
                run.confirmed = pause
                self._session.confirm_still(run, pause)

            def moved(seen: Any = pause) -> bool:
                return run.pause is not seen or run.ending is not None or not run.must_hold

            await _wait(run.changed, moved, 1.0)

    async def save(self, point: Any) -> None:
        """Stores where the job goes on in its next run (any JSON), and returns when it is in SQL."""
        check_point(point, self._session.max_frame - 512)
        run = self._run
        before = self.resume_point
        number = run.last_save[0] + 1
        run.last_save = (number, point)
        self._session.send_save(run)
        while not await _wait(run.changed, lambda: run.save_is_over(number), 1.0):
            pass
        if run.saved < number:
            run.take_back_refused(number, before)
        if run.saved < number and run.settled:
            raise Lost("the run ended before its resume point was stored", run.final_status)
        await self.checkpoint()

    @contextmanager
    def critical(self) -> Iterator[None]:
        """Work that must not be stopped halfway: orders wait until it is left. Keep it short."""
        self._shield += 1
        try:
            yield
        finally:
            self._shield -= 1
            if self._shield == 0 and self._run.ending is not None:
                self._cancel()

    async def track(
        self, items: Iterable[Item] | AsyncIterable[Item], total: int | None = None
    ) -> AsyncIterator[Item]:
        """The items one after the other, with a checkpoint before each and the progress after each."""
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        self.progress(done=0, total=total)
        done = 0
        async for item in _async(items):
            await self.checkpoint()
            yield item
            done += 1
            self.progress(done=done)
        await self.checkpoint()

    def _cancel(self) -> None:
        run = self._run
        ending = run.ending
        if self._cancelled or self._shield or ending is None or ending.kind == "leave" or self._task is None or run.over:
            return
        self._cancelled = True
        self._task.cancel(str(ending.exception()))


async def _async(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


class job:
    """A job under control for the length of an ``async with`` block; see ``wheelhouse_client.job``.

    Cancelled by Wheelhouse, the block's task is cancelled: CancelledError leaves the block, and ``j.cancelled`` is true.
    """

    def __init__(
        self,
        tenant: str,
        job_id: str,
        *,
        job_type: str = "python",
        title: str | None = None,
        campaign_id: str | None = None,
        parameters: Any = None,
        timeout_seconds: int | None = None,
        max_retries: int | None = None,
        created_by: str | None = None,
        killable: bool = False,
        elsewhere_for: float | None = None,
        unreachable_for: float | None = None,
    ) -> None:
        self._job = Job(
            tenant, job_id, job_type, title, campaign_id, parameters, timeout_seconds, max_retries, created_by
        )
        self._kill = kill_process if killable else None
        # For the task queues: what ``end`` says where the block was left by an exception that they answer by a retry.
        self.end: Message | None = None
        self._elsewhere_for = elsewhere_for
        self._unreachable_for = unreachable_for
        self._session: Session | None = None
        self._control: AsyncControl | None = None
        self._token: Token[Control | None] | None = None
        self.result: Any = None
        self.status: str | None = None

    @classmethod
    def of(cls, description: Job) -> job:
        """For the task queues: the block of a job that is described already."""
        block = cls(description.tenant_id, description.job_id)
        block._job = description
        return block

    async def __aenter__(self) -> AsyncControl:
        session = self._session = process.session()
        loop = asyncio.get_running_loop()
        entered: list[AsyncControl] = []

        def poke() -> None:
            if entered:
                try:
                    loop.call_soon_threadsafe(entered[0]._cancel)
                except RuntimeError:
                    pass  # The loop is closed, and the work with it.

        run = await self._begin(session, poke)
        control = self._control = AsyncControl(run, session)
        entered.append(control)
        try:
            await control.checkpoint()
        except BaseException as error:
            await self._finish(error)
            raise
        self._token = _speaking.set(control._sync)
        return control

    async def _begin(self, session: Session, poke: Callable[[], None]) -> Run:
        began = reachable = Clock()
        while True:
            run = session.attach(self._job, poke, self._kill)
            try:
                while not await _wait(run.changed, lambda r=run: r.phase == "attached" or r.settled, 0.5):  # type: ignore[misc]
                    if session.connected:
                        reachable = Clock()
                    elif self._unreachable_for is not None and Clock() - reachable >= self._unreachable_for:
                        raise NotReachable(f"Wheelhouse is not reachable at {session.settings.url}: {session.problem}")
            except BaseException:
                session.withdraw(run)
                raise
            refusal = run.refusal
            if refusal is None:
                return run
            limit = self._elsewhere_for
            if limit is None:
                limit = session.reattach_seconds + BEYOND_REATTACH
            if not isinstance(refusal, Elsewhere) or Clock() - began >= limit:
                raise refusal
            await asyncio.sleep(0.5)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            try:
                _speaking.reset(self._token)
            except ValueError:
                pass  # Left in another context than entered, where nothing was set.
        await self._finish(error)

    async def _finish(self, error: BaseException | None) -> None:
        control, session = self._control, self._session
        assert control is not None and session is not None
        run = control._run
        ending = run.ending
        if not run.settled:
            if isinstance(error, asyncio.CancelledError):
                if ending is not None and ending.kind in ("cancel", "time_out"):
                    session.obeyed(run, ending)
                else:  # Somebody else cancelled the task, as asyncio.run does at Ctrl-C; or the work is to go on later.
                    session.end(run, {"how": "handed_back"})
            else:
                session.end(run, self.end or end_message(unless_done(error), self.result))
            # Shielded by hand: a second cancel must not leave the end untold, and it is sent whoever waits for it.
            while not run.settled:
                await _wait(run.changed, lambda: run.settled, 1.0)
        self.status = run.final_status
