#!/usr/bin/env bash
# Builds every fuzz target and runs each for some seconds on a copy of its corpus; a crash fails.
#
#   tests/fuzz/smoke.sh [SECONDS]      seconds per target, default 3
#
# No sanitizer: the code is safe Rust (`unsafe_code = forbid`), and what is looked for are panics,
# overflows, endless loops and unbounded memory, all of which libFuzzer and debug assertions see. So the
# stable compiler is enough. An input that fails is left in tests/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-3}
version=0.13.2
cargo fuzz --version 2>/dev/null | grep -qF "$version" || cargo install --quiet --locked "cargo-fuzz@$version"

# A folder of its own: other flags than the workspace's, so sharing one would build both again and again.
target=${CARGO_TARGET_DIR:-$(cd ../.. && pwd)/target}/fuzz
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=(--fuzz-dir . --sanitizer none --target-dir "$target")

cargo fuzz build "${flags[@]}"
failed=()
for name in $(cargo fuzz list --fuzz-dir .); do
    mkdir -p "corpus/$name" "$work/$name"
    cp -r "corpus/$name/." "$work/$name/"
    log=$work/$name.log
    if ! cargo fuzz run "${flags[@]}" "$name" "$work/$name" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=32768 -print_final_stats=1 \
        >"$log" 2>&1
    then
        failed+=("$name")
        tail -n 40 "$log" >&2
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "fuzz $name: ${runs:-0} runs"
    [ "${runs:-0}" -gt 0 ] || failed+=("$name never ran")
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: failed: ${failed[*]}" >&2; exit 1; }
