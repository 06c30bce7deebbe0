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

from . import notices
from .errors import Denied
from .interrupt import cooperative
from .messages import VERSION, Job, Message, rfc3339, size, to_text
from .run import Clock, Ending, Lease, Pause, Run
from .runs import RunTable
from .settings import Settings
from .transport import Closed, ConnectFailed, Transport, Wakeup

SOFTWARE = "wheelhouse-client-python/0.1.0"

# Published jobs and failed items that wait for a connection. When there are more, the oldest are dropped: what is dropped
# is only not shown; the work itself is not touched.
MAX_EXPECTED = 1000
MAX_FAILED_ITEMS = 1000
# Published jobs that were removed from their queue: so many wait to be told of, and so many are told of at a time.
MAX_REMOVED = 10_000
MAX_REMOVING = 100
# Seconds between two messages with the progress of one run, and between two times that its lines are sent.
PROGRESS_EVERY = 0.25
LINES_EVERY = 0.25
# While so many bytes wait for the server, no lines are added: orders and ends are not to wait behind them.
MAX_BACKLOG = 256 * 1024
# Seconds after which a connection counts as a good one, so that the waits begin anew.
STABLE_AFTER = 5.0
MAX_BACKOFF_WITH_RUNS = 1.0
MAX_BACKOFF = 15.0
WELCOME_TIMEOUT = 10.0
LOOK_SECONDS = 0.5


class Session(RunTable):
    """See the module. Made by ``process.session()``, which takes care of forks."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.id = f"py-{uuid.uuid4().hex}"
        self.reattach_seconds = 10.0
        self.problem: str | None = None  # Why there is no connection, for people.
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wakeup = Wakeup()
        self._thread: threading.Thread | None = None
        self._start_lock = threading.Lock()
        self._refs = iter(range(1, 2**53))
        self._refs_lock = threading.Lock()
        self._expected: deque[Message] = deque(maxlen=MAX_EXPECTED)
        self._failed_items: deque[tuple[Run, Message]] = deque(maxlen=MAX_FAILED_ITEMS)
        self._removed: deque[Run] = deque(maxlen=MAX_REMOVED)
        self._stopping = False
        # The link's thread alone:
        self._transport: Transport | None = None
        self._failures = 0
        self._next_ping = 0.0
        self._heard = 0.0
        self._removing: list[Run] = []

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

    def note_lines(self, run: Run) -> None:
        def note() -> None:
            self._talking[run.ref] = run

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
        if size(to_text(message)) > self.max_frame - 64:
            message.pop("parameters", None)
        with self._refs_lock:
            message["ref"] = next(self._refs)
        self._expected.append(message)
        self._wake()

    def remove(self, job: Job) -> None:
        """A published job was removed from its queue: where it has not begun, its row is cancelled. Never blocks."""
        job.check()
        with self._refs_lock:
            ref = next(self._refs)
        self._removed.append(Run(ref, job, end={"how": "cancelled"}))
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
        while not self._stopping or (self._has_to_tell and self._failures == 0):
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
        return bool(self._runs) or self._has_to_tell

    @property
    def _has_to_tell(self) -> bool:
        """Whether something waits that is told of even when the process ends."""
        # What was sent counts until it is answered: it may have been lost on the way, or with the worker.
        waiting = self._expected or self._unanswered or self._removed
        return bool(waiting) or any(not run.settled for run in self._removing)

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
            if self._stopping and not self._has_to_tell:
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
        if self._talking:
            times.append(min(run.lines_at for run in self._talking.values()) + LINES_EVERY)
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
        if self._transport is None:
            return
        try:
            text = to_text(message)
        except (TypeError, ValueError, RecursionError) as error:
            # What the work gives is looked at when it gives it. Were it to fail here all the same, the link must live on.
            notices.say(logging.ERROR, f"a message {message.get('type')} could not be written as JSON: {error}")
            return
        self._transport.send(text)

    def _send_waiting(self) -> None:
        while self._expected and len(self._unanswered) < MAX_EXPECTED:
            message = self._expected.popleft()
            self._unanswered[message["ref"]] = message
            self._send(message)
        self._removing = [run for run in self._removing if not run.settled]
        while self._removed and len(self._removing) < MAX_REMOVING:
            run = self._removed.popleft()
            self._removing.append(run)
            self._add(run)
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
        for ref, run in list(self._talking.items()):
            if run.settled:
                del self._talking[ref]
            elif run.phase != "attached" or (self._transport is not None and self._transport.backlog > MAX_BACKLOG):
                run.lines_at = now  # Not now; looked at again after a while.
            elif now >= run.lines_at + LINES_EVERY:
                del self._talking[ref]
                self._send_lines(run)

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
            if Clock() - run.lines_sent_at < self.reattach_seconds:
                run.output.broke_off()
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
        elif closed.code == 4400 and '"log"' in closed.reason:
            self._takes_lines = False
            notices.say(logging.WARNING, "this Wheelhouse is older than the message log: what jobs log is not kept")
            self._back_off()
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
        # A wait stands still while the machine sleeps, and the lease does not.
        idle.wait(min(left, LOOK_SECONDS))
    for run in runs:
        if run.lease is lease and not run.over and run.poke is not None:
            run.poke()
