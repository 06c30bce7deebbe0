"""RQ jobs under control: ``rq worker -w wheelhouse_client.rq.ControlledWorker``.

The tenant is the job's ``meta["tenant_id"]``, else WHEELHOUSE_TENANT; a job without either runs without control, with a
warning. Inside a function ``wheelhouse_client.current()`` is the job's handle, ``wheelhouse_client.checkpoint()`` its
checkpoint; neither is needed for pause and cancel, which reach the function by a signal.
"""

from .queue import ControlledJob, ControlledQueue, published, removed
from .worker import ControlledSimpleWorker, ControlledWorker

__all__ = [
    "ControlledJob",
    "ControlledQueue",
    "ControlledSimpleWorker",
    "ControlledWorker",
    "published",
    "removed",
]
