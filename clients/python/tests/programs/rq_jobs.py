"""The RQ functions of the tests. But for ``careful``, they know nothing of Wheelhouse."""

import os
import time

import wheelhouse_client


def tick(path: str, step: int) -> None:
    with open(path, "a") as file:
        file.write(f"{step} {time.time()}\n")


def plain(path: str, steps: int, seconds: float = 0.1) -> int:
    for step in range(steps):
        tick(path, step)
        time.sleep(seconds)
    return steps


def careful(path: str, steps: int) -> int:
    job = wheelhouse_client.current()
    assert job is not None
    for step in range(job.resume_point or 0, steps):
        job.checkpoint()
        tick(path, step)
        job.progress(done=step + 1, total=steps)
        job.save(step + 1)
    return steps


def says(lines: int) -> None:
    job = wheelhouse_client.current()
    assert job is not None
    for number in range(lines):
        job.log(f"step {number}")
    wheelhouse_client.log("deep inside")


def flaky(path: str) -> str:
    tick(path, 0)
    if len(open(path).readlines()) < 3:
        raise ValueError("not yet")
    return "done"


def fails() -> None:
    raise ValueError("it went wrong")


def hangs(path: str) -> None:
    step = 0
    while True:
        try:
            tick(path, step)
            step += 1
            time.sleep(0.05)
        except BaseException:
            pass


def dies(path: str) -> None:
    tick(path, 0)
    os.kill(os.getpid(), 9)
