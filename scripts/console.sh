#!/bin/sh
# Runs a program of clients/typescript with what it needs: its packages, a Node that is new enough, and this project's own program
# (a release with PROFILE=release).
set -eu
cd "$(dirname "$0")/.."
newer="$(find "$PWD/target/test-tools/node/node_modules" -maxdepth 1 -name 'node-*-*' 2>/dev/null | head -n 1)"
[ -z "$newer" ] || PATH="$newer/bin:$PATH"
WHEELHOUSE_PROGRAM="${WHEELHOUSE_PROGRAM:-$(PROFILE="${PROFILE:-dev}" sh scripts/build.sh --bin wheelhouse)}"
export PATH WHEELHOUSE_PROGRAM
cd clients/typescript
[ -d node_modules ] || npm ci --silent --no-fund --no-audit
exec "$@"
