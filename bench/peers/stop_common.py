"""Waiting for processes, and numbers about it."""

import json
import os
import statistics
import time


def pid_in(path, longest=20):
    begun = time.monotonic()
    while time.monotonic() - begun < longest:
        try:
            with open(path) as file:
                text = file.read()
            if text:
                return int(text)
        except FileNotFoundError:
            pass
        time.sleep(0.005)
    raise SystemExit(f"nothing started: {path}")


def until_gone(pid, begun, longest=20):
    """ms until the process is gone or dead."""
    while time.monotonic() - begun < longest:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] in "ZX":
                    break
        except (FileNotFoundError, ProcessLookupError):
            break
        time.sleep(0.0002)
    return (time.monotonic() - begun) * 1000


def tell(**times):
    said = {}
    for name, values in times.items():
        values = sorted(values)
        said[f"{name}_p50"] = statistics.median(values)
        said[f"{name}_p99"] = values[min(len(values) - 1, int(len(values) * 0.99))]
    print(json.dumps(said))


def path_of(name):
    return os.path.join(os.environ["PEER_FOLDER"], name)
