"""The listener of the specification, mended: patterns need ``psubscribe``, and such messages are of the type ``pmessage``."""

import json
import os

from redis import Redis

redis_client = Redis.from_url(os.environ["TEST_REDIS"])
pubsub = redis_client.pubsub()
pubsub.psubscribe("*:job:control")

for message in pubsub.listen():
    if message["type"] == "psubscribe":
        print("listening", flush=True)
    if message["type"] == "pmessage":
        data = json.loads(message["data"])
        print("heard", data["action"], data["job_id"], data["tenant_id"], data["user_id"], flush=True)
