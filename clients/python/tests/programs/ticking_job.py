"""A job that ticks until it is told to end: ``ticking_job.py JOB FILE``. Its steps have no times: its clock is set."""

import sys
import time

import wheelhouse_client

with wheelhouse_client.job("acme", sys.argv[1]) as job:
    step = 0
    while True:
        job.checkpoint()
        with open(sys.argv[2], "a") as file:
            file.write(f"{step} 0\n")
        step += 1
        time.sleep(0.05)
