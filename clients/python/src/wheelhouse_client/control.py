"""What the work itself sees of Wheelhouse: checkpoints, progress, resume points, critical sections."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from . import interrupt
from .errors import HandedBack, Lost, WheelhouseError
from .messages import check_point, count, error_text
from .output import STREAMS
from .run import Clock, Pause, Run

if TYPE_CHECKING:
    from .session import Session

Item = TypeVar("Item")

# A greenlet gives others, the link among them, their turn at least this often (seconds).
YIELD_EVERY = 0.01


class Control:
    """A job's handle in the work that runs it. Methods are for the work's own thread."""

    def __init__(self, run: Run, session: Session) -> None:
        self._run = run
        self._session = session
        self._shield = 0
        self._holding = False
        self._interruptible = False
        self._yield_at = 0.0

    @property
    def tenant_id(self) -> str:
        return self._run.job.tenant_id

    @property
    def job_id(self) -> str:
        return self._run.job.job_id

    @property
    def resume_point(self) -> Any:
        """What ``save`` stored last, in this run or an earlier one; None where nothing was."""
        number, point = self._run.last_save
        return point if number else self._run.resume_point

    def checkpoint(self) -> None:
        """The work can stop here: waits while the job is paused, raises Cancelled when it is to end."""
        if Clock() < self._run.open_until:
            return
        if self._shield == 0:
            self._obey(raise_again=True, good_point=True)

    def progress(
        self,
        done: int | None = None,
        total: int | None = None,
        item: str | None = None,
        *,
        succeeded: int | None = None,
        failed: int | None = None,
        percent: float | None = None,
    ) -> None:
        """Says how far the work is. What is left out stays. As often as you like: four a second are sent."""
        given = {
            "items_processed": None if done is None else count(done),
            "items_total": None if total is None else count(total),
            "items_succeeded": None if succeeded is None else count(succeeded),
            "items_failed": None if failed is None else count(failed),
            "progress_percent": None if percent is None else min(100.0, max(0.0, float(percent))),
            "current_item": None if item is None else str(item)[:1000],
        }
        new = {name: value for name, value in given.items() if value is not None}
        self._run.figures = {**self._run.figures, **new}
        if not self._run.figures_new:
            self._run.figures_new = True
            self._session.note_figures(self._run)

    def failed_item(self, item: str, error: BaseException | str) -> None:
        """An item that could not be done, and why. The job goes on."""
        text = error if isinstance(error, str) else error_text(error)
        self._session.send_failed_item(self._run, str(item)[:1000], text[:4000])

    def log(self, text: object, *, stream: str = "log") -> None:
        """Adds the text's lines to the job's output, of which the newest 1,000 are kept.

        Never waits: the lines are sent a few times a second. Where they come faster, the oldest are left out, and the output
        says how many. ``stream`` is what they are shown as: ``log``, ``stdout`` or ``stderr``. From any thread.
        """
        if stream not in STREAMS:
            raise ValueError(f"stream is {stream!r}: it must be one of {', '.join(STREAMS)}")
        run = self._run
        if run.over or run.settled:
            return
        run.output.add(str(text), stream)
        if not run.output.noted:
            run.output.noted = True
            self._session.note_lines(run)

    def save(self, point: Any) -> None:
        """Stores where the job goes on in its next run (any JSON), and returns when it is in SQL.

        Raises TypeError or ValueError for a point that is not JSON or too large for a frame, Cancelled and its kinds when
        the work is to end.
        """
        check_point(point, self._session.max_frame - 512)
        run = self._run
        before = self.resume_point
        number = run.last_save[0] + 1
        run.last_save = (number, point)
        self._session.send_save(run)
        while not run.changed.wait(lambda: run.save_is_over(number), 1.0):
            pass
        if run.saved < number:
            run.take_back_refused(number, before)
            if run.ending is not None and run.ending.kind != "leave":
                raise run.ending.exception()
            if run.settled:
                raise Lost("the run ended before its resume point was stored", run.final_status)
        self.checkpoint()

    @contextmanager
    def critical(self) -> Iterator[None]:
        """Work that must not be stopped halfway: pauses and cancels wait until it is left. Keep it short.

        An order that waits longer than ``worker.grace_seconds`` ends the process all the same.
        """
        self._shield += 1
        try:
            yield
        finally:
            self._shield -= 1
        if self._shield == 0 and Clock() >= self._run.open_until:
            self._obey(raise_again=True)

    def track(self, items: Iterable[Item], total: int | None = None) -> Iterator[Item]:
        """The items one after the other, with a checkpoint before each and the progress after each."""
        if total is None:
            try:
                total = len(items)  # type: ignore[arg-type]
            except TypeError:
                total = None
        self.progress(done=0, total=total)
        for done, item in enumerate(items, 1):
            self.checkpoint()
            yield item
            self.progress(done=done)
        self.checkpoint()

    # What follows is for the package.

    def _wait_while_held(self) -> None:
        """Before the work begins: waits while the job is paused or out of touch. Raises Cancelled when it is to end."""
        self._obey(raise_again=True)

    def _on_signal(self) -> None:
        if self._holding or self._shield or not self._interruptible:
            return
        self._obey(raise_again=False)

    def _obey(self, raise_again: bool, good_point: bool = False) -> None:
        run = self._run
        while not run.over:
            ending = run.ending
            if ending is not None and (ending.kind != "leave" or good_point):
                if raise_again or run.raised is not ending:
                    run.raised = ending
                    raise ending.exception()
                return
            if not run.must_hold:
                break
            self._hold()
            # A signal that came after the hold was over and before this is answered by looking again.
        if self._run.cooperative:
            now = Clock()
            if now >= self._yield_at:
                time.sleep(0)
                self._yield_at = Clock() + YIELD_EVERY

    def _hold(self) -> None:
        """Waits until the work may go on. Only here is a pause confirmed, by the very thread that does the work."""
        run = self._run
        self._holding = True
        try:
            self._enter_hold()
            try:
                while run.must_hold and run.ending is None:
                    pause = run.pause
                    if pause is not None and pause is not run.confirmed:
                        run.confirmed = pause
                        self._session.confirm_still(run, pause)
                    run.changed.wait(lambda p=pause: self._woken(p), 1.0)  # type: ignore[misc]
            finally:
                self._leave_hold()
        finally:
            self._holding = False

    def _woken(self, pause: Pause | None) -> bool:
        run = self._run
        return run.pause is not pause or run.ending is not None or not run.must_hold

    def _enter_hold(self) -> None:
        """For subclasses: stop the clocks that must not run on while the work is held."""

    def _leave_hold(self) -> None:
        """For subclasses: start them again."""


class NoControl:
    """The handle of work that Wheelhouse does not control (a task called as a plain function): nothing happens."""

    tenant_id = ""
    job_id = ""
    resume_point: Any = None

    def checkpoint(self) -> None:
        pass

    def progress(self, done: int | None = None, total: int | None = None, item: str | None = None, **_: Any) -> None:
        pass

    def failed_item(self, item: str, error: BaseException | str) -> None:
        pass

    def log(self, text: object, *, stream: str = "log") -> None:
        pass

    def save(self, point: Any) -> None:
        pass

    @contextmanager
    def critical(self) -> Iterator[None]:
        yield

    def track(self, items: Iterable[Item], total: int | None = None) -> Iterator[Item]:
        yield from items


_current: ContextVar[Control | None] = ContextVar("wheelhouse_current", default=None)
# The same for a coroutine, whose checkpoints have to be awaited, but whose lines need not.
_speaking: ContextVar[Control | None] = ContextVar("wheelhouse_speaking", default=None)


def current() -> Control | None:
    """The handle of the job that runs in this thread or greenlet, or None."""
    return _current.get()


def forget_current() -> None:
    """No job runs here any more."""
    _current.set(None)
    _speaking.set(None)
    interrupt.disarm()


def checkpoint() -> None:
    """The checkpoint of the job that runs here; nothing where there is none.

    For code deep inside the work, which does not have the handle. In asyncio, await the handle's own.
    """
    control = _current.get()
    if control is not None and Clock() >= control._run.open_until:
        control.checkpoint()


def log(text: object, *, stream: str = "log") -> None:
    """Adds lines to the output of the job that runs here; nothing where there is none. Also in asyncio, and never waits."""
    control = _current.get() or _speaking.get()
    if control is not None:
        control.log(text, stream=stream)


__all__ = ["Control", "HandedBack", "NoControl", "WheelhouseError", "checkpoint", "current", "log"]
