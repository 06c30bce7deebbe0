#!/bin/sh
# Builds, checks and tests the TypeScript package (clients/typescript): alone, and against real BullMQ, a real Redis and
# this project's own program.
set -eu
cd "$(dirname "$0")/.."
# scripts/deps.sh puts a Node here where the machine's is too old.
newer="$(find "$PWD/target/test-tools/node/node_modules" -maxdepth 1 -name 'node-*-*' 2>/dev/null | head -n 1)"
[ -z "$newer" ] || PATH="$newer/bin:$PATH"
WHEELHOUSE_PROGRAM="${WHEELHOUSE_PROGRAM:-$(PROFILE=dev sh scripts/build.sh --bin wheelhouse)}"
export PATH WHEELHOUSE_PROGRAM
target="${CARGO_TARGET_DIR:-$PWD/target}"
case "$target" in /*) ;; *) target="$PWD/$target" ;; esac
cd clients/typescript
npm ci --silent --no-fund --no-audit
npm run --silent build
npm run --silent generate:check
npm run --silent console -- --check
npm run --silent lint
npm run --silent size
npm run --silent test
# The checks that every client of the worker protocol has to pass, in whatever language.
python="$target/python/conformance/bin/python"
[ -x "$python" ] || "${PYTHON:-python3}" -m venv "$target/python/conformance"
"$python" -m pip install --quiet --disable-pip-version-check 'websockets>=13'
PYTHONPATH=../python/src "$python" -m wheelhouse_client.conformance --parallel 2 -- node test/support/conformance-program.mjs
(cd ../../examples/react && npm ci --silent --no-fund --no-audit && npm run --silent build)
npm run --silent test:integration
