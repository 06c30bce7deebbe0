"""RQ: from send_stop_job_command to the death of the work horse."""

import os
import subprocess
import sys
import time

from redis import Redis
from rq import Queue
from rq.command import send_stop_job_command
from rq_tasks import work
from stop_common import path_of, pid_in, tell, until_gone

port = os.environ["REDIS_PORT"]
connection = Redis(port=int(port), db=2)
worker = subprocess.Popen(
    [sys.executable, "-m", "rq.cli", "worker", "--url", f"redis://127.0.0.1:{port}/2", "--quiet"],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
)
try:
    queue = Queue(connection=connection)
    gone = []
    for n in range(30):
        name = f"rq-{os.getpid()}-{n}"
        job = queue.enqueue(work, name)
        pid = pid_in(path_of(name))
        time.sleep(0.05)
        begun = time.monotonic()
        send_stop_job_command(connection, job.id)
        gone.append(until_gone(pid, begun))
    tell(gone=gone)
finally:
    worker.terminate()
    worker.wait(timeout=20)
