"""How many jobs a second a gateway and real workers carry from their submission to their end: `make bench-jobs`.

A private redis-server, a private database, a gateway and `wheelhouse demo-worker` processes, all on this machine. Each job reads one row
of a file.

1. Many wait: so many jobs are submitted before the first worker starts.
2. Few wait: jobs come at a fixed rate while the workers work, ten in a request.

For each, how many jobs end in a second, and how much processor time each kind of process takes for one.
"""

import argparse
import itertools
import os
import pathlib
import statistics
import threading
import time

from fleet import Fleet

TICKS = os.sysconf("SC_CLK_TCK")
CONCURRENCY = "64"
FEW = 10


def processor_times(fleet):
    """Seconds of processor time of each kind of process, by its name: those that have ended and were waited for belong to their parent."""
    found, parents = {}, {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
            words = (stat.parent / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # It has ended meanwhile.
        name = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        kind = words[1].decode() if name == "wheelhouse" and len(words) > 1 else name
        found[pid] = (kind, sum(map(int, fields[11:15])) / TICKS)
    times = {"client": time.process_time()}
    for pid, (name, seconds) in found.items():
        # The fleet's own programs are children of this one, and PostgreSQL's are of its first.
        if fleet.pids() & {pid, parents[pid]}:
            times[name] = times.get(name, 0) + seconds
    return times


def totals(fleet):
    return fleet.ask("GET", "/api/v1/jobs?limit=1&totals=true")["totals"]


def measure(fleet, seconds, until_empty=False):
    """Jobs that end in a second, how many wait, and processor time for each."""
    before, begun, times, waiting = totals(fleet), time.monotonic(), processor_times(fleet), []
    while time.monotonic() - begun < seconds and (not until_empty or waiting[-1:] != [0]):
        time.sleep(1)
        told = totals(fleet)
        waiting.append(told["pending"])
    took, ended = time.monotonic() - begun, told["completed"] - before["completed"]
    names = ["gateway", "demo-worker", "redis-server", "postgres", "client"]
    spent = {name: (now - times.get(name, 0)) * 1e6 / max(ended, 1) for name, now in processor_times(fleet).items() if name in names}
    each = ", ".join(f"{name} {spent[name]:.0f}" for name in names if name in spent)
    return f"{ended / took:.0f} jobs/s ended, {statistics.median(waiting):.0f} waited (median); µs of processor time for each: {each}"


def submit_at(fleet, rate, stop):
    """So many jobs a second, by four connections."""
    begun, turns = time.monotonic(), itertools.count()

    def run():
        client = fleet.connect()
        while not stop.is_set():
            due = begun + next(turns) * FEW / rate
            time.sleep(max(0, due - time.monotonic()))
            fleet.submit(FEW, client)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    return threads


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--databases", default="postgres,sqlite", help="with commas (postgres,sqlite)")
    arguments.add_argument("--workers", type=int, default=2, help="worker processes, each with room for 64 jobs (2)")
    arguments.add_argument("--jobs", type=int, default=30_000, help="jobs that wait (30000)")
    arguments.add_argument("--rate", type=int, default=2_000, help="jobs that come in a second (2000)")
    arguments.add_argument("--seconds", type=float, default=15, help="for how long, at most (15)")
    arguments = arguments.parse_args()
    for database in arguments.databases.split(","):
        fleet = Fleet(database)
        try:
            fleet.gateway()
            if arguments.jobs:
                begun = time.monotonic()
                fleet.submit(arguments.jobs)
                print(f"{database}: {arguments.jobs / (time.monotonic() - begun):.0f} jobs/s submitted in one request", flush=True)
            fleet.workers(arguments.workers, WHEELHOUSE__WORKER__CONCURRENCY=CONCURRENCY)
            if arguments.jobs:
                print(f"{database}, many wait: {measure(fleet, arguments.seconds, until_empty=True)}", flush=True)
                while totals(fleet)["pending"]:
                    time.sleep(0.2)
            if arguments.rate:
                stop = threading.Event()
                threads = submit_at(fleet, arguments.rate, stop)
                print(f"{database}, {arguments.rate}/s come: {measure(fleet, arguments.seconds)}", flush=True)
                stop.set()
                for thread in threads:
                    thread.join()
        finally:
            fleet.end()


if __name__ == "__main__":
    main()
