"""What a large fleet asks of Redis, beside a yardstick of the same run: `make bench-scale`.

A private redis-server gets the calls of so many workers, by the scripts of this tree, as fast as it takes them. What counts is the
CPU time of its main thread for each second of the fleet's life, so that the figures mean something on a busy machine as well;
they are still to be compared with the `PING` of the same run. Needs nothing but Python 3.8 and redis-server 7.
"""

import hashlib
import pathlib
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLEETS = [(60, 16), (200, 16), (200, 64), (1000, 16), (1000, 64)]
# As in src/worker/maintenance and src/broker/scripts/heartbeats.rs: seconds between two calls, and lengths in ms.
HEARTBEAT_EVERY, COUNT_EVERY, TICK_EVERY, ASK_EVERY = 1.25, 35, 0.7, 1.0
HEARTBEAT_MS, COUNTED_MS, COUNTED_AT_LEAST_MS, SET_MS, LEASE_MS, TENANTS = 4000, 55000, 15000, 300000, 2000, 256
UPDATE = '{"type":"job_progress","job_id":"j1","tenant_id":"acme","status":"running","progress":{"percent":50},"seq":1}'
# As in src/broker/keys.rs.
FIRST_HOMES, LISTENERS = 8, 8
REQUESTS = 300_000
CALLS_AT_ONCE = 200


def encoded(*words):
    out = b"*%d\r\n" % len(words)
    for word in words:
        word = word if isinstance(word, bytes) else str(word).encode()
        out += b"$%d\r\n%s\r\n" % (len(word), word)
    return out


class Redis:
    """A server of its own on a free port, ended with this program."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = tempfile.TemporaryDirectory()
        arguments = ["--port", str(self.port), "--save", "", "--appendonly", "no", "--dir", self.folder.name]
        self.process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
        for _ in range(400):
            try:
                self.socket = self.connect()
                break
            except OSError:
                time.sleep(0.025)
        else:
            sys.exit("redis-server did not start")
        self.answers = self.socket.makefile("rb")

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port))

    def read(self):
        line = self.answers.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            sys.exit(f"Redis: {rest.decode()}")
        if kind == b"$":
            return None if rest == b"-1" else self.answers.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.read() for _ in range(max(int(rest), 0))]
        return rest

    def call(self, *words):
        self.socket.sendall(encoded(*words))
        return self.read()

    def send_all(self, calls, at_once=CALLS_AT_ONCE):
        for at in range(0, len(calls), at_once):
            some = calls[at : at + at_once]
            self.socket.sendall(b"".join(some))
            for _ in some:
                self.read()

    def info(self, section):
        lines = self.call("INFO", section).decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def cpu(self):
        used = self.info("cpu")
        return float(used["used_cpu_user_main_thread"]) + float(used["used_cpu_sys_main_thread"])

    def commands(self):
        return int(self.info("stats")["total_commands_processed"])

    def cost(self, calls, times=1, at_once=CALLS_AT_ONCE):
        """CPU seconds and commands of these calls, those inside scripts among them."""
        cpu, commands = self.cpu(), self.commands()
        for _ in range(times):
            self.send_all(calls, at_once)
        return (self.cpu() - cpu) / times, (self.commands() - commands) / times

    def load(self, name):
        clock = "".join((ROOT / f"lua/lib/{library}.lua").read_text() + "\n" for library in ("clock", "seats"))
        body = (ROOT / f"lua/{name}.lua").read_text().replace("#!lua\n", "", 1)
        return self.call("SCRIPT", "LOAD", f"#!lua\n{clock}\n{body}")

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


def fleet_at_rest(redis, workers, partitions):
    """Core and commands a second, in all and by what they are for."""
    heartbeat, count, lead = (redis.load(name) for name in ("heartbeat", "count_worker", "lead_partition"))

    def key(partition, name):
        return "wh:{%02d}:%s" % (partition, name)

    def counting(worker, partition):
        return encoded("EVALSHA", count, 1, key(partition, "workers"), f"w{worker}", COUNTED_MS)

    heartbeats, first_counts, counts = [], [], []
    until = int(time.time() * 1000) + COUNTED_MS
    for worker in range(workers):
        homes = min(partitions, FIRST_HOMES)
        home = worker % homes
        sets = [key(home, name) for name in ("@workers:heartbeats", "workers", "@workers:listeners")]
        # Every second one asks whether the worker is counted, and is to listen.
        for counted in (COUNTED_AT_LEAST_MS, 0):
            lengths = [HEARTBEAT_MS, counted, -(-LISTENERS // homes)]
            heartbeats.append(encoded("EVALSHA", heartbeat, 3, *sets, f"w{worker}", *lengths))
        for partition in range(partitions):
            first_counts.append(counting(worker, partition))
            if partition == home:
                counts.append(counting(worker, partition))
            else:
                counts.append(encoded("ZADD", key(partition, "workers"), until, f"w{worker}"))
                # Every third time.
                if worker % 3 == 0:
                    counts.append(encoded("PEXPIRE", key(partition, "workers"), SET_MS))

    def leading(worker):
        names = ("@workers:leader", "@workers:heartbeats", "tenants")
        keys = [key(partition, name) for partition in range(partitions) for name in names]
        looks = [int(partition < FIRST_HOMES) for partition in range(partitions)]
        return [encoded("EVALSHA", lead, len(keys), *keys, worker, LEASE_MS, 0, TENANTS, *looks)]

    asking = [encoded("EXISTS", key(partition, "@workers:leader")) for partition in range(partitions)]

    redis.call("FLUSHALL")
    redis.send_all(first_counts + heartbeats + leading("w0"))
    parts = {
        "heartbeats": (redis.cost(heartbeats, 4), HEARTBEAT_EVERY * 2),
        "counting": (redis.cost(counts), COUNT_EVERY),
        "leaders": (redis.cost(leading("w0"), 8), TICK_EVERY),
        "asking": (redis.cost(asking, 8), ASK_EVERY),
    }
    by_part = {name: cost[0] / every for name, (cost, every) in parts.items()}
    return sum(by_part.values()), sum(cost[1] / every for cost, every in parts.values()), by_part


def publish_cost(redis, count=2000):
    """CPU time in µs of one PUBLISH that nobody hears."""
    script = "for i = 1, %d do redis.call('PUBLISH', 'acme:job:j1', '{}') end" % count
    return redis.cost([encoded("EVAL", script, 0)])[0] / count * 1e6


def subscriptions(redis, tenants, words):
    """PUBLISH beside so many subscriptions, and after they have gone."""
    subscriber = redis.connect()
    subscribed = sum(len(words(n)) - 1 for n in range(tenants))
    subscriber.sendall(b"".join(encoded(*words(n)) for n in range(tenants)))
    answers = subscriber.makefile("rb")
    while subscribed:
        subscribed -= answers.readline().lower() in (b"subscribe\r\n", b"psubscribe\r\n")
    beside = publish_cost(redis)
    answers.close()
    subscriber.close()
    while int(redis.info("stats")["pubsub_patterns"]) + int(redis.info("stats")["pubsub_channels"]):
        time.sleep(0.02)
    return beside, publish_cost(redis)


class Subscribers:
    """So many connections, each subscribed to what `words` says, which take what they hear."""

    def __init__(self, redis, count, words):
        self.redis, self.connections = redis, []
        for n in range(count):
            connection = redis.connect()
            connection.sendall(b"".join(encoded(*some) for some in words(n)))
            self.connections.append(connection)
        expected = sum(len(some) - 1 for some in words(0)) * count
        while self.subscribed() < expected:
            time.sleep(0.02)
        self.stop = threading.Event()
        self.taker = threading.Thread(target=self.take, daemon=True)
        self.taker.start()

    def subscribed(self):
        lines = self.redis.call("CLIENT", "LIST", "TYPE", "PUBSUB").decode().split()
        return sum(int(word.split("=")[1]) for word in lines if word.startswith(("sub=", "psub=", "ssub=")))

    def end(self):
        self.stop.set()
        self.taker.join()
        for connection in self.connections:
            connection.close()

    def take(self):
        poll = select.poll()
        by_number = {connection.fileno(): connection for connection in self.connections}
        for number in by_number:
            poll.register(number, select.POLLIN)
        while not self.stop.is_set():
            for number, _ in poll.poll(100):
                by_number[number].recv(1 << 20)


def heard_publish_cost(redis, word="PUBLISH", channel="acme:job:j1", count=200):
    """CPU time in µs of one PUBLISH to whoever hears it: where many are sent at once, so that they are written to each together,
    and where each is waited for."""
    calls = [encoded(word, channel, UPDATE)] * count
    at_once = redis.cost(calls, 5)[0]
    return at_once / count * 1e6, redis.cost(calls, 5, at_once=1)[0] / count * 1e6


def move_of_requests():
    """Seconds to move a slot with the answers to so many requests: as a key each, as fields of 32 hashes, as they were once, and as
    fields of 2,048, as they are now."""
    record = (
        '{"v":1,"body":"pause.-","outcome":"accepted","command_id":"01a2238c-12cb-7385-aaf1-3f283ada2fa3",'
        '"workers_online":3,"control":"live","ends":1764510000000}'
    )
    source, target = Redis(), Redis()
    there = ["127.0.0.1", target.port]
    ids = [f"01a2238c-12f4-73db-806b-{n:012}" for n in range(REQUESTS)]

    def seconds(calls, keys):
        source.send_all(calls)
        begun = time.monotonic()
        # Ten at a time, as `redis-cli --cluster reshard` does.
        for at in range(0, len(keys), 10):
            source.call("MIGRATE", *there, "", 0, 60_000, "KEYS", *keys[at : at + 10])
        took = time.monotonic() - begun
        target.call("FLUSHALL")
        return took

    names = [f"acme:job:j{n % 5000}:ann%40example.com:{ids[n]}" for n in range(REQUESTS)]
    keys = [f"wh:{{07}}:acme:job:j{n % 5000}:request:ann%40example.com:{ids[n]}" for n in range(REQUESTS)]
    as_keys = seconds([encoded("SET", key, record, "PX", 86_400_000) for key in keys], keys)
    large = [f"wh:{{07}}:@requests:1:{share}" for share in range(32)]
    in_large = seconds([encoded("HSET", large[n % 32], names[n], record) for n in range(REQUESTS)], large)
    small = [f"wh:{{07}}:@request_ids:1:{share}" for share in range(2_048)]
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    text = "l1764510000" + "01a2238c12cb7385aaf13f283ada2fa3" + "3p"
    in_small = seconds([encoded("HSET", small[int(d[:3], 16) // 2], d[3:27], text) for d in digests], small)
    source.end()
    target.end()
    return as_keys, in_large, in_small


def main():
    redis = Redis()
    ping = redis.cost([encoded("PING")] * 20_000)[0] / 20_000 * 1e6
    print(f"Redis {redis.info('server')['redis_version']}; yardstick: a PING takes {ping:.2f} µs of CPU\n")
    print("A fleet at rest         core     commands/s   of which")
    for workers, partitions in FLEETS:
        core, commands, parts = fleet_at_rest(redis, workers, partitions)
        parts = ", ".join(f"{name} {part:.4f}" for name, part in parts.items())
        print(f"{workers:5} workers x {partitions:2}   {core:.4f}   {commands:8.0f}     {parts}", flush=True)
    redis.end()
    print("\nPUBLISH beside so many watched tenants, and after they have gone (µs)")
    shapes = {
        "two patterns each": lambda n: ("PSUBSCRIBE", f"t{n}:job:*", f"t{n}:campaign:*"),
        "a channel each": lambda n: ("SUBSCRIBE", f"t{n}:feed"),
    }
    for name, words in shapes.items():
        for tenants in (1_000, 5_000, 10_000):
            redis = Redis()
            beside, after = subscriptions(redis, tenants, words)
            redis.end()
            print(f"{tenants:6} tenants, {name:18} {beside:8.2f} {after:8.2f}", flush=True)
    print("\nPUBLISH beside any number of tenants, heard together by so many gateways: many at once, and one by one (µs)")
    for gateways in (1, 10):
        redis = Redis()
        subscribers = Subscribers(redis, gateways, lambda n: [("PSUBSCRIBE", "*:job:*", "*:campaign:*")])
        at_once, one_by_one = heard_publish_cost(redis)
        subscribers.end()
        redis.end()
        print(f"{gateways:6} gateways {at_once:8.2f} {one_by_one:8.2f}", flush=True)
    print("\nWaking workers: one PUBLISH, many at once and one by one (µs)")
    own = ("SUBSCRIBE", "SSUBSCRIBE")
    for workers in (8, 200, 1_000):
        redis = Redis()
        words = [("PSUBSCRIBE", "*:job:control", "*:campaign:control")]
        subscribers = Subscribers(redis, workers, lambda n: words + [(own[0], f"wh:worker:w{n}"), (own[1], f"w{n}")])
        for what, *call in (
            (f"to the control channel, heard by {workers}", "PUBLISH", "acme:job:control"),
            (f"to the own channel of one of {workers}", "PUBLISH", "wh:worker:w3"),
            ("the same by SPUBLISH", "SPUBLISH", "w3"),
        ):
            at_once, one_by_one = heard_publish_cost(redis, *call)
            print(f"{what:45} {at_once:8.2f} {one_by_one:8.2f}", flush=True)
        subscribers.end()
        redis.end()
    as_keys, in_large, in_small = move_of_requests()
    print(f"\n{REQUESTS} requests moved to another server: {as_keys:.1f} s as keys, {in_large:.1f} s in 32 hashes, {in_small:.1f} s in 2,048")


if __name__ == "__main__":
    main()
