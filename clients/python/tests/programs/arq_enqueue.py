"""Puts one arq job into its queue: FUNCTION JOB_ID ARGUMENTS…; runs in arq's own environment."""

import asyncio
import json
import os
import sys

from arq import create_pool
from arq.connections import RedisSettings


async def main() -> None:
    pool = await create_pool(RedisSettings.from_dsn(os.environ["TEST_BROKER"]))
    arguments = [json.loads(argument) for argument in sys.argv[3:]]
    await pool.enqueue_job(sys.argv[1], *arguments, _job_id=sys.argv[2])
    await pool.aclose()


asyncio.run(main())
