#!/bin/sh
# What the examples in Python have in common; read by their run.sh. Sets WHEELHOUSE_URL and WHEELHOUSE_TOKEN where they are
# not set, as for the `make demo` that runs in this folder, makes an environment in target/examples-python, and starts a
# redis-server of its own as the queue's broker (BROKER), which ends with the example.
root="$(cd "$(dirname "$0")/../.." && pwd)"
home="${CARGO_TARGET_DIR:-$root/target}/examples-python"

export WHEELHOUSE_URL="${WHEELHOUSE_URL:-http://127.0.0.1:8100}"
if [ -z "${WHEELHOUSE_TOKEN:-}" ]; then
    program="$(sh "$root/scripts/build.sh" --bin wheelhouse)"
    WHEELHOUSE_TOKEN="$(cd "$root" && "$program" token --worker example --tenants acme --ttl 1d)"
    export WHEELHOUSE_TOKEN
fi

sh "$root/scripts/deps.sh" python
if [ ! -e "$home/ready" ]; then
    echo "making target/examples-python" >&2
    "${PYTHON:-python3}" -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check --editable "$root/clients/python" 'celery[redis]' rq
    touch "$home/ready"
fi
PATH="$home/bin:$PATH"

port="$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
export BROKER="redis://127.0.0.1:$port/0"
redis-server --port "$port" --save '' --appendonly no --dir "$home" --loglevel warning &
broker=$!
trap 'kill $broker' EXIT
until redis-cli -p "$port" ping >/dev/null 2>&1; do sleep 0.1; done
