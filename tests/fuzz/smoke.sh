#!/usr/bin/env bash
# Builds every fuzz target and runs each for some seconds on a copy of its corpus; a crash fails.
#
#   tests/fuzz/smoke.sh [SECONDS]      seconds per target, default 3
#   tests/fuzz/smoke.sh build          only builds
#
# No sanitizer: the code is safe Rust (`unsafe_code = forbid`), and what is looked for are panics,
# overflows, endless loops and unbounded memory, all of which libFuzzer and debug assertions see. So the
# stable compiler is enough. An input that fails is left in tests/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-3}
version=0.13.2
# Not optimised: building it so takes longer than it runs.
cargo fuzz --version 2>/dev/null | grep -qF "$version" || cargo install --quiet --locked --debug "cargo-fuzz@$version"

# A folder of its own: other flags than the workspace's, so sharing one would build both again and again.
target=${CARGO_TARGET_DIR:-$(cd ../.. && pwd)/target}/fuzz
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=(--fuzz-dir . --sanitizer none --target-dir "$target")

cargo fuzz build "${flags[@]}"
[ "$seconds" != build ] || exit 0

# One target for a while; the line it prints says how far it came.
smoke() {
    local name=$1 log=$work/$1.log status=0 runs
    mkdir -p "corpus/$name" "$work/$name"
    cp -r "corpus/$name/." "$work/$name/"
    cargo fuzz run "${flags[@]}" "$name" "$work/$name" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=32768 -print_final_stats=1 \
        >"$log" 2>&1 || status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    if [ "$status" != 0 ] || [ "${runs:-0}" = 0 ]; then
        tail -n 40 "$log" >&2
        echo "fuzz: $name failed" >&2
        return 1
    fi
    echo "fuzz $name: $runs runs"
}

# As many at a time as there are cores: each is one thread.
failed=0 running=0
for name in $(cargo fuzz list --fuzz-dir .); do
    if [ "$running" -ge "$(nproc)" ]; then
        wait -n || failed=1
        running=$((running - 1))
    fi
    smoke "$name" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
exit "$failed"
