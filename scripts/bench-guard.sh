#!/bin/sh
# Counts the instructions of the hot paths under valgrind and compares them with bench/guard.json: fails when one
# has grown by more than 5 %. Instructions, because they are the same on a busy machine. `--write` notes new figures.
set -eu
root="$(cd "$(dirname "$0")/.." && pwd)"
cd "$root"
guard=bench/guard.json
command -v valgrind >/dev/null 2>&1 || { echo "valgrind is missing: sh scripts/deps.sh guard" >&2; exit 1; }
program="$(sh scripts/build.sh --example hot_paths)"

count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 |
        awk '/Collected/ { print $NF }'
}

# What 2,000 rounds take more than 1,000: the start of the program is in both.
each() {
    few="$(count "$1" 1000)"
    many="$(count "$1" 2000)"
    echo $(((many - few) / 1000))
}

now_command="$(each command)"
now_update="$(each update)"
if [ "${1:-}" = --write ]; then
    printf '{\n  "command": %s,\n  "update": %s\n}\n' "$now_command" "$now_update" >"$guard"
    echo "noted in $guard: command $now_command, update $now_update instructions"
    exit 0
fi

failed=0
compare() {
    noted="$(awk -F'[:,]' -v name="\"$1\"" '$1 ~ name { gsub(/ /, "", $2); print $2 }' "$guard")"
    awk -v name="$1" -v noted="$noted" -v now="$2" 'BEGIN {
        change = (now / noted - 1) * 100
        printf "%-8s %8d instructions, noted %8d: %+.1f %%\n", name, now, noted, change
        exit change > 5
    }' || failed=1
}
compare command "$now_command"
compare update "$now_update"
if [ "$failed" = 1 ]; then
    echo "A hot path has grown by more than 5 %. Make it short again, or note the new figure with" >&2
    echo "    sh scripts/bench-guard.sh --write" >&2
    echo "and say in the commit what it buys." >&2
    exit 1
fi
