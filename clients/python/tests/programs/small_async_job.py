"""The small job of the conformance checks, with asyncio."""

import asyncio
import os
import sys

import wheelhouse_client
from wheelhouse_client import aio


async def main() -> int:
    steps = int(os.environ["WHEELHOUSE_STEPS"])
    try:
        async with aio.job(os.environ["WHEELHOUSE_TENANT"], os.environ["WHEELHOUSE_JOB"]) as job:
            with open(os.environ["WHEELHOUSE_FILE"], "a", encoding="utf-8") as file:
                for step in range(job.resume_point or 0, steps):
                    await job.checkpoint()
                    file.write(f"{step}\n")
                    file.flush()
                    await asyncio.sleep(0.02)
                    await job.save(step + 1)
    except wheelhouse_client.Refused:
        return 3
    except asyncio.CancelledError:
        return 4
    return 0


sys.exit(asyncio.run(main()))
