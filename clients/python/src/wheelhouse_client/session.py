"""This process's session with Wheelhouse: one thread, one socket at a time, any number of runs.

Everything that is sent or received goes through the session's own thread. Other threads leave what they want in its inbox
and wake it; neither blocks, so both may be done in a signal's handler.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import random
import selectors
import threading
import uuid
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from . import notices
from .errors import Denied, Refused, refused
from .interrupt import cooperative
from .messages import VERSION, Job, Message, rfc3339, to_text
from .run import Clock, Ending, Lease, Pause, Run
from .settings import Settings
from .transport import Closed, ConnectFailed, Transport, Wakeup

SOFTWARE = "wheelhouse-client-python/0.1.0"

# Published jobs and failed items that wait for a connection. When there are more, the oldest are dropped: what is dropped
# is only not shown; the work itself is not touched.
MAX_EXPECTED = 1000
MAX_FAILED_ITEMS = 1000
# Seconds between two messages with the progress of one run.
PROGRESS_EVERY = 0.25
# Seconds after which a thread that has not obeyed is poked again: a signal may have met it where it could not obey.
POKE_AGAIN = 0.5
# Seconds after which a connection counts as a good one, so that the waits begin anew.
STABLE_AFTER = 5.0
MAX_BACKOFF_WITH_RUNS = 1.0
MAX_BACKOFF = 15.0
WELCOME_TIMEOUT = 10.0


class Session:
    """See the module. Made by ``process.session()``, which takes care of forks."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.id = f"py-{uuid.uuid4().hex}"
        self.reattach_seconds = 10.0
        self.max_frame = 256 * 1024
        self.connected = False
        self.problem: str | None = None  # Why there is no connection, for people.
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wakeup = Wakeup()
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._refs = iter(range(1, 2**53))
        self._refs_lock = threading.Lock()
        self._expected: deque[Message] = deque(maxlen=MAX_EXPECTED)
        self._failed_items: deque[tuple[Run, Message]] = deque(maxlen=MAX_FAILED_ITEMS)
        self._stopping = False
        # The link's thread alone:
        self._transport: Transport | None = None
        self._lease = Lease(float("-inf"))
        self._runs: dict[int, Run] = {}
        self._unanswered: dict[int, Message] = {}  # Expected jobs that were sent on this socket.
        self._dirty: dict[int, Run] = {}  # Runs with figures to send.
        self._arrivals = 0
        self._failures = 0
        self._revoked: str | None = None
        self._next_ping = 0.0
        self._heard = 0.0
        self._poke_at = float("inf")

    # ---- for any thread ------------------------------------------------------------------------------------------

    def attach(self, job: Job, poke: Callable[[], None] | None, kill: Callable[[], str] | None) -> Run:
        """Asks for a run of the job. What comes of it is in the run; ``run.changed`` tells when."""
        job.check()
        to_text(job.fields())
        with self._refs_lock:
            ref = next(self._refs)
        run = Run(ref, job, poke, kill, cooperative())
        self._do(lambda: self._add(run))
        return run

    def withdraw(self, run: Run) -> None:
        """The caller does not wait for the attach any longer: whatever comes of it is handed back."""
        self.end(run, {"how": "handed_back"})

    def end(self, run: Run, message: Message) -> None:
        """The work has ended by itself: the fields of ``end`` but type and ref."""
        run.end = message
        self._do(lambda: self._finish(run))

    def obeyed(self, run: Run, ending: Ending) -> None:
        """Nothing is left of the work that ``ending`` ordered to end."""
        run.obeyed = ending.order
        self._do(lambda: self._finish(run))

    def wait_settled(self, run: Run, timeout: float | None = None) -> bool:
        """Waits until the end of the run is recorded, or the run is lost."""
        until = None if timeout is None else Clock() + timeout
        while not run.changed.wait(lambda: run.settled, 1.0):
            if until is not None and Clock() >= until:
                return False
        return True

    def confirm_still(self, run: Run, pause: Pause) -> None:
        """The work stands still by this pause. Called by the work's own thread while it waits."""
        if pause.order > 0:
            self._do(lambda: self._reached(run, pause.order, "still"))

    def send_save(self, run: Run) -> None:
        self._do(lambda: self._save(run))

    def note_figures(self, run: Run) -> None:
        def note() -> None:
            self._dirty[run.ref] = run

        self._do(note)

    def send_failed_item(self, run: Run, item: str, error: str) -> None:
        self._failed_items.append((run, {"type": "failed_item", "ref": run.ref, "item": item, "error": error}))
        self._wake()

    def expect(self, job: Job, run_after: datetime | None = None) -> None:
        """A job was published to a broker. Never blocks and never raises for want of a connection."""
        job.check()
        message: Message = {"type": "expect", **job.fields()}
        if run_after is not None:
            message["run_after"] = rfc3339(run_after)
        if len(to_text(message)) > self.max_frame - 64:
            message.pop("parameters", None)
        with self._refs_lock:
            message["ref"] = next(self._refs)
        self._expected.append(message)
        self._wake()

    def stop(self, timeout: float = 3.0) -> None:
        """Says goodbye: published jobs are still told of, runs that have not ended are handed back."""
        thread = self._thread
        if thread is None:
            return
        self._stopping = True
        self._wake()
        if thread is not threading.current_thread():
            thread.join(timeout)

    def abandon(self) -> None:
        """After a fork, in the child: the thread stayed with the parent, and so does the connection."""
        if self._transport is not None:
            self._transport.abandon()
        self._wakeup.close()

    # ---- the link's thread ---------------------------------------------------------------------------------------

    def _do(self, action: Callable[[], None]) -> None:
        self._inbox.put(action)
        self._wake()

    def _wake(self) -> None:
        if self._thread is None:
            with self._start_lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._main, name="wheelhouse-link", daemon=True)
                    self._thread = thread
                    thread.start()
        self._wakeup.set()

    def _main(self) -> None:
        # At the end of the process, published jobs are still told of where the first attempt succeeds.
        while not self._stopping or (self._expected and self._failures == 0):
            self._run_inbox()
            if not self._needed():
                self._sleep(3600.0)
                continue
            try:
                self._connect()
                connected_at = Clock()
                try:
                    self._serve()
                finally:
                    if Clock() - connected_at > STABLE_AFTER:
                        self._failures = 0
            except ConnectFailed as error:
                self._lost_connection(str(error))
                self._back_off(error.status, error.retry_after)
            except Closed as error:
                self._lost_connection(str(error))
                self._after_close(error)
            except Exception as error:  # The thread must live: without it no order arrives.
                self._lost_connection(f"{type(error).__name__}: {error}")
                notices.say(logging.ERROR, f"the link to Wheelhouse failed and begins anew: {error!r}")
                self._back_off()
        if self._transport is not None:
            self._transport.close(1000)
            self._transport = None

    def _needed(self) -> bool:
        return bool(self._runs) or bool(self._expected) or bool(self._unanswered)

    def _run_inbox(self) -> None:
        while True:
            try:
                action = self._inbox.get_nowait()
            except queue.Empty:
                return
            action()

    def _sleep(self, seconds: float) -> None:
        """Waits without a connection; something in the inbox ends it."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup, selectors.EVENT_READ)
            selector.select(seconds)
        self._wakeup.clear()

    def _connect(self) -> None:
        transport = Transport.connect(self.settings)
        self._transport = transport
        try:
            asked_at = Clock()
            self._send(
                {
                    "type": "hello",
                    "v": VERSION,
                    "worker": self.settings.name,
                    "session": self.id,
                    "software": SOFTWARE,
                    "pid": os.getpid(),
                }
            )
            welcome: Message | None = None
            while welcome is None:
                left = asked_at + WELCOME_TIMEOUT - Clock()
                if left <= 0:
                    raise Closed(None, "no welcome within ten seconds")
                for event in transport.wait(self._wakeup, left):
                    if isinstance(event, str):
                        message = json.loads(event)
                        if message.get("type") == "welcome":
                            welcome = message
                        else:
                            raise Closed(None, f"instead of a welcome came: {message.get('message') or message}")
        except BaseException:
            transport.abandon()
            self._transport = None
            raise
        self.reattach_seconds = float(welcome.get("reattach_seconds", self.reattach_seconds))
        self.max_frame = int(welcome.get("max_frame", self.max_frame))
        self._lease = Lease(asked_at + self._lease_seconds)
        self._heard = Clock()
        self._next_ping = 0.0
        self.connected = True
        self.problem = None
        for run in list(self._runs.values()):
            run.phase = "new"
            self._ask(run)
        for message in list(self._unanswered.values()):
            self._send(message)

    @property
    def _lease_seconds(self) -> float:
        return self.reattach_seconds * 2 / 3

    def _serve(self) -> None:
        transport = self._transport
        assert transport is not None
        while True:
            self._run_inbox()
            self._send_waiting()
            if self._stopping and not self._expected:
                return
            for event in transport.wait(self._wakeup, self._until_next()):
                self._heard = Clock()
                if isinstance(event, bytes):
                    self._pong(event)
                else:
                    self._handle(json.loads(event))
            self._on_time()

    def _until_next(self) -> float:
        now = Clock()
        times = [self._next_ping, self._poke_at, self._heard + self.reattach_seconds * 1.5]
        if self._lease.until > now:
            times.append(self._lease.until)
        if self._dirty:
            times.append(min(run.figures_at for run in self._dirty.values()) + PROGRESS_EVERY)
        return max(0.0, min(times) - now)

    def _on_time(self) -> None:
        now = Clock()
        if now >= self._next_ping:
            assert self._transport is not None
            self._transport.ping(repr(now).encode())
            self._next_ping = now + self.reattach_seconds / (6 if self._runs else 2)
        if now >= self._poke_at or now >= self._lease.until:
            self._poke_at = float("inf")
            for run in self._runs.values():
                if run.phase == "attached" and not run.over and (run.ending is not None or run.must_hold):
                    # Also where it is held already: it then looks again, and confirms what it has not confirmed.
                    self._poke(run)
        if now - self._heard >= self.reattach_seconds * 1.5:
            raise Closed(None, "nothing was heard from Wheelhouse, not even a ping")

    def _pong(self, payload: bytes) -> None:
        try:
            sent_at = float(payload)
        except ValueError:
            return
        expired = Clock() >= self._lease.until
        self._lease.until = max(self._lease.until, sent_at + self._lease_seconds)
        for run in self._runs.values():
            if run.lease is self._lease:
                run.set_gate()
                if expired and Clock() < self._lease.until:
                    run.changed.wake()

    def _send(self, message: Message) -> None:
        if self._transport is not None:
            self._transport.send(to_text(message))

    def _send_waiting(self) -> None:
        while self._expected and len(self._unanswered) < MAX_EXPECTED:
            message = self._expected.popleft()
            self._unanswered[message["ref"]] = message
            self._send(message)
        while self._failed_items:
            run, message = self._failed_items.popleft()
            if run.phase == "attached":
                self._send(message)
        now = Clock()
        for ref, run in list(self._dirty.items()):
            if run.phase != "attached" or run.settled:
                if run.settled:
                    del self._dirty[ref]
            elif now >= run.figures_at + PROGRESS_EVERY:
                del self._dirty[ref]
                self._send_figures(run)

    def _send_figures(self, run: Run) -> None:
        run.figures_new = False
        figures = run.figures
        if figures and figures is not run.figures_sent:
            run.figures_sent = figures
            run.figures_at = Clock()
            self._send({"type": "progress", "ref": run.ref, **figures})

    # ---- runs, in the link's thread ------------------------------------------------------------------------------

    def _add(self, run: Run) -> None:
        if self._revoked is not None:
            self._settle(run, refusal=Denied(self._revoked))
            return
        self._runs[run.ref] = run
        if self.connected:
            self._ask(run)

    def _ask(self, run: Run) -> None:
        message: Message = {"type": "attach", "ref": run.ref, **run.job.fields()}
        if run.number is not None:
            message["run"] = run.number
        if len(to_text(message)) > self.max_frame - 64:
            message.pop("parameters", None)
        run.phase = "asked"
        self._send(message)

    def _save(self, run: Run) -> None:
        number, point = run.last_save
        if run.phase == "attached" and number > run.saved:
            self._send({"type": "save", "ref": run.ref, "n": number, "point": point})

    def _finish(self, run: Run) -> None:
        """Sends how the work has ended, if the run is attached; else it is sent once it is."""
        if run.ref not in self._runs:
            return
        if run.phase == "new" and run.number is None:
            self._settle(run)
        elif run.phase == "attached":
            if run.figures is not run.figures_sent:
                self._send_figures(run)
            if run.end is not None:
                self._send({"type": "end", "ref": run.ref, **run.end})
            elif run.obeyed is not None:
                self._reached(run, run.obeyed, "ended")

    def _reached(self, run: Run, order: int, state: str, error: str | None = None) -> None:
        if run.phase == "attached":
            message: Message = {"type": "reached", "ref": run.ref, "order": order, "state": state}
            if error:
                message["error"] = error
            self._send(message)

    def _settle(self, run: Run, status: str | None = None, refusal: Refused | None = None) -> None:
        run.final_status = status
        run.refusal = refusal
        run.phase = "done"
        self._runs.pop(run.ref, None)
        run.changed.wake()

    def _poke(self, run: Run) -> None:
        run.changed.wake()
        if run.poke is not None:
            run.poke()
            obeyed = run.raised is run.ending if run.ending is not None else run.confirmed is run.pause
            if not obeyed:
                self._poke_at = min(self._poke_at, Clock() + POKE_AGAIN)

    def _lose(self, run: Run, message: str, status: str | None = None) -> None:
        """The run is another's, or has ended: the work is to end, and nothing more is said of it."""
        run.ending = Ending("lost", run.last_order, message=message, status=status)
        run.set_gate()
        self._settle(run, status)
        if not run.over and run.poke is not None:
            run.poke()

    def _handle(self, message: Message) -> None:
        kind = message.get("type")
        ref = message.get("ref")
        if kind in ("expected", "refused") and ref in self._unanswered:
            expected = self._unanswered.pop(ref)
            if kind == "refused" and message.get("error") in ("denied", "invalid"):
                notices.say(
                    logging.WARNING,
                    f"Wheelhouse does not show the published job {expected.get('job_id')}: {message.get('message')}",
                )
            return
        if kind == "error" and not isinstance(ref, int):
            notices.say(logging.WARNING, f"Wheelhouse could not use a message: {message.get('message')}")
            return
        run = self._runs.get(ref) if isinstance(ref, int) else None
        if run is None:
            if kind == "error":
                self._unanswered.pop(ref or 0, None)
            return
        if kind == "attached":
            self._attached(run, message)
        elif kind == "refused":
            self._refused(run, message)
        elif kind == "order":
            self._order(run, message)
        elif kind == "saved":
            run.saved = max(run.saved, int(message.get("n", 0)))
            run.changed.wake()
        elif kind == "ended":
            self._settle(run, message.get("status"))
        elif kind == "lost":
            self._lose(run, str(message.get("message", "the run was lost")))
        elif kind == "error":
            text = str(message.get("message", "the message could not be used"))
            if run.number is None:
                self._settle(run, refusal=refused("invalid", text, None, None))
            else:
                notices.say(logging.WARNING, f"Wheelhouse could not use a message about {run.job.job_id}: {text}")

    def _attached(self, run: Run, message: Message) -> None:
        number = int(message["run"])
        point = message.get("resume_point")
        first = run.number is None
        former = run.number
        run.number = number
        run.status = message.get("status")
        run.phase = "attached"
        if first:
            run.resume_point = point
        elif former is not None and number != former and not self._is_ours(run, former, point):
            run.ending = Ending("lost", run.last_order, message="another run of this job has gone on in the meantime")
            run.set_gate()
            run.end = {"how": "handed_back"}
            self._finish(run)
            self._poke(run)
            return
        if number != former:
            run.last_order = 0
        if run.status == "paused":
            if run.pause is None:
                run.pause = Pause(0, self._arrivals)
        else:
            run.pause = None
        run.lease = self._lease
        run.set_gate()
        if run.over:
            self._finish_again(run)
        else:
            self._save(run)
            if run.figures:
                self._dirty[run.ref] = run
        if not first and (run.pause is not None or run.ending is not None) and not run.over:
            self._poke(run)
        run.changed.wake()

    def _is_ours(self, run: Run, former: int, point: Any) -> bool:
        """Whether nobody else has had the job between our former run and this one."""
        known = [run.resume_point, *([run.last_save[1]] if run.last_save[0] else [])]
        return run.number == former + 1 and point in known

    def _finish_again(self, run: Run) -> None:
        """On a new socket the order that ended the work may not be known any more: it ends by itself then."""
        if run.end is None and run.ending is not None:
            if run.ending.kind == "time_out":
                text = str(run.ending.exception())
                self._send({"type": "end", "ref": run.ref, "how": "failed", "error": text, "permanent": True})
            else:
                self._send({"type": "end", "ref": run.ref, "how": "cancelled"})
        else:
            self._finish(run)

    def _refused(self, run: Run, message: Message) -> None:
        text = str(message.get("message", "refused"))
        status = message.get("status")
        error = str(message.get("error"))
        if run.number is None:
            self._settle(run, status, refused(error, text, status, message.get("retry_after")))
        elif run.over:
            self._settle(run, status)
        else:
            self._lose(run, text, status)

    def _order(self, run: Run, message: Message) -> None:
        order = int(message["order"])
        if order < run.last_order:
            return
        run.last_order = order
        self._arrivals += 1
        do = message.get("do")
        if run.over:
            if run.obeyed is not None:
                run.obeyed = order
            self._finish(run)
            return
        if do == "pause":
            run.pause = Pause(order, self._arrivals)
            run.set_gate()
            self._poke(run)
        elif do == "resume":
            run.pause = None
            run.set_gate()
            run.changed.wake()
        elif do in ("cancel", "time_out", "leave"):
            if run.ending is None or run.ending.order != order:
                run.ending = Ending(do, order, str(message.get("by", "wheelhouse")), message.get("reason"))
                run.set_gate()
            if message.get("kill"):
                error = run.kill() if run.kill is not None else (
                    "The work runs in a process with other work, so it cannot be ended by force; "
                    "it ends at its next checkpoint"
                )
                self._reached(run, order, "refused", error)
            self._poke(run)

    # ---- without a connection ------------------------------------------------------------------------------------

    def _lost_connection(self, problem: str) -> None:
        if self._transport is not None:
            self._transport.abandon()
            self._transport = None
        self.connected = False
        self.problem = problem
        attached = [run for run in self._runs.values() if run.phase == "attached"]
        for run in self._runs.values():
            run.phase = "new"
            run.figures_sent = None
        if attached:
            notices.say(logging.WARNING, f"the link to Wheelhouse is gone ({problem}); trying again")
            # Connecting may take longer than the lease: a thread of its own sees to it that the work is held in time.
            watch = threading.Thread(target=_hold_in_time, args=(self._lease, attached), daemon=True)
            watch.start()

    def _after_close(self, closed: Closed) -> None:
        if closed.code == 4403:
            self._revoked = closed.reason or "the token was revoked"
            notices.say(logging.ERROR, f"Wheelhouse has revoked this process's token: {self._revoked}")
            for run in list(self._runs.values()):
                self._lose(run, f"the token was revoked: {self._revoked}")
                run.refusal = Denied(self._revoked)
            self._expected.clear()
            self._unanswered.clear()
        elif closed.code != 1012 or self._failures:
            self._back_off()
        else:  # To another worker, at once; where that leaves too, with a wait.
            self._failures = 1

    def _back_off(self, status: int | None = None, retry_after: float | None = None) -> None:
        """Waits before the next attempt: full jitter, so that the workers of a fleet do not return together."""
        self._failures += 1
        most = MAX_BACKOFF_WITH_RUNS if self._runs and status not in (401, 403) else MAX_BACKOFF
        until = Clock() + (retry_after or random.uniform(0.02, min(most, 0.1 * 2 ** min(self._failures, 10))))
        while not self._stopping and (left := until - Clock()) > 0:
            self._sleep(left)
            self._run_inbox()


def _hold_in_time(lease: Lease, runs: list[Run]) -> None:
    """Holds the work of runs whose lease ends without a connection. Those that are attached again have another lease."""
    idle = threading.Event()
    while (left := lease.until - Clock()) > 0:
        idle.wait(left)
    for run in runs:
        if run.lease is lease and not run.over and run.poke is not None:
            run.poke()
