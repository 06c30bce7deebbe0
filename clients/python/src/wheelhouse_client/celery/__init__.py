"""Celery tasks under control, their functions untouched: ``Celery("x", task_cls=ControlledTask)``.

Settings, on ``app.conf``: ``wheelhouse_tenant`` (a text, or a function of task, args, kwargs; None: that task is not
controlled), ``wheelhouse_required`` (True), ``wheelhouse_parameters`` (False: arguments are not shown), ``wheelhouse_url``
and ``wheelhouse_token`` (else WHEELHOUSE_URL and WHEELHOUSE_TOKEN).
"""

from .publishing import track
from .settings import TENANT_HEADER
from .task import ControlledTask

__all__ = ["TENANT_HEADER", "ControlledTask", "track"]
