#!/usr/bin/env bash
# Builds the firmware of one board and prints the path of its image.
#
#   no_std-agent/firmware/build.sh BOARD          mps2-an386 (Cortex-M4), mps2-an385 (Cortex-M3), mps2-an505 (Cortex-M33),
#                                                 nrf52840-dk (Cortex-M4), w5500-evb-pico2 (Cortex-M33)
#   no_std-agent/firmware/build.sh lint BOARD     runs clippy on the board's package; prints nothing if all is well
#
# With rustup's target for the board where it is installed, else with Debian's toolchain (rustc-web cargo-web
# rust-web-src gcc-arm-none-eabi, for clippy rust-web-clippy), which builds `core` from its sources. Nothing but
# `core` is there for the image: a crate that asks for a heap does not link.
set -euo pipefail
cd "$(dirname "$0")"

find_board() {
    features=
    case ${1:-} in
        mps2-an386) package=muster-board-mps2 image=muster-mps2 target=thumbv7em-none-eabi ;;
        mps2-an385) package=muster-board-mps2 image=muster-mps2 target=thumbv7m-none-eabi ;;
        mps2-an505) package=muster-board-mps2 image=muster-mps2 target=thumbv8m.main-none-eabi features=an505 ;;
        nrf52840-dk) package=muster-board-nrf52840 image=muster-nrf52840 target=thumbv7em-none-eabi ;;
        w5500-evb-pico2) package=muster-board-pico2 image=muster-pico2 target=thumbv8m.main-none-eabi ;;
        *) echo "build.sh: which board? mps2-an386, mps2-an385, mps2-an505, nrf52840-dk or w5500-evb-pico2" >&2; exit 2 ;;
    esac
}

base=${CARGO_TARGET_DIR:-$(cd ../.. && pwd)/target}
# Panics name a file as `crate-1.2.3/src/lib.rs`: shorter, and the same wherever the image is built.
sources=$(cd ../.. && pwd)
for crates in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    remap="${remap:-} --remap-path-prefix=$crates/="
done
export RUSTFLAGS="-C link-arg=-Tlink.x -D warnings --remap-path-prefix=$sources/no_std-agent/=${remap:-}"

# Chooses the compiler for the board that was found last.
choose_cargo() {
    cargo=(cargo) flags=(--quiet --release --locked --target "$target" --features "$features")
    export CARGO_TARGET_DIR=$base/firmware
    if ! rustup target list --installed 2>/dev/null | grep -qx "$target"; then
        # Another compiler: a target folder of its own.
        export CARGO_TARGET_DIR=$base/firmware-debian
        export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc PATH=/usr/bin:$PATH
        export RUSTFLAGS="$RUSTFLAGS -C linker=arm-none-eabi-ld -C linker-flavor=ld"
        # A panic is a trap, whose address says where it was: the words of all panics, and what formats them, are a sixth
        # of an image. rustup's stable compiler lacks it; with that the words are kept.
        RUSTFLAGS="$RUSTFLAGS -Zunstable-options -Cpanic=immediate-abort"
        # The compiler's own rewriting copies blocks and values for speed: a quarter of a per cent of the image, and half
        # a kilobyte of stack.
        RUSTFLAGS="$RUSTFLAGS -Zmir-opt-level=1"
        cargo=(/usr/bin/cargo) flags+=(-Zbuild-std=core -Zbuild-std-features=optimize_for_size)
    fi
    # AES without its larger, unrolled form.
    RUSTFLAGS="$RUSTFLAGS --cfg aes_compact"
}

if [ "${1:-}" = lint ]; then
    find_board "${2:-}"
    choose_cargo
    "${cargo[@]}" clippy "${flags[@]}" -p "$package"
else
    find_board "$@"
    choose_cargo
    "${cargo[@]}" build "${flags[@]}" -p "$package"
    echo "$CARGO_TARGET_DIR/$target/release/$image"
fi
