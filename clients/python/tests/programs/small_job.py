"""The small job of the conformance checks, done with this package."""

import os
import sys
import time

import wheelhouse_client


def main() -> int:
    steps = int(os.environ["WHEELHOUSE_STEPS"])
    try:
        with wheelhouse_client.job(os.environ["WHEELHOUSE_TENANT"], os.environ["WHEELHOUSE_JOB"]) as job:
            with open(os.environ["WHEELHOUSE_FILE"], "a", encoding="utf-8") as file:
                for step in range(job.resume_point or 0, steps):
                    job.checkpoint()
                    file.write(f"{step}\n")
                    file.flush()
                    time.sleep(0.02)
                    job.save(step + 1)
    except wheelhouse_client.Refused:
        return 3
    except wheelhouse_client.Cancelled:
        return 4
    return 0


sys.exit(main())
