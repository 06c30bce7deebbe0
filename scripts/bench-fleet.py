"""What a fleet of real workers asks of Redis and PostgreSQL: `make bench-fleet`, or `bench-fleet.py --workers 60,200`.

A private redis-server, a private PostgreSQL, a gateway and so many `wheelhouse demo-worker` processes:

1. At rest: Redis commands (those inside scripts among them) and SQL transactions a second.
2. Jobs submitted one at a time: SQL transactions of the whole fleet for each, and how long a job waits until a worker has it.
3. Commands at a fixed rate, from the socket to the result.

Needs Python 3.8, redis-server 7, PostgreSQL, and the program, built: WHEELHOUSE_PROGRAM, else target/release/wheelhouse.
"""

import argparse
import statistics
import time

from fleet import CONNECTIONS_OF_A_WORKER, Fleet


def at_rest(fleet, seconds):
    """Redis commands and SQL transactions a second, and what the commands were."""
    calls, transactions, begun = fleet.redis_calls(), fleet.transactions(), time.monotonic()
    time.sleep(seconds)
    now, took = fleet.redis_calls(), time.monotonic() - begun
    sql = (fleet.transactions() - transactions) / took
    rates = {name: (count - calls.get(name, 0)) / took for name, count in now.items()}
    return sum(rates.values()), sql, sorted(rates.items(), key=lambda rate: -rate[1])


def submissions(fleet, count, pause):
    """SQL transactions beside those of a fleet at rest for each job, and ms until a worker had it."""
    _, rest, _ = at_rest(fleet, 8)
    before, begun = fleet.transactions(), time.monotonic()
    for _ in range(count):
        fleet.submit()
        time.sleep(pause)
    time.sleep(2)
    beside = fleet.transactions() - before - rest * (time.monotonic() - begun)
    waited = fleet.sql("SELECT EXTRACT(EPOCH FROM started_at - created_at) * 1000 FROM jobs WHERE started_at IS NOT NULL")
    return beside / count, sorted(float(ms) for ms in waited.split())


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--workers", default="60", help="sizes of fleets, with commas (60)")
    arguments.add_argument("--seconds", type=float, default=40, help="how long a fleet is watched at rest (40)")
    arguments.add_argument("--jobs", type=int, default=100, help="jobs that are submitted one at a time (100)")
    arguments.add_argument("--rate", type=int, default=100, help="commands a second (100)")
    arguments = arguments.parse_args()
    for count in map(int, arguments.workers.split(",")):
        fleet = Fleet("postgres", count * (CONNECTIONS_OF_A_WORKER + 2) + 50)
        try:
            fleet.workers(count, CONNECTIONS_OF_A_WORKER)
            # The first seconds are those of a start: every worker listens, and is counted.
            time.sleep(20)
            commands, transactions, by_name = at_rest(fleet, arguments.seconds)
            print(f"{count} workers at rest: {commands:.0f} Redis commands/s, {transactions:.1f} SQL transactions/s")
            print("  " + ", ".join(f"{name} {rate:.0f}" for name, rate in by_name if rate >= 1), flush=True)
            fleet.gateway()
            if arguments.jobs:
                each, waited = submissions(fleet, arguments.jobs, 0.1)
                p50, p99 = statistics.median(waited), waited[int(len(waited) * 0.99)]
                print(f"  a job submitted: {each:.1f} SQL transactions; waits p50 {p50:.1f}, p99 {p99:.1f}, at most {waited[-1]:.1f} ms")
                print(f"  {len(waited)} of {arguments.jobs} began", flush=True)
            if arguments.rate:
                print(f"  {arguments.rate} commands/s: {fleet.commands(arguments.rate, 20)}", flush=True)
        finally:
            fleet.end()


if __name__ == "__main__":
    main()
