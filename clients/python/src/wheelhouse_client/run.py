"""One attempt of a job in this process, as the link's thread and the work's thread both see it.

Each field has one writer. The link's thread writes what Wheelhouse says (``command``, ``ending``, ``number``, …); the work's
thread writes how far the work is. Values that belong together travel in one tuple, so that a reader sees both or neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .errors import Cancelled, HandedBack, Lost, Refused, TimedOut
from .messages import Job, Message
from .output import Output
from .waiting import Waiters


def _clock() -> Callable[[], float]:
    """Seconds that go on while the machine sleeps, as the worker's do. Linux's monotonic clock stands still then, so that a lease
    would last longer here than there; where there is no other, it has to do."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    if boot is not None:
        try:
            time.clock_gettime(boot)
        except OSError:  # A sandbox that does not know it.
            return time.monotonic
        return partial(time.clock_gettime, boot)
    return time.monotonic


Clock = _clock()


class Lease:
    """Until when (``Clock``) the work may go on without another sign from Wheelhouse; one for each socket.

    The time is counted from when a ping was sent whose pong has come: Wheelhouse has heard this process at least then,
    however late this process got to read the answer.
    """

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        self.until = until


NO_LEASE = Lease(float("-inf"))


@dataclass(frozen=True)
class Ending:
    """An order to end the work, or the loss of the run."""

    kind: str  # cancel, time_out, leave or lost
    order: int
    by: str = "wheelhouse"
    reason: str | None = None
    message: str | None = None
    status: str | None = None

    def exception(self) -> Cancelled:
        """What is raised in the work."""
        if self.kind == "lost":
            return Lost(self.message or "the run was lost", self.status)
        if self.kind == "time_out":
            return TimedOut(self.by, self.reason, self.message or "the job has used up its timeout_seconds")
        if self.kind == "leave":
            return HandedBack(self.by, self.reason, "the work is to go on later, in a new run")
        return Cancelled(self.by, self.reason)


@dataclass(frozen=True)
class Pause:
    """A pause in force. ``order`` is 0 where the job was paused before it was attached.

    ``arrival`` grows with each time that the order came: each is to be confirmed.
    """

    order: int
    arrival: int


@dataclass
class Run:
    """See the module."""

    ref: int
    job: Job
    # Which of the process's threads runs the work, asked by the link's thread to obey; None where a checkpoint has to.
    poke: Callable[[], None] | None = None
    # Ends the process that the work runs in, hard; returns a sentence where it cannot.
    kill: Callable[[], str] | None = None
    # The work is a greenlet, whose checkpoints give others their turn: they have no fast path.
    cooperative: bool = False

    # Written by the link's thread.
    phase: str = "new"  # new, asked, attached, done
    number: int | None = None
    status: str | None = None
    resume_point: Any = None
    refusal: Refused | None = None
    lease: Lease = NO_LEASE
    open_until: float = float("-inf")  # Until then (Clock) a checkpoint has nothing to do: its fast path.
    pause: Pause | None = None
    ending: Ending | None = None
    last_order: int = 0
    saved: int = 0
    save_refused: tuple[int, str] = (0, "")  # The last resume point that Wheelhouse could not use, and why.
    bare_end: bool = False  # Wheelhouse could not use the end as it was told: it is told without result and time.
    final_status: str | None = None
    changed: Waiters = field(default_factory=Waiters)

    # Written by the work's thread.
    confirmed: Pause | None = None
    end: Message | None = None  # The work has ended by itself.
    obeyed: int | None = None  # The work has ended by this order.
    raised: Ending | None = None  # By a signal, once.
    figures: dict[str, Any] = field(default_factory=dict)
    figures_new: bool = False
    last_save: tuple[int, Any] = (0, None)
    output: Output = field(default_factory=Output)

    # Written by the link's thread, for what it has sent.
    figures_sent: dict[str, Any] | None = None
    figures_at: float = float("-inf")
    lines_at: float = float("-inf")
    lines_sent_at: float = float("-inf")

    def set_gate(self) -> None:
        """Opens or closes the fast path of checkpoint(). For the link's thread, after each change of what counts."""
        calm = self.pause is None and self.ending is None and not self.cooperative
        self.open_until = self.lease.until if calm else float("-inf")

    def save_is_over(self, number: int) -> bool:
        """Whether nothing more is to be waited for of this resume point."""
        return self.saved >= number or self.save_refused[0] >= number or self.ending is not None or self.settled

    def take_back_refused(self, number: int, before: Any) -> None:
        """Raises ValueError where Wheelhouse could not use this resume point. The one before counts again."""
        if self.save_refused[0] >= number:
            if self.last_save[0] == number:
                self.last_save = (number, before)
            raise ValueError(f"Wheelhouse could not use the resume point: {self.save_refused[1]}")

    @property
    def over(self) -> bool:
        """The work has ended; only the confirmation is outstanding."""
        return self.end is not None or self.obeyed is not None

    @property
    def must_hold(self) -> bool:
        """The work may not go on: a pause is in force, or Wheelhouse has not been heard for too long."""
        return self.pause is not None or Clock() >= self.lease.until

    @property
    def settled(self) -> bool:
        """Nothing of this run is outstanding."""
        return self.phase == "done"
