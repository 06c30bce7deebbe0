#!/bin/sh
# Tests the Python client (clients/python) against the real program, Redis, Celery, RQ, taskiq, dramatiq and arq. Everything
# goes into target/python; nothing into the machine.
set -eu
cd "$(dirname "$0")/.."
root="$PWD"
target="${CARGO_TARGET_DIR:-$root/target}"
case "$target" in /*) ;; *) target="$root/$target" ;; esac
client="$root/clients/python"
home="$target/python"
mkdir -p "$home"

say() { printf '%s\n' "$*" >&2; }

python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    say "$python is older than 3.10: set PYTHON to a newer one."
    exit 1
}

# PyPI may fail for a moment: four tries, with a growing wait.
install() {
    for wait in 2 10 30 0; do
        "$@" --quiet --disable-pip-version-check --retries 5 --timeout 60 && return 0
        [ "$wait" = 0 ] || { say "pip failed; trying again in $wait s"; sleep "$wait"; }
    done
    return 1
}

# One environment for each list of packages, made anew when the list or the Python changes.
environment() {
    name="$1"
    list="$client/requirements-$2.txt"
    wanted="$("$python" --version) $(cat "$list" "$client/pyproject.toml" | cksum)"
    if [ "$(cat "$home/$name/made-of" 2>/dev/null)" != "$wanted" ]; then
        say "making target/python/$name"
        rm -rf "${home:?}/$name"
        "$python" -m venv "$home/$name"
        install "$home/$name/bin/pip" install -r "$list"
        install "$home/$name/bin/pip" install --editable "$client"
        printf '%s' "$wanted" >"$home/$name/made-of"
    fi
    "$home/$name/bin/pip" check --disable-pip-version-check
}

environment venv test
environment arq arq
bin="$home/venv/bin"

(cd "$client" && "$bin/mypy" && "$bin/pyright" --pythonpath "$bin/python")

rm -rf "$home/dist"
"$bin/python" -m build --no-isolation --outdir "$home/dist" "$client" >/dev/null
ls "$home"/dist/*.whl "$home"/dist/*.tar.gz >/dev/null

WHEELHOUSE_PROGRAM="${WHEELHOUSE_PROGRAM:-$(PROFILE=dev sh scripts/build.sh --bin wheelhouse)}"
export WHEELHOUSE_PROGRAM
export WHEELHOUSE_TEST_ARQ="$home/arq/bin/python"
cd "$client" && exec "$bin/pytest" -q -n 3 "$@"
