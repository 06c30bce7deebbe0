#!/bin/sh
# Two RQ jobs under control of the `make demo` that runs in another terminal. Ctrl-C ends it.
set -eu
. "$(dirname "$0")/../python.sh"
cd "$root/examples/rq"
python enqueue.py
rq worker --url "$BROKER" --worker-class wheelhouse_client.rq.ControlledWorker default
