#!/usr/bin/env bash
# The firmware: formatted, its own tests on the host, all boards linted and built, both emulated boards booted against a
# real server.
# Needs Debian's toolchain for boards where rustup's is not installed, and the emulator.
#
#   tests/firmware.sh [TEST]      all tests, or those whose names contain TEST
#   tests/firmware.sh packages    only installs what that needs
set -euo pipefail
cd "$(dirname "$0")/.."

debian=(qemu-system-arm)
# The same question as build.sh asks.
for target in thumbv7em-none-eabi thumbv7m-none-eabi thumbv8m.main-none-eabi; do
    if ! rustup target list --installed 2>/dev/null | grep -qx "$target"; then
        debian+=(rustc-web cargo-web rust-web-src rust-web-clippy gcc-arm-none-eabi)
        break
    fi
done
missing=()
for package in "${debian[@]}"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || { echo "firmware: missing Debian packages: ${missing[*]}" >&2; exit 1; }
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
fi

[ "${1:-}" != packages ] || exit 0

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
firmware=no_std-agent/firmware
cargo fmt --all --check --manifest-path $firmware/Cargo.toml -- --config-path "$PWD/.rustfmt.toml"
CARGO_TARGET_DIR=$CARGO_TARGET_DIR/firmware-host \
    cargo test --quiet --locked --manifest-path $firmware/Cargo.toml -p muster-firmware -p muster-firmware-boot --lib

MUSTER_FIRMWARE_MPS2_AN386=$($firmware/build.sh mps2-an386)
MUSTER_FIRMWARE_MPS2_AN385=$($firmware/build.sh mps2-an385)
for board in mps2-an386 nrf52840-dk w5500-evb-pico2; do
    $firmware/build.sh lint $board
done
# These can't boot here: their fit into the part and the tools that flash them are tested.
MUSTER_FIRMWARE_NRF52840_DK=$($firmware/build.sh nrf52840-dk)
MUSTER_FIRMWARE_W5500_EVB_PICO2=$($firmware/build.sh w5500-evb-pico2)
export MUSTER_FIRMWARE_MPS2_AN386 MUSTER_FIRMWARE_MPS2_AN385
export MUSTER_FIRMWARE_NRF52840_DK MUSTER_FIRMWARE_W5500_EVB_PICO2
# One emulator at a time: what a boot takes is part of the test.
cargo test -p muster-tests --features firmware --test firmware --test firmware_cost -- \
    --test-threads 1 --nocapture "$@"
