"""What can go wrong, and what is raised in work that is to end."""

from __future__ import annotations


class Cancelled(BaseException):
    """Raised in the work when it is to end by an order of Wheelhouse.

    It is a BaseException, so that ``except Exception`` in a loop does not swallow it. ``by`` is the user who asked,
    ``reason`` the text they gave, or None.
    """

    def __init__(self, by: str = "wheelhouse", reason: str | None = None, message: str | None = None) -> None:
        self.by = by
        self.reason = reason
        super().__init__(message or f"cancelled by {by}" + (f": {reason}" if reason else ""))


class TimedOut(Cancelled):
    """Raised when the job has run for its ``timeout_seconds``, paused time not counted. Its row becomes failed."""


class HandedBack(Cancelled):
    """Raised at a checkpoint or save when the work is to go on later, in a new run."""


class Lost(Cancelled):
    """Raised when the run is not this process's any more: another process has the job, or its row has ended.

    ``status`` is the row's status where it has ended, else None.
    """

    def __init__(self, message: str, status: str | None = None) -> None:
        super().__init__("wheelhouse", None, message)
        self.status = status


class WheelhouseError(Exception):
    """The base of the errors that this package raises."""


class ConfigurationError(WheelhouseError):
    """A setting is missing or wrong; the message says which and what to do."""


class NotReachable(WheelhouseError):
    """Wheelhouse did not answer within the time that the caller was ready to wait."""


class Refused(WheelhouseError):
    """Wheelhouse does not let this process run the job. ``error`` is the protocol's word for why."""

    error = "invalid"

    def __init__(self, message: str, status: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class AlreadyEnded(Refused):
    """The job is completed, failed or cancelled (``status``), and never runs again."""

    error = "ended"


class Elsewhere(Refused):
    """Another process that lives has the job."""

    error = "elsewhere"


class Denied(Refused):
    """The token is not for this tenant, or has been revoked."""

    error = "denied"


class Invalid(Refused):
    """The request was not understood; the message says what is wrong."""

    error = "invalid"


_BY_WORD: dict[str, type[Refused]] = {
    kind.error: kind for kind in (AlreadyEnded, Elsewhere, Denied, Invalid)
}


def refused(error: str, message: str, status: str | None, retry_after: float | None) -> Refused:
    """The exception for a ``refused`` message."""
    return _BY_WORD.get(error, Invalid)(message, status, retry_after)
