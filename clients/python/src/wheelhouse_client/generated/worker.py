"""Generated from schema/worker.schema.json by scripts/generate.py. Do not edit."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

if sys.version_info >= (3, 11):
    from typing import NotRequired
elif TYPE_CHECKING:
    from typing_extensions import NotRequired

Id: TypeAlias = str


Ref: TypeAlias = int


Count: TypeAlias = int


Status: TypeAlias = Literal['pending', 'running', 'paused', 'completed', 'failed', 'cancelled']


class Hello(TypedDict):
    """
    The first message on each socket.
    """

    type: Literal['hello']
    v: Literal[1]
    worker: str
    session: Id
    host: NotRequired[str]
    software: NotRequired[str]
    pid: NotRequired[Count]


class Attach(TypedDict):
    """
    The client is about to begin a job, or holds a run of it.
    """

    type: Literal['attach']
    ref: Ref
    tenant_id: Id
    job_id: Id
    job_type: NotRequired[str]
    title: NotRequired[str]
    campaign_id: NotRequired[Id]
    parameters: NotRequired[Any]
    timeout_seconds: NotRequired[int]
    max_retries: NotRequired[int]
    created_by: NotRequired[str]
    run: NotRequired[int]


class Reached(TypedDict):
    """
    What an order has led to.
    """

    type: Literal['reached']
    ref: Ref
    order: Count
    state: Literal['still', 'ended', 'refused']
    error: NotRequired[str]


class Progress(TypedDict):
    """
    The newest figures; what is left out stays.
    """

    type: Literal['progress']
    ref: Ref
    items_total: NotRequired[Count]
    items_processed: NotRequired[Count]
    items_succeeded: NotRequired[Count]
    items_failed: NotRequired[Count]
    progress_percent: NotRequired[float]
    current_item: NotRequired[str | None]


class FailedItem(TypedDict):
    """
    An item that could not be done.
    """

    type: Literal['failed_item']
    ref: Ref
    item: str
    error: str


class Save(TypedDict):
    """
    A resume point.
    """

    type: Literal['save']
    ref: Ref
    n: int
    point: Any


class Log(TypedDict):
    """
    Lines for the job's output. Workers before it close the socket on it.
    """

    type: Literal['log']
    ref: Ref
    stream: NotRequired[Literal['stdout', 'stderr', 'log']]
    lines: list[str]


class End(TypedDict):
    """
    The work has ended by itself.
    """

    type: Literal['end']
    ref: Ref
    how: Literal['completed', 'failed', 'cancelled', 'handed_back']
    result: NotRequired[Any]
    error: NotRequired[str]
    permanent: NotRequired[bool]
    run_after: NotRequired[str]


class Expect(TypedDict):
    """
    The job has been published and has not begun.
    """

    type: Literal['expect']
    ref: Ref
    tenant_id: Id
    job_id: Id
    job_type: NotRequired[str]
    title: NotRequired[str]
    campaign_id: NotRequired[Id]
    parameters: NotRequired[Any]
    timeout_seconds: NotRequired[int]
    max_retries: NotRequired[int]
    created_by: NotRequired[str]
    run_after: NotRequired[str]


class Welcome(TypedDict):
    """
    The answer to hello.
    """

    type: Literal['welcome']
    v: Literal[1]
    session: Id
    reattach_seconds: float
    max_frame: int


class Attached(TypedDict):
    """
    The job is this session's.
    """

    type: Literal['attached']
    ref: Ref
    run: int
    status: Literal['running', 'paused']
    resume_point: Any


class Expected(TypedDict):
    """
    The row of a published job is there.
    """

    type: Literal['expected']
    ref: Ref
    status: Status


class Refused(TypedDict):
    """
    An attach or expect that is not taken.
    """

    type: Literal['refused']
    ref: Ref
    error: Literal['ended', 'elsewhere', 'denied', 'invalid']
    status: NotRequired[Status]
    message: str
    retry_after: NotRequired[int]


class Order(TypedDict):
    """
    What the work is to do.
    """

    type: Literal['order']
    ref: Ref
    order: int
    do: Literal['pause', 'resume', 'cancel', 'leave', 'time_out']
    by: str
    reason: NotRequired[str | None]
    kill: NotRequired[bool]


class Saved(TypedDict):
    """
    A resume point, and all before it, is in SQL.
    """

    type: Literal['saved']
    ref: Ref
    n: int


class Ended(TypedDict):
    """
    The end of the run is in SQL.
    """

    type: Literal['ended']
    ref: Ref
    status: Status


class Lost(TypedDict):
    """
    The run is not this session's any more.
    """

    type: Literal['lost']
    ref: Ref
    message: str


class Error(TypedDict):
    """
    A message that could not be used.
    """

    type: Literal['error']
    ref: NotRequired[Ref]
    error: str
    message: str


Client: TypeAlias = Hello | Attach | Reached | Progress | FailedItem | Save | Log | End | Expect


Server: TypeAlias = Welcome | Attached | Expected | Refused | Order | Saved | Ended | Lost | Error


AnyMessage: TypeAlias = Client | Server
