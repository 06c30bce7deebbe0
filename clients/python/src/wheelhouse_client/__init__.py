"""Live control of running Python work by Wheelhouse: pause, resume and cancel, progress, resume points and output.

``wheelhouse_client.celery`` and ``wheelhouse_client.rq`` put task queues under control, ``job`` plain Python,
``wheelhouse_client.aio.job`` asyncio. WHEELHOUSE_URL and WHEELHOUSE_TOKEN in the environment say where Wheelhouse is.
"""

from .control import Control, checkpoint, current, log
from .errors import (
    AlreadyEnded,
    Cancelled,
    ConfigurationError,
    Denied,
    Elsewhere,
    HandedBack,
    Invalid,
    Lost,
    NotReachable,
    Refused,
    TimedOut,
    WheelhouseError,
)
from .messages import fitting_id
from .plain import job
from .process import close
from .published import expect, withdraw
from .settings import Settings

__version__ = "0.1.0"

__all__ = [
    "AlreadyEnded",
    "Cancelled",
    "ConfigurationError",
    "Control",
    "Denied",
    "Elsewhere",
    "HandedBack",
    "Invalid",
    "Lost",
    "NotReachable",
    "Refused",
    "Settings",
    "TimedOut",
    "WheelhouseError",
    "checkpoint",
    "close",
    "current",
    "expect",
    "fitting_id",
    "job",
    "log",
    "withdraw",
]
