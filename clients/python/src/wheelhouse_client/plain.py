"""Control of plain Python: ``with job("acme", "import-7") as j: …``."""

from __future__ import annotations

from contextvars import Token
from types import TracebackType
from typing import Any

from . import interrupt, process
from .begin import begin, end_message, finish, kill_process, order_behind, unless_done
from .control import Control, _current
from .messages import Job
from .session import Session


class job:
    """A job under control for the length of a ``with`` block.

    ``with job("acme", "import-7", title="Import of May") as j: for row in j.track(rows): …``

    Entering attaches to the job and waits until it may run. Leaving says how it ended: completed, failed (an exception),
    cancelled. In the block ``Cancelled`` is raised when it is to end.

    interrupt: in the main thread, also hold and cancel work that is between two checkpoints, by a signal.
    killable: the process may be killed when a cancel is not obeyed within ``worker.grace_seconds``.
    timeout_seconds: how long it may run, paused time not counted; max_retries: how often its row becomes pending again
    after a failure. unreachable_for: seconds to wait for Wheelhouse (None: for ever).

    Raises AlreadyEnded, Elsewhere, Denied, Invalid (all Refused), NotReachable, ConfigurationError.
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
        interrupt: bool = False,
        killable: bool = False,
        unreachable_for: float | None = None,
    ) -> None:
        self._job = Job(
            tenant, job_id, job_type, title, campaign_id, parameters, timeout_seconds, max_retries, created_by
        )
        self._interrupt = interrupt
        self._killable = killable
        self._unreachable_for = unreachable_for
        self._session: Session | None = None
        self._control: Control | None = None
        self._poke_installed = False
        self._token: Token[Control | None] | None = None
        self.result: Any = None  # Set it in the block: it becomes the row's result.
        self.status: str | None = None  # After the block: the row's status, or None where the run was lost.

    def __enter__(self) -> Control:
        session = self._session = process.session()
        wrapped: list[Control] = []

        def obey() -> None:
            if wrapped:
                wrapped[0]._on_signal()

        poke = None
        if self._interrupt and interrupt.available():
            poke = interrupt.install(obey)
            self._poke_installed = True
        kill = kill_process if self._killable else None
        run = begin(session, self._job, poke=poke, kill=kill, unreachable_for=self._unreachable_for)
        control = self._control = Control(run, session)
        wrapped.append(control)
        try:
            control._wait_while_held()
        except BaseException as error:
            self.status = finish(session, run, error, end_message(error))
            raise
        self._token = _current.set(control)
        control._interruptible = True
        return control

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        control, session = self._control, self._session
        assert control is not None and session is not None
        control._interruptible = False
        if self._token is not None:
            _current.reset(self._token)
        error = order_behind(control._run, error)
        self.status = finish(session, control._run, error, end_message(unless_done(error), self.result))
