"""The Celery app of the tests. But for ``careful`` and ``stepwise``, its functions know nothing of Wheelhouse."""

import os
import time
from pathlib import Path

from celery import Celery
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

import wheelhouse_client
from wheelhouse_client.celery import ControlledTask

BROKER = os.environ["TEST_BROKER"]
app = Celery("tasks", task_cls=ControlledTask, broker=BROKER, backend=BROKER)
app.conf.update(
    task_default_queue=os.environ.get("TEST_QUEUE", "celery"),
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    broker_transport_options=(
        {"visibility_timeout": float(os.environ["TEST_VISIBILITY"])} if "TEST_VISIBILITY" in os.environ else {}
    ),
)
app.conf.worker_soft_shutdown_timeout = float(os.environ.get("TEST_SOFT_SHUTDOWN", "0"))
app.conf.wheelhouse_tenant = "acme"
app.conf.wheelhouse_required = os.environ.get("TEST_REQUIRED", "1") == "1"


def tick(path: str, step: int) -> None:
    with open(path, "a") as file:
        file.write(f"{step} {time.time()}\n")


@app.task
def plain(path: str, steps: int, seconds: float = 0.1) -> int:
    """Ticks, and sleeps between."""
    for step in range(steps):
        tick(path, step)
        time.sleep(seconds)
    return steps


@app.task
def long_sleep(path: str) -> None:
    """Ten long sleeps: an order has to reach it inside one."""
    for step in range(10):
        tick(path, step)
        time.sleep(5.0)


@app.task
def stamps(path: str) -> None:
    """A stamp every millisecond, through one descriptor, for as long as it is let."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for step in range(10_000_000):
        os.write(file, f"{step} {time.time()}\n".encode())
        time.sleep(0.001)


@app.task(bind=True)
def careful(self, path: str, steps: int, seconds: float = 0.05) -> int:
    """With checkpoints, for the pools that have no other way."""
    for step in range(steps):
        self.control.checkpoint()
        tick(path, step)
        self.control.progress(done=step + 1, total=steps, item=f"step {step}")
        time.sleep(seconds)
    return steps


@app.task(bind=True)
def says(self, lines: int) -> int:
    """Says lines by its handle, and from deep inside by the module."""
    for number in range(lines):
        self.control.log(f"step {number}")
    wheelhouse_client.log("deep inside", stream="stderr")
    return lines


@app.task(bind=True)
def says_for_ever(self, path: str) -> None:
    """Says lines as fast as it can."""
    number = 0
    while True:
        if number % 1000 == 0:
            tick(path, number)
        self.control.log(f"line {number} " + "x" * 50)
        number += 1


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def stepwise(self, path: str, steps: int, seconds: float = 0.1) -> int:
    """Goes on where an earlier run of it saved last; a save every third step."""
    for step in range(self.control.resume_point or 0, steps):
        tick(path, step)
        time.sleep(seconds)
        if step % 3 == 2:
            self.control.save(step + 1)
    return steps


@app.task(acks_late=True)
def late(path: str, steps: int, seconds: float = 0.1) -> int:
    for step in range(steps):
        tick(path, step)
        time.sleep(seconds)
    return steps


@app.task
def swallows(path: str) -> None:
    """A loop that survives every Exception."""
    step = 0
    while True:
        try:
            tick(path, step)
            step += 1
            time.sleep(0.05)
        except Exception:
            pass


@app.task(acks_late=True, reject_on_worker_lost=True)
def hangs(path: str) -> None:
    """Obeys nothing at all."""
    step = 0
    while True:
        try:
            tick(path, step)
            step += 1
            time.sleep(0.05)
        except BaseException:
            pass


@app.task(bind=True, max_retries=3)
def retries(self, path: str) -> str:
    tick(path, self.request.retries)
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)
    return "done"


@app.task(autoretry_for=(ValueError,), retry_backoff=False, default_retry_delay=0.2, max_retries=2)
def autoretries(path: str) -> None:
    tick(path, 0)
    raise ValueError("never works")


@app.task(bind=True, acks_late=True)
def rejects(self, path: str, requeue: bool) -> str:
    again = Path(path).exists()
    tick(path, 0)
    if again:
        return "second time"
    raise Reject("not now", requeue=requeue)


@app.task
def ignores(path: str) -> None:
    tick(path, 0)
    raise Ignore()


@app.task
def gives_a_set() -> set[int]:
    return {1}


@app.task(ignore_result=True)
def gives_a_set_to_nobody() -> set[int]:
    return {1}


@app.task
def gives_a_task() -> object:
    return gives_a_set_to_nobody.delay()


@app.task
def exits(code: int | None) -> None:
    raise SystemExit(code)


@app.task
def fails() -> None:
    raise ValueError("it went wrong")


@app.task(time_limit=4)
def limited(path: str) -> None:
    for step in range(100):
        tick(path, step)
        time.sleep(0.1)


@app.task(soft_time_limit=2)
def limited_softly(path: str, seconds: float) -> str:
    try:
        tick(path, 0)
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "in time"


@app.task(soft_time_limit=2)
def limited_softly_and_fails(path: str) -> None:
    for step in range(100):
        tick(path, step)
        time.sleep(0.1)


@app.task(bind=True)
def shielded(self, path: str) -> None:
    """A critical section of ten ticks."""
    with self.control.critical():
        for step in range(10):
            tick(path, step)
            time.sleep(0.1)
    for step in range(10, 1000):
        tick(path, step)
        time.sleep(0.1)
