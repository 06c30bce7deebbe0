"""Celery: from revoke(terminate=True) to the death of the process that runs the task."""

import os
import subprocess
import sys
import time

from celery_tasks import app, work
from stop_common import path_of, pid_in, tell, until_gone

worker = subprocess.Popen(
    [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "-c", "2", "-l", "WARNING", "--without-gossip", "--without-mingle"],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
try:
    gone, replied = [], []
    for n in range(30):
        name = f"celery-{os.getpid()}-{n}"
        task = work.delay(name)
        pid = pid_in(path_of(name))
        time.sleep(0.05)
        begun = time.monotonic()
        app.control.revoke(task.id, terminate=True, signal="SIGTERM")
        gone.append(until_gone(pid, begun))
    for n in range(3):
        name = f"celery-reply-{os.getpid()}-{n}"
        task = work.delay(name)
        pid_in(path_of(name))
        begun = time.monotonic()
        app.control.revoke(task.id, terminate=True, signal="SIGTERM", reply=True)
        replied.append((time.monotonic() - begun) * 1000)
    tell(gone=gone, replied=replied)
finally:
    worker.terminate()
    worker.wait(timeout=20)
