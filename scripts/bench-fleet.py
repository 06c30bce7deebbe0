"""What a fleet of real workers asks of Redis and PostgreSQL: `make bench-fleet`, or `bench-fleet.py --workers 60,200`.

A private redis-server, a private PostgreSQL, a gateway and so many `wheelhouse demo-worker` processes:

1. At rest: Redis commands (those inside scripts among them) and SQL transactions a second.
2. Jobs submitted one at a time: SQL transactions of the whole fleet for each, and how long a job waits until a worker has it.
3. Commands at a fixed rate, from the socket to the result.

Needs Python 3.8, redis-server 7, PostgreSQL, and the program, built: WHEELHOUSE_PROGRAM, else target/release/wheelhouse.
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("WHEELHOUSE_PROGRAM", str(ROOT / "target/release/wheelhouse"))
TENANT, USER = "acme", "ann"
# Nobody is to be refused by a limit here.
LIMITS = [
    "requests_per_second",
    "requests_per_second_per_address",
    "commands_per_minute",
    "backlog_per_tenant",
    "connections_per_tenant",
    "connections_per_user",
    "connections_per_address",
    "new_connections_per_second",
    "messages_per_second",
]
# Each idle worker has a few connections, and two cores bear no more. Beside its pool it has one or two of its own.
CONNECTIONS_OF_A_WORKER = 2


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def postgres_program(name):
    found = shutil.which(name)
    versions = sorted(pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not found and not versions:
        sys.exit(f"{name} is missing: `make deps` installs PostgreSQL")
    return found or str(versions[-1])


def as_postgres_user(*command):
    """PostgreSQL refuses to run as root: then it runs as the user that its package made."""
    return (["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []) + list(command)


class Fleet:
    """Everything that is started, ended by `end`."""

    def __init__(self, connections):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="wheelhouse-fleet-"))
        self.folder.chmod(0o755)
        self.processes = []
        self.redis_port, self.postgres_port = free_port(), free_port()
        redis_folder = self.folder / "redis"
        redis_folder.mkdir()
        arguments = ["--port", str(self.redis_port), "--save", "", "--appendonly", "yes", "--dir", str(redis_folder)]
        self.start(["redis-server", *arguments], "redis")
        self.data = self.folder / "postgres" / "data"
        self.data.parent.mkdir()
        if os.geteuid() == 0:
            shutil.chown(self.data.parent, "postgres")
        run = {"check": True, "stdout": subprocess.DEVNULL, "cwd": "/"}
        made = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "-D", str(self.data)]
        subprocess.run(as_postgres_user(postgres_program("initdb"), *made), **run)
        options = f"-p {self.postgres_port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections={connections}"
        begin = ["-D", str(self.data), "-w", "-o", options, "-l", str(self.data / "server.log"), "start"]
        subprocess.run(as_postgres_user(postgres_program("pg_ctl"), *begin), **run)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("WHEELHOUSE__")}
        self.environment.update(
            WHEELHOUSE__REDIS__URL=f"redis://127.0.0.1:{self.redis_port}",
            WHEELHOUSE__DATABASE__URL=f"postgres://postgres@127.0.0.1:{self.postgres_port}/postgres",
            WHEELHOUSE__AUTH__HS256_SECRET=secrets.token_hex(32),
            WHEELHOUSE__SERVER__DRAIN_NOTICE_SECONDS="0",
            **{f"WHEELHOUSE__LIMITS__{name.upper()}": "1000000" for name in LIMITS},
        )
        self.wheelhouse("migrate")

    def start(self, command, log, environment=None):
        with open(self.folder / f"{log}.log", "ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, cwd=self.folder
            )
        self.processes.append(process)
        return process

    def wheelhouse(self, *arguments):
        told = subprocess.run(
            [PROGRAM, *arguments], env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if told.returncode:
            sys.exit(f"wheelhouse {' '.join(arguments)}: {told.stderr}")
        return told.stdout

    def workers(self, count):
        files = self.folder / "files"
        files.mkdir()
        (files / "rows.csv").write_text("word\n" + "a b c\n" * 10)
        environment = dict(self.environment, WHEELHOUSE__DATABASE__CONNECTIONS=str(CONNECTIONS_OF_A_WORKER))
        command = [PROGRAM, "demo-worker", "--files-root", str(files)]
        begun = {}

        def wait_for(all_of_them):
            while self.alive() < all_of_them:
                for n, process in begun.items():
                    # One that found no connection in time is started again, as a service manager would.
                    if process.poll() is not None:
                        begun[n] = self.start(command, f"worker-{n}", environment)
                time.sleep(0.2)

        for n in range(count):
            begun[n] = self.start(command, f"worker-{n}", environment)
            # All at once they would hold each other up.
            if n % 5 == 4:
                wait_for(n + 1)
        wait_for(count)

    def gateway(self):
        self.address = f"127.0.0.1:{free_port()}"
        self.start([PROGRAM, "gateway", "--listen", self.address], "gateway", self.environment)
        self.wheelhouse("grant", "--tenant", TENANT, "--user", USER, "jobs.*")
        self.token = self.wheelhouse("token", "--user", USER, "--tenant", TENANT).strip()
        for _ in range(400):
            try:
                self.client = http.client.HTTPConnection(self.address, timeout=30)
                self.client.request("GET", "/readyz")
                answer = self.client.getresponse()
                answer.read()
                if answer.status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        sys.exit("the gateway did not become ready")

    def submit(self):
        parameters = {"path": "rows.csv", "first_row": 1, "rows": 1}
        body = json.dumps({"job_type": "demo_step", "parameters": parameters})
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        self.client.request("POST", "/api/v1/jobs", body, headers)
        answer = self.client.getresponse()
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"not submitted: {answer.status} {text.decode()}")

    def commands(self, rate, seconds):
        """What `wheelhouse bench load` says of so many commands a second: the line about their results."""
        load = ["bench", "load", "--gateway", self.address, "--sockets", "20"]
        told = self.wheelhouse(*load, "--seconds", str(seconds), "--rate", str(rate), "--results")
        return next(line for line in told.splitlines() if line.startswith("results"))

    def redis(self, *words):
        with socket.create_connection(("127.0.0.1", self.redis_port)) as connection:
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
            answers = connection.makefile("rb")
            line = answers.readline()
            return answers.read(int(line[1:])).decode() if line[:1] == b"$" else line[1:].strip().decode()

    def alive(self):
        return int(self.redis("ZCARD", "wh:{00}:workers"))

    def redis_calls(self):
        lines = self.redis("INFO", "commandstats").split("\r\n")
        found = (re.match(r"cmdstat_([^:]+):calls=(\d+)", line) for line in lines)
        return {match[1]: int(match[2]) for match in found if match}

    def sql(self, text):
        address = ["-h", "127.0.0.1", "-p", str(self.postgres_port), "-U", "postgres", "-At", "-c", text]
        told = subprocess.run(
            [postgres_program("psql"), *address], capture_output=True, text=True, check=True, cwd="/"
        )
        return told.stdout.strip()

    def transactions(self):
        # A backend says what it has done now and then; this takes what is said by now.
        return int(self.sql("SELECT SUM(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = 'postgres'"))

    def end(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes[::-1]:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        stop = ["-D", str(self.data), "-m", "immediate", "stop"]
        subprocess.run(as_postgres_user(postgres_program("pg_ctl"), *stop), stdout=subprocess.DEVNULL, cwd="/", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


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
        fleet = Fleet(count * (CONNECTIONS_OF_A_WORKER + 2) + 50)
        try:
            fleet.workers(count)
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
