"""The messages that this client sends, as dictionaries (schema/worker.schema.json has their shape)."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .errors import Invalid

Message = dict[str, Any]

VERSION = 1
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
# What Wheelhouse refuses in every JSON value (src/domain/json_error.rs): readers and databases further on could not read it back.
DEEPEST = 127
LONGEST_NUMBER = 1_000
# A text, the begin or the end of an array or object, or a number of that length.
_PART = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]|-?\d{1000,}')
# The years that a time of the protocol may have.
_EARLIEST = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LATEST = datetime(9998, 12, 31, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Job:
    """Which job, and what people see of it. ``parameters`` is any JSON."""

    tenant_id: str
    job_id: str
    job_type: str | None = None
    title: str | None = None
    campaign_id: str | None = None
    parameters: Any = None
    timeout_seconds: int | None = None
    max_retries: int | None = None
    created_by: str | None = None

    def check(self) -> None:
        """Raises Invalid where an id has characters that Wheelhouse does not take."""
        for name, value in (("tenant", self.tenant_id), ("job id", self.job_id), ("campaign", self.campaign_id)):
            if value is not None and not (isinstance(value, str) and _ID.match(value)):
                raise Invalid(
                    f"The {name} {value!r} must be 1 to 128 letters, digits, dots, dashes and underscores, "
                    "and begin with a letter or digit"
                )

    def fields(self) -> Message:
        """The fields that ``attach`` and ``expect`` have in common."""
        fields: Message = {"tenant_id": self.tenant_id, "job_id": self.job_id}
        for name, longest in (("job_type", 255), ("title", 500), ("created_by", 255)):
            value = getattr(self, name)
            if value:
                fields[name] = str(value)[:longest]
        for name in ("campaign_id", "parameters", "timeout_seconds", "max_retries"):
            value = getattr(self, name)
            if value is not None:
                fields[name] = value
        return fields


def fitting_id(job_id: str) -> str:
    """A task queue's own id as an id of Wheelhouse: itself where it is one.

    Queues allow characters that Wheelhouse does not (arq's cron jobs have colons), and any length. Such an id keeps its readable
    part, with ``-`` for each other character, and gets twelve hexadecimal digits of its SHA-256 at its end, so that two different
    jobs never share an id.
    """
    if _ID.match(job_id):
        return job_id
    digest = hashlib.sha256(job_id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    readable = re.sub(r"^[^A-Za-z0-9]+", "", re.sub(r"[^A-Za-z0-9._-]", "-", job_id))
    return f"{readable[: 128 - 1 - len(digest)] or 'job'}.{digest}"


def count(value: object) -> int | None:
    """A figure as the protocol takes it: from 0 to 2^53 - 1. None for one that is no number at all (an average of nothing).

    Raises TypeError for what is not even meant as a number.
    """
    try:
        number: int = int(value)  # type: ignore[call-overload]
    except OverflowError:  # Infinite.
        return None
    except ValueError as error:
        if isinstance(value, str):
            raise TypeError(f"A figure of the progress must be a number, not {value!r}") from error
        return None
    return min(2**53 - 1, max(0, number))


def to_text(message: Any) -> str:
    """A message as it goes over the wire. Raises TypeError or ValueError for what is not JSON."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def size(text: str) -> int:
    """Its bytes on the wire."""
    return len(text.encode("utf-8", "replace"))


def unfit(text: str) -> str | None:
    """Why Wheelhouse does not take this JSON, as the rest of a sentence that begins with its name. None: it does."""
    if len(text) <= 2 * DEEPEST:
        return None
    depth = 0
    for found in _PART.finditer(text):
        part = found[0]
        if part in "[{":
            depth += 1
            if depth > DEEPEST:
                return f"has more than {DEEPEST} arrays and objects inside one another, which JSON readers refuse"
        elif part in "]}":
            depth -= 1
        elif part[0] != '"' and len(part) > LONGEST_NUMBER:
            return f"has a number with more than {LONGEST_NUMBER} characters: give it as text"
    return None


def check_point(point: Any, longest: int) -> None:
    """Raises TypeError or ValueError, with words, for a resume point that Wheelhouse would not take."""
    try:
        text = to_text(point)
    except RecursionError:
        raise ValueError("A resume point has too many lists and dictionaries inside one another") from None
    why = unfit(text)
    if why is not None:
        raise ValueError(f"A resume point that {why}, cannot be stored")
    if size(text) > longest:
        raise ValueError(f"A resume point may have {longest} bytes at most")


def jsonable(value: Any, longest: int = 64 * 1024) -> Any:
    """The value itself where it is JSON of a bearable size, else a text that describes it.

    For what Wheelhouse only shows (parameters, results): it never makes the work fail.
    """
    try:
        text = to_text(value)
    except (TypeError, ValueError, RecursionError):
        return _shown(value)
    return value if size(text) <= longest and unfit(text) is None else _shown(value)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text[:1000].encode("utf-8", "replace").decode("utf-8")


def error_text(error: BaseException) -> str:
    """An exception in one line for the row's error message."""
    try:
        text = str(error)
    except Exception:
        text = ""
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line[:4000].encode("utf-8", "replace").decode("utf-8")


def rfc3339(moment: datetime) -> str:
    """A time as the protocol writes it. One without a zone is taken for UTC, and one that it cannot write for the next that it can."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    # Compared first: a time at the end of all years cannot be taken to another zone.
    moment = min(max(moment, _EARLIEST), _LATEST)
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
