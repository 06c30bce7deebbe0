"""Enqueues two jobs, and prints how to control them. The worker takes one at a time."""

import os

import jobs
from redis import Redis
from rq import Queue

queue = Queue("default", connection=Redis.from_url(os.environ["BROKER"]))
for function, argument in ((jobs.report, 60), (jobs.letters, 300)):
    job = queue.enqueue(function, argument, meta={"tenant_id": "acme"}, job_timeout=3600)
    for action in ("pause", "resume", "cancel"):
        print(f"  wheelhouse job {action} {job.id} --wait")
