"""What a command costs on a Redis Cluster of six nodes, beside one Redis: `make bench-cluster`.

Starts private servers, a gateway and two workers on SQLite, puts `wheelhouse bench load` on them at a fixed rate, each from a tenant
of its own so that several masters have work, and reads from /proc how much processor time each kind of process took. What is
published on plain channels goes to all nodes of a cluster, so what counts is the sum over all of them; each cluster also with sharded channels alone.
Needs nothing but Python 3.8, redis-server and redis-cli 7, and Linux.
"""

import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from fleet import LIMITS, free_port

TENANTS, RATE, SECONDS = 6, 150, 15


def node_port():
    """A node of a cluster also listens 10,000 ports higher."""
    while True:
        port = free_port()
        if port > 55_000:
            continue
        with socket.socket() as bus:
            try:
                bus.bind(("127.0.0.1", port + 10_000))
                return port
            except OSError:
                continue


def until(what, is_so, seconds=60):
    for _ in range(seconds * 20):
        if is_so():
            return
        time.sleep(0.05)
    sys.exit(f"not in {seconds} s: {what}")


def cpu(process):
    """Seconds of processor time of a process, its ended threads among them."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Deployment:
    """Redis servers, a gateway and workers; all of them end with it."""

    def __init__(self, program, masters, replicas, channels):
        self.program, self.processes, self.folder = program, [], tempfile.TemporaryDirectory()
        is_cluster = masters > 1
        ports = [node_port() for _ in range(masters * (1 + replicas))]
        self.servers = [self.server(port, is_cluster) for port in ports]
        until("the servers answer", lambda: all(self.cli(port, "PING") == "PONG" for port in ports))
        if is_cluster:
            nodes = [f"127.0.0.1:{port}" for port in ports]
            create = ["--cluster", "create", *nodes, "--cluster-replicas", str(replicas), "--cluster-yes"]
            subprocess.run(["redis-cli", *create], check=True, stdout=subprocess.DEVNULL)
            until("the cluster is whole", lambda: all("cluster_state:ok" in self.cli(p, "CLUSTER", "INFO") for p in ports))
        scheme = "redis+cluster" if is_cluster else "redis"
        hosts = ",".join(f"127.0.0.1:{port}" for port in (ports if is_cluster else ports[:1]))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("WHEELHOUSE__")},
            "WHEELHOUSE__REDIS__URL": f"{scheme}://{hosts}",
            "WHEELHOUSE__DATABASE__URL": f"sqlite://{self.folder.name}/bench.db",
            "WHEELHOUSE__AUTH__HS256_SECRET": os.urandom(32).hex(),
            "WHEELHOUSE__REDIS__PUBLISHED_CHANNELS": channels,
            "WHEELHOUSE__REDIS__HEARD_CHANNELS": channels,
            "WHEELHOUSE__SERVER__DRAIN_NOTICE_SECONDS": "0",
            **{f"WHEELHOUSE__LIMITS__{name.upper()}": "1000000" for name in LIMITS},
        }
        subprocess.run([program, "migrate"], check=True, env=self.environment, stdout=subprocess.DEVNULL)
        self.address = f"127.0.0.1:{free_port()}"
        self.gateway = self.start(program, "gateway", "--listen", self.address)
        self.workers = [self.start(program, "worker") for _ in range(2)]
        until("the gateway is ready", self.is_ready)
        time.sleep(3)  # The workers' first heartbeats.

    def server(self, port, is_cluster):
        folder = pathlib.Path(self.folder.name, str(port))
        folder.mkdir()
        more = ["--cluster-enabled", "yes"] if is_cluster else []
        return self.start(
            "redis-server", "--port", str(port), "--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction",
            "--dir", str(folder), *more,
        )

    def start(self, *arguments):
        log = open(pathlib.Path(self.folder.name, f"{len(self.processes)}.log"), "w")
        environment = getattr(self, "environment", None)
        process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=subprocess.STDOUT)
        self.processes.append(process)
        return process

    @staticmethod
    def cli(port, *words):
        return subprocess.run(["redis-cli", "-p", str(port), *words], capture_output=True, text=True).stdout.strip()

    def is_ready(self):
        try:
            return urllib.request.urlopen(f"http://{self.address}/readyz", timeout=2).status == 200
        except OSError:
            return False

    def spent(self):
        groups = {"Redis": self.servers, "gateway": [self.gateway], "workers": self.workers}
        return {name: sum(map(cpu, processes)) for name, processes in groups.items()}

    def load(self):
        """Results, the slowest of the medians in ms, and processor time in µs of each kind of process for each result."""
        arguments = ["--gateway", self.address, "--sockets", "20", "--seconds", str(SECONDS), "--rate", str(RATE), "--results"]
        command = [self.program, "bench", "load", *arguments]
        before = self.spent()
        loads = [
            subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(TENANTS)
        ]
        said = [load.communicate()[0] for load in loads]
        after = self.spent()
        found = [re.search(r"^results\s+(\d+).*?p50 ([\d.,]+) ms", text, re.MULTILINE) for text in said]
        if not all(found):
            sys.exit("no results: " + "\n".join(said))
        results = sum(int(one[1]) for one in found)
        medians = sorted(float(one[2].replace(",", "")) for one in found)
        return results, medians[-1], {name: (after[name] - before[name]) / results * 1e6 for name in after}

    def end(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait()
        self.folder.cleanup()


def main():
    program = sys.argv[1]
    print(f"{TENANTS} tenants with {RATE} commands/s each, {SECONDS} s; µs of processor time for a command with its result")
    print("                               results   p50 ms    Redis, all nodes   gateway   workers")
    for name, masters, replicas, channels in (
        ("one Redis", 1, 0, "plain"),
        ("3 masters and 3 replicas", 3, 1, "plain"),
        ("the same, sharded", 3, 1, "sharded"),
        ("6 masters", 6, 0, "plain"),
        ("the same, sharded", 6, 0, "sharded"),
    ):
        deployment = Deployment(program, masters, replicas, channels)
        try:
            results, median, costs = deployment.load()
        finally:
            deployment.end()
        print(
            f"{name:28} {results:9} {median:8.1f} {costs['Redis']:19.0f} {costs['gateway']:9.0f} {costs['workers']:9.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
