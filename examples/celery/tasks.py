"""A Celery app whose tasks can be paused, resumed and cancelled while they run. Only two lines are Wheelhouse's."""

import os
import time

from celery import Celery

from wheelhouse_client.celery import ControlledTask

BROKER = os.environ.get("BROKER", "redis://localhost:6379/0")
app = Celery("tasks", task_cls=ControlledTask, broker=BROKER, backend=BROKER)
app.conf.wheelhouse_tenant = "acme"


@app.task
def report(pages: int) -> int:
    """Knows nothing of Wheelhouse: a pause holds it even inside the sleep."""
    for page in range(pages):
        print(f"page {page + 1} of {pages}", flush=True)
        time.sleep(1)
    return pages


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def letters(self, count: int) -> int:
    """Shows its progress, and goes on where it stopped when its process dies."""
    for number in range(self.control.resume_point or 0, count):
        with self.control.critical():  # A letter is sent whole or not at all.
            print(f"letter {number + 1} of {count}", flush=True)
            time.sleep(0.2)
        self.control.progress(done=number + 1, total=count, item=f"letter {number + 1}")
        if number % 10 == 9:
            self.control.save(number + 1)
    return count
