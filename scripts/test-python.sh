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
environment generate generate
bin="$home/venv/bin"

"$home/generate/bin/python" "$client/scripts/generate.py" --check
(cd "$client" && "$bin/mypy" && "$bin/pyright" --pythonpath "$bin/python")

rm -rf "$home/dist"
"$bin/python" -m build --no-isolation --outdir "$home/dist" "$client" >/dev/null
ls "$home"/dist/*.whl "$home"/dist/*.tar.gz >/dev/null

# The same client under the oldest and the newest other Python that this machine has: the checks of the protocol need no task queue.
own="$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
interpreter() {
    for candidate in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python; do
        "$candidate" -c '' >/dev/null 2>&1 && { printf '%s' "$candidate"; return 0; }
    done
    return 1
}
tried=""
under() {
    for version in "$@"; do
        [ "$version" != "$own" ] && other="$(interpreter "$version")" || continue
        case " $tried " in *" $version "*) return 0 ;; esac
        tried="$tried $version"
        [ -x "$home/python$version/bin/python" ] || "$other" -m venv "$home/python$version"
        install "$home/python$version/bin/pip" install "websockets>=13"
        say "the checks of the worker protocol under Python $version"
        (cd "$client" && PYTHONPATH=src "$home/python$version/bin/python" -m wheelhouse_client.conformance --parallel 4 -- \
            "$home/python$version/bin/python" tests/programs/small_job.py >"$home/python$version.log") || {
            cat "$home/python$version.log" >&2
            exit 1
        }
        return 0
    done
    say "no other Python of these is here, so only $own is tested: $*"
}
under 3.10 3.11
under 3.14 3.13 3.12

WHEELHOUSE_PROGRAM="${WHEELHOUSE_PROGRAM:-$(PROFILE=dev sh scripts/build.sh --bin wheelhouse)}"
export WHEELHOUSE_PROGRAM
export WHEELHOUSE_TEST_ARQ="$home/arq/bin/python"
cd "$client" && exec "$bin/pytest" -q -n 3 "$@"
