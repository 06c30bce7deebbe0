#!/bin/sh
# Two Celery tasks under control of the `make demo` that runs in another terminal. Ctrl-C ends it.
set -eu
. "$(dirname "$0")/../python.sh"
cd "$root/examples/celery"
python publish.py
celery -A tasks worker --concurrency 2 --loglevel warning
