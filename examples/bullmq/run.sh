#!/bin/sh
# A BullMQ job under control of the `make demo` that runs in another terminal. Ctrl-C ends it. Starts a redis-server of its
# own for the queue. Takes WHEELHOUSE_URL and WHEELHOUSE_TOKEN where they are set.
set -eu
cd "$(dirname "$0")"
root="$(cd ../.. && pwd)"

export WHEELHOUSE_URL="${WHEELHOUSE_URL:-http://127.0.0.1:8100}"
if [ -z "${WHEELHOUSE_TOKEN:-}" ]; then
    program="$(sh "$root/scripts/build.sh" --bin wheelhouse)"
    WHEELHOUSE_TOKEN="$(cd "$root" && "$program" token --worker example --tenants acme --ttl 1d)"
    export WHEELHOUSE_TOKEN
fi

(cd "$root/clients/typescript" && npm ci --silent --no-fund --no-audit && npm run --silent build)
npm ci --silent --no-fund --no-audit

folder="$(mktemp -d)"
REDIS_PORT="$(node -e 'const s = require("net").createServer(); s.listen(0, () => { console.log(s.address().port); s.close(); })')"
export REDIS_PORT
redis-server --port "$REDIS_PORT" --save '' --appendonly no --dir "$folder" --maxmemory-policy noeviction --loglevel warning &
trap 'kill $!; rm -rf "$folder"' EXIT
node worker.js
