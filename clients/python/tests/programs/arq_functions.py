"""The arq functions of the tests."""

import asyncio
import os
import time

from arq.connections import RedisSettings
from arq.worker import Retry, func

from wheelhouse_client.arq import controlled, current


def tick(path: str, step: int) -> None:
    with open(path, "a") as file:
        file.write(f"{step} {time.time()}\n")


@controlled(tenant="acme")
async def careful(ctx: dict, path: str, steps: int) -> int:
    job = current()
    assert job is not None
    for step in range(steps):
        await job.checkpoint()
        tick(path, step)
        await asyncio.sleep(0.05)
    return steps


@controlled(tenant="acme")
async def flaky(ctx: dict, path: str) -> str:
    tick(path, ctx["job_try"])
    if ctx["job_try"] < 2:
        raise Retry(defer=0.2)
    return "done"


class WorkerSettings:
    functions = [careful, flaky, func(careful, name="limited", timeout=5)]
    redis_settings = RedisSettings.from_dsn(os.environ.get("TEST_BROKER", "redis://localhost"))
    poll_delay = 0.1
