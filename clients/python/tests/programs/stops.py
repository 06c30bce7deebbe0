"""Ticks with a checkpoint before each; says when the run is lost."""

import tempfile
import time

import wheelhouse_client

with tempfile.NamedTemporaryFile("a", delete=False) as file:
    print("ticking", file.name, flush=True)
    try:
        with wheelhouse_client.job("acme", "stops") as job:
            for step in range(100_000):
                job.checkpoint()
                file.write(f"{step} {time.time()}\n")
                file.flush()
                time.sleep(0.05)
    except wheelhouse_client.Lost as error:
        print("lost:", error, flush=True)
