#!/usr/bin/env bash
# The firmware: formatted, its own tests on the host, all boards linted and built, the emulated boards booted against a
# real server.
# Needs Debian's toolchain for boards where rustup's is not installed, and the emulator.
#
#   tests/firmware.sh [TEST]      all tests, or those whose names contain TEST
#   tests/firmware.sh build       only builds
#   tests/firmware.sh packages    only installs what that needs
set -euo pipefail
shopt -s inherit_errexit
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
only_build=()
[ "${1:-}" != build ] || only_build=(--no-run)
CARGO_TARGET_DIR=$CARGO_TARGET_DIR/firmware-host cargo test --quiet --locked --manifest-path $firmware/Cargo.toml \
    -p muster-firmware -p muster-firmware-boot --lib "${only_build[@]}"

# One after another, as what builds them is built once for all. The real boards can't boot here: their fit into the part and
# the tools that flash them are tested.
for board in mps2-an386 mps2-an385 mps2-an505 nrf52840-dk w5500-evb-pico2; do
    name=${board^^}
    image=$($firmware/build.sh "$board")
    export "MUSTER_FIRMWARE_${name//-/_}=$image"
done
# What differs between the emulated boards, but for the memory map, is what the compiler differs by.
for board in mps2-an386 mps2-an505 nrf52840-dk w5500-evb-pico2; do
    $firmware/build.sh lint "$board"
done
[ "${1:-}" != build ] || exit 0

# As in tests/check.sh, so that nothing is built twice.
# A board waits for most of a boot, so four fit on two processors.
cargo test --workspace --features muster-broker/rumqttd --test firmware --test firmware_cost -- \
    --test-threads 4 --nocapture "$@"
