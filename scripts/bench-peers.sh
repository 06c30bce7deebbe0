#!/bin/sh
# Installs the peers of `make bench-peers` from npm and PyPI into target/bench-peers; nothing goes into the machine.
set -eu
root="$(cd "$(dirname "$0")/.." && pwd)"
peers="$root/target/bench-peers"
mkdir -p "$peers"
cp "$root"/bench/peers/* "$peers/"
if [ ! -d "$peers/node_modules/bullmq" ]; then
    echo "installing ws, ioredis, rate-limiter-flexible, jsonwebtoken and bullmq into target/bench-peers" >&2
    npm install --silent --no-fund --no-audit --prefix "$peers" >&2
fi
if [ ! -x "$peers/venv/bin/rq" ]; then
    echo "installing celery and rq into target/bench-peers/venv" >&2
    python3 -m venv "$peers/venv"
    "$peers/venv/bin/pip" install --quiet --disable-pip-version-check -r "$peers/requirements.txt" >&2
fi
