"""A client that breaks the protocol wherever it can: it says what it should, and does what it likes."""

import json
import os
import threading
import time

from websockets.sync.client import connect

ref = 1
socket = connect(
    os.environ["WHEELHOUSE_URL"].replace("http", "ws") + "/api/v1/worker/ws",
    subprotocols=["wheelhouse-worker.1", "bearer." + os.environ["WHEELHOUSE_TOKEN"]],
)


def say(**message: object) -> None:
    socket.send(json.dumps(message))


def listen() -> None:
    for frame in socket:
        message = json.loads(frame)
        if message["type"] == "order":
            say(type="reached", ref=ref, order=message["order"], state="still")


say(type="hello", v=1, worker="wrong", session="wrong-1")
threading.Thread(target=listen, daemon=True).start()
say(type="attach", ref=ref, tenant_id=os.environ["WHEELHOUSE_TENANT"], job_id=os.environ["WHEELHOUSE_JOB"])
with open(os.environ["WHEELHOUSE_FILE"], "a") as file:
    for step in range(int(os.environ["WHEELHOUSE_STEPS"])):
        file.write(f"{step}\n")
        file.flush()
        time.sleep(0.1)
say(type="end", ref=ref, how="completed")
time.sleep(1)
