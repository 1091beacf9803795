#!/usr/bin/env bash
# Builds every fuzz target and runs each for some seconds on a copy of its corpus; a crash fails.
#
#   tests/fuzz/smoke.sh [SECONDS]      seconds per target, default 3
#   tests/fuzz/smoke.sh build          only builds
#
# No sanitizer: the code is safe Rust (`unsafe_code = forbid`), and what is looked for are panics,
# overflows, endless loops and unbounded memory, all of which libFuzzer and debug assertions see. So the
# stable compiler is enough. An input that fails is left in tests/fuzz/artifacts.
#
# Only this workspace's packages tell libFuzzer how far an input came: all others are those of the tests, as building them
# once more was a large part of the whole check. A long campaign wants all of it, from the folder of the repository, and
# writes what it finds to tests/fuzz/corpus/NAME:
#
#   cargo fuzz run --dev --fuzz-dir tests/fuzz --features targets --sanitizer none --target-dir target/campaign NAME
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-3}

here=$PWD
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$(cd ../.. && pwd)/target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mapfile -t names < <(cd fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')
bins=()
for name in "${names[@]}"; do
    bins+=(--bin "$name")
done
# Features of the whole workspace as in tests/check.sh, so that no package of others is built again.
RUSTC_WORKSPACE_WRAPPER=$here/instrumented.sh cargo build --quiet --manifest-path ../../Cargo.toml --workspace \
    --features muster-broker/rumqttd,muster-fuzz/targets "${bins[@]}"
[ "$seconds" != build ] || exit 0

# One target for a while; the line it prints says how far it came.
smoke() {
    local name=$1 log=$work/$1.log status=0 runs
    mkdir -p "corpus/$name" "artifacts/$name" "$work/$name"
    cp -r "corpus/$name/." "$work/$name/"
    "$CARGO_TARGET_DIR/debug/$name" "$work/$name" -artifact_prefix="artifacts/$name/" \
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
for name in "${names[@]}"; do
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
