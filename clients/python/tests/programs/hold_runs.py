"""Attaches many runs on one socket and answers their orders at once, until it is ended: hold_runs.py NUMBER COUNT."""

import sys
import time

from wheelhouse_client import process
from wheelhouse_client.messages import Job
from wheelhouse_client.run import Run

number, count = int(sys.argv[1]), int(sys.argv[2])
session = process.session()
runs: list[Run] = [session.attach(Job("acme", f"many-{number}-{index}"), None, None) for index in range(count)]
for run in runs:
    while not run.changed.wait(lambda r=run: r.phase == "attached" or r.settled, 1.0):
        pass
    assert run.refusal is None, run.refusal
print("attached", flush=True)
while True:
    for run in runs:
        pause = run.pause
        if pause is not None and pause is not run.confirmed:
            run.confirmed = pause
            session.confirm_still(run, pause)
    time.sleep(0.002)
