"""A fleet of real programs for benchmarks: a private redis-server, a private database, a gateway, and `wheelhouse demo-worker` processes.

Needs Python 3.8, redis-server 7, PostgreSQL where that is the database, and the program, built: WHEELHOUSE_PROGRAM, else
target/release/wheelhouse.
"""

import http.client
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
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

    def __init__(self, database, connections=100):
        if not os.access(PROGRAM, os.X_OK):
            sys.exit(f"{PROGRAM} is missing: `cargo build --release --bin wheelhouse` makes it")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="wheelhouse-fleet-"))
        self.folder.chmod(0o755)
        self.processes = []
        self.redis_port, self.postgres_port = free_port(), free_port()
        redis_folder = self.folder / "redis"
        redis_folder.mkdir()
        arguments = ["--port", str(self.redis_port), "--save", "", "--appendonly", "yes", "--dir", str(redis_folder)]
        self.start(["redis-server", *arguments], "redis")
        self.data = None
        url = f"sqlite://{self.folder}/wheelhouse.db" if database == "sqlite" else self.postgres(connections)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("WHEELHOUSE__")}
        self.environment.update(
            WHEELHOUSE__REDIS__URL=f"redis://127.0.0.1:{self.redis_port}",
            WHEELHOUSE__DATABASE__URL=url,
            WHEELHOUSE__AUTH__HS256_SECRET=secrets.token_hex(32),
            WHEELHOUSE__SERVER__DRAIN_NOTICE_SECONDS="0",
            **{f"WHEELHOUSE__LIMITS__{name.upper()}": "1000000" for name in LIMITS},
        )
        self.wheelhouse("migrate")

    def postgres(self, connections):
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
        return f"postgres://postgres@127.0.0.1:{self.postgres_port}/postgres"

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

    def workers(self, count, connections=None, **settings):
        files = self.folder / "files"
        files.mkdir(exist_ok=True)
        (files / "rows.csv").write_text("word\n" + "a b c\n" * 10)
        environment = dict(self.environment, **settings)
        if connections:
            environment["WHEELHOUSE__DATABASE__CONNECTIONS"] = str(connections)
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
                self.client = self.connect()
                self.client.request("GET", "/readyz")
                answer = self.client.getresponse()
                answer.read()
                if answer.status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        sys.exit("the gateway did not become ready")

    def connect(self):
        return http.client.HTTPConnection(self.address, timeout=60)

    def submit(self, count=None, client=None):
        """One job that reads one row of a file, or so many of them as lines of one request."""
        job = json.dumps({"job_type": "demo_step", "parameters": {"path": "rows.csv", "first_row": 1, "rows": 1}})
        body, kind = (job, "json") if count is None else ((job + "\n") * count, "x-ndjson")
        self.ask("POST", "/api/v1/jobs", body, kind, client)

    def ask(self, method, path, body=None, kind="json", client=None):
        headers = {"authorization": f"Bearer {self.token}", "content-type": f"application/{kind}"}
        client = client or self.client
        client.request(method, path, body, headers)
        answer = client.getresponse()
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text)

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

    def pids(self):
        """Of the programs that were started here; of PostgreSQL the first, whose children the others are."""
        first = {int((self.data / "postmaster.pid").read_text().split()[0])} if self.data else set()
        return first | {process.pid for process in self.processes}

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
        if self.data:
            stop = ["-D", str(self.data), "-m", "immediate", "stop"]
            subprocess.run(as_postgres_user(postgres_program("pg_ctl"), *stop), stdout=subprocess.DEVNULL, cwd="/", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
