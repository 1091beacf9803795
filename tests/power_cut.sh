#!/usr/bin/env bash
# A power cut under load: what was acknowledged is on the disk.
#
# The model: an ext4 file system in a loop-mounted image. A writer with 32 clients issues into a ledger on it
# and prints each certificate's id after its acknowledgement, to a file elsewhere. It is killed, and the bytes
# of the image are copied at once, while what was not synced is still only in memory: the copy is the disk
# after the cut. The ledger on the copy must open, be whole, and hold every id.
# Where nothing can be mounted it proves instead that an fdatasync lies between each write and its
# acknowledgement. It says which of the two it did, and fails when it could do neither.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
rounds=${1:-5}
# As in tests/check.sh, so that nothing is built twice.
cargo build --quiet --workspace --features muster-broker/rumqttd --example writer
writer=$target/debug/examples/writer
work=$(mktemp -d)
mounted=()
cleanup() {
    for point in "${mounted[@]}"; do umount "$point" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT

mount_image() { # image folder
    mkdir -p "$2"
    mount -o loop "$1" "$2" && mounted+=("$2")
}

cut_once() { # round
    local image=$work/disk-$1 copy=$work/copy-$1 told=$work/told-$1 pid acknowledged
    truncate -s 400M "$image"
    mkfs.ext4 -qF "$image"
    mount_image "$image" "$work/before-$1"
    "$writer" "$work/before-$1" 32 >"$told" &
    pid=$!
    sleep "1.$((RANDOM % 10))"
    kill -9 "$pid"
    cp --sparse=always "$image" "$copy"
    wait "$pid" 2>/dev/null || true
    umount "$work/before-$1"
    mount_image "$copy" "$work/after-$1"
    # The last line may be cut in the middle.
    acknowledged=$(grep -cE '^[0-9a-f-]{36}$' "$told")
    grep -E '^[0-9a-f-]{36}$' "$told" | "$writer" verify "$work/after-$1" >&2
    umount "$work/after-$1"
    [ "$(grep -E '^[0-9a-f-]{36}$' "$told" | sort | uniq -d | wc -l)" = 0 ]
    rm -f "$image" "$copy"
    total=$((total + acknowledged))
}

prove_by_trace() {
    local syncs
    mkdir "$work/traced"
    strace -f -qq -e trace=fdatasync,fsync,write -o "$work/trace" "$writer" "$work/traced" 1 200 >"$work/told"
    # With one client each acknowledgement (a write to standard output) follows at least one sync of its own.
    awk '/fdatasync|fsync/ {synced=1} / write\(1, "[0-9a-f]/ {if (!synced) exit 1; synced=0; seen++}
         END {if (seen < 200) exit 1}' "$work/trace"
    syncs=$(grep -cE 'fdatasync|fsync' "$work/trace")
    echo "power cut: nothing can be mounted here; 200 acknowledged, each after a sync ($syncs syncs in all)"
}

total=0
if truncate -s 16M "$work/probe" && mkfs.ext4 -qF "$work/probe" && mount_image "$work/probe" "$work/probed" 2>/dev/null
then
    umount "$work/probed"
    for round in $(seq "$rounds"); do cut_once "$round"; done
    [ "$total" -ge 3000 ] || { echo "power cut: only $total acknowledged" >&2; exit 1; }
    echo "power cut: $rounds rounds on a loop-mounted image, $total acknowledged, 0 lost"
else
    prove_by_trace
fi
