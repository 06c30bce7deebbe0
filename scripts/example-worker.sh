#!/bin/sh
# Builds and tests the project that others copy for a worker of their own, as it stands: by itself, with the SDK as its
# only way in. Then looks at what it depends on: nothing of the gateway and the command line.
set -eu
cd "$(dirname "$0")/.."
example=examples/worker/Cargo.toml
# The same versions as here, and one target folder: what both depend on is built once.
cp Cargo.lock examples/worker/Cargo.lock
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
cargo "${1:-test}" --manifest-path "$example"
needs="$(cargo tree --manifest-path "$example" --edges normal --prefix none --format '{p}')"
for crate in warp hyper clap indicatif hdrhistogram jsonwebtoken tokio-tungstenite metrics-exporter-prometheus; do
    if printf '%s\n' "$needs" | grep -q "^$crate v"; then
        echo "A worker that is written with wheelhouse-worker depends on $crate, which is the server's alone:" >&2
        cargo tree --manifest-path "$example" --edges normal --invert "$crate" >&2
        exit 1
    fi
done
