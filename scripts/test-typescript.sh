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
cd clients/typescript
npm ci --silent --no-fund --no-audit
npm run --silent build
npm run --silent generate:check
npm run --silent lint
npm run --silent test
npm run --silent test:integration
