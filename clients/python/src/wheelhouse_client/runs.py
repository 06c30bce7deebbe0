"""What the messages of Wheelhouse mean for the runs of a session. Everything here belongs to the link's thread."""

from __future__ import annotations

import logging
from typing import Any

from . import notices
from .errors import Denied, Refused, refused
from .messages import Message, size, to_text
from .run import Clock, Ending, Lease, Pause, Run

# Seconds after which a thread that has not obeyed is poked again: a signal may have met it where it could not obey.
POKE_AGAIN = 0.5


class RunTable:
    """The runs of a session, by their ref, from attach to the confirmed end."""

    def __init__(self) -> None:
        self.connected = False
        self.max_frame = 256 * 1024
        self._lease = Lease(float("-inf"))
        self._runs: dict[int, Run] = {}
        self._unanswered: dict[int, Message] = {}  # Expected jobs that were sent on this socket.
        self._dirty: dict[int, Run] = {}  # Runs with figures to send.
        self._talking: dict[int, Run] = {}  # Runs with lines to send.
        self._takes_lines = True
        self._arrivals = 0
        self._revoked: str | None = None
        self._poke_at = float("inf")

    def _send(self, message: Message) -> None:
        """Sends a message, if there is a connection."""
        raise NotImplementedError

    def _send_figures(self, run: Run) -> None:
        run.figures_new = False
        figures = run.figures
        if figures and figures is not run.figures_sent:
            run.figures_sent = figures
            run.figures_at = Clock()
            self._send({"type": "progress", "ref": run.ref, **figures})

    def _send_lines(self, run: Run) -> None:
        messages = run.output.take(run.ref, self.max_frame)
        for message in messages:
            run.lines_at = run.lines_sent_at = Clock()
            if self._takes_lines:
                self._send(message)

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
        if size(to_text(message)) > self.max_frame - 64:
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
            self._send_lines(run)
            if run.end is not None:
                left_out = ("result", "run_after") if run.bare_end else ()
                told = {name: value for name, value in run.end.items() if name not in left_out}
                self._send({"type": "end", "ref": run.ref, **told})
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
                self._unusable(run, text)

    def _unusable(self, run: Run, text: str) -> None:
        """A message about the run was not used. Somebody may wait for what it was to lead to: said again as it is, it never would."""
        notices.say(logging.WARNING, f"Wheelhouse could not use a message about {run.job.job_id}: {text}")
        if text.startswith("save:") and run.last_save[0] > run.saved:
            run.save_refused = (run.last_save[0], text)
            run.changed.wake()
        elif text.startswith("end:") and not run.bare_end:
            run.bare_end = True
            self._finish(run)

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
            if run.output:
                self._talking[run.ref] = run
        if not first and (run.pause is not None or run.ending is not None) and not run.over:
            self._poke(run)
        run.changed.wake()

    def _is_ours(self, run: Run, former: int, point: Any) -> bool:
        """Whether nobody else has had the job between our former run and this one."""
        known = [run.resume_point, *([run.last_save[1]] if run.last_save[0] else [])]
        return run.number == former + 1 and point in known

    def _finish_again(self, run: Run) -> None:
        """On a new socket the order that ended the work may not be known any more: it ends by itself then."""
        self._send_lines(run)
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
