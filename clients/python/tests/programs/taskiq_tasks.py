"""The taskiq tasks of the tests."""

import asyncio
import os
import time

from taskiq import SimpleRetryMiddleware
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from wheelhouse_client.taskiq import ControlledMiddleware, controlled, current

broker = (
    ListQueueBroker(os.environ["TEST_BROKER"], queue_name=os.environ["TEST_QUEUE"])
    .with_result_backend(RedisAsyncResultBackend(os.environ["TEST_BROKER"]))
    .with_middlewares(ControlledMiddleware("acme"), SimpleRetryMiddleware(default_retry_count=3))
)


@broker.task
@controlled(tenant="acme")
async def careful(path: str, steps: int) -> int:
    job = current()
    assert job is not None
    for step in range(steps):
        await job.checkpoint()
        with open(path, "a") as file:
            file.write(f"{step} {time.time()}\n")
        await asyncio.sleep(0.05)
    return steps


@broker.task
@controlled(tenant="acme")
async def fails(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"0 {time.time()}\n")
    raise ValueError("no luck")
