#!/bin/sh
# Builds one program of this project (a release, unless PROFILE says otherwise), and prints where it is: cargo itself says
# so, since CARGO_TARGET_DIR, a target triple or cargo's own settings may put it anywhere. Its arguments are cargo's:
# `--bin NAME` or `--example NAME`.
set -eu
cd "$(dirname "$0")/.."
messages="$(cargo build --profile "${PROFILE:-release}" --message-format=json-render-diagnostics "$@")"
program="$(printf '%s\n' "$messages" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)"
[ -n "$program" ] || { echo "cargo build $* made no program" >&2; exit 1; }
printf '%s\n' "$program"
