#!/bin/sh
# Prints where the program is that `cargo test --workspace` has built and tested. To build it by itself would take minutes more: then
# the crates it depends on have fewer features, so that cargo builds most of them a second time.
set -eu
cd "$(dirname "$0")/.."
messages="$(cargo test --workspace --no-run --message-format=json-render-diagnostics)"
program="$(printf '%s\n' "$messages" | grep '"kind":\["bin"\]' | sed -n 's/.*"executable":"\([^"]*\/wheelhouse\)".*/\1/p' | tail -n 1)"
[ -n "$program" ] || { echo "cargo test --workspace --no-run made no program named wheelhouse" >&2; exit 1; }
printf '%s\n' "$program"
