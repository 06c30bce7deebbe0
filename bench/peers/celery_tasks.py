"""A task that says who it is and then works for a long time."""

import os
import subprocess
import time

from celery import Celery

app = Celery("peer", broker=f"redis://127.0.0.1:{os.environ['REDIS_PORT']}/1")
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = True
FOLDER = os.environ.get("PEER_FOLDER", "/tmp")


@app.task
def work(name):
    with open(os.path.join(FOLDER, name), "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
