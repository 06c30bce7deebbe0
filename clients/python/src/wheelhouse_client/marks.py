"""Marks that a killed process leaves for its parent: that it ended itself on an order of Wheelhouse.

The parent sees only a dead child, and would take the job for failed, or run it again.
"""

from __future__ import annotations

import os
import signal
import tempfile

from .messages import fitting_id


def _path(parent: int, job_id: str) -> str:
    return os.path.join(tempfile.gettempdir(), f"wheelhouse-killed-{os.getuid()}-{parent}-{fitting_id(job_id)}")


def kill_self(job_id: str) -> str:
    """Ends this process hard, with a mark; the socket that closes with it is the answer to the order."""
    try:
        os.close(os.open(_path(os.getppid(), job_id), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        pass  # Then the queue takes the job for one of a lost process.
    os.kill(os.getpid(), signal.SIGKILL)
    return "the process could not be killed"


def take(job_id: str) -> bool:
    """In the parent: whether the child that ran this job left its mark. It is removed."""
    path = _path(os.getpid(), job_id)
    try:
        own = os.lstat(path).st_uid == os.getuid()
        os.unlink(path)
    except OSError:
        return False
    return own
