"""The dramatiq actors of the tests."""

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Retries

import wheelhouse_client
from wheelhouse_client.dramatiq import ControlledMiddleware

broker = RedisBroker(url=os.environ["TEST_BROKER"], namespace=os.environ["TEST_QUEUE"])
broker.add_middleware(ControlledMiddleware("acme"), before=Retries)
dramatiq.set_broker(broker)


@dramatiq.actor
def careful(path: str, steps: int) -> None:
    for step in range(steps):
        wheelhouse_client.checkpoint()
        with open(path, "a") as file:
            file.write(f"{step} {time.time()}\n")
        time.sleep(0.05)


@dramatiq.actor(max_retries=2, min_backoff=100, max_backoff=200)
def flaky(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"0 {time.time()}\n")
    if len(open(path).readlines()) < 2:
        raise ValueError("not yet")
