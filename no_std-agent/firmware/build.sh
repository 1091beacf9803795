#!/usr/bin/env bash
# Builds the firmware of one board and prints the path of its image.
#
#   no_std-agent/firmware/build.sh BOARD        mps2-an386 (Cortex-M4), mps2-an385 (Cortex-M3)
#
# With rustup's target for the board where it is installed, else with Debian's toolchain (rustc-web cargo-web
# rust-web-src gcc-arm-none-eabi), which builds `core` from its sources. Nothing but `core` is there for the image:
# a crate that asks for a heap does not link.
set -euo pipefail
cd "$(dirname "$0")"

case ${1:-} in
    mps2-an386) package=muster-board-mps2 image=muster-mps2 target=thumbv7em-none-eabi ;;
    mps2-an385) package=muster-board-mps2 image=muster-mps2 target=thumbv7m-none-eabi ;;
    *) echo "build.sh: which board? mps2-an386 or mps2-an385" >&2; exit 2 ;;
esac

flags=(build --quiet --release --locked --target "$target" -p "$package")
# Panics name a file as `crate-1.2.3/src/lib.rs`: shorter, and the same wherever the image is built.
sources=$(cd ../.. && pwd)
for crates in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    remap="${remap:-} --remap-path-prefix=$crates/="
done
export RUSTFLAGS="-C link-arg=-Tlink.x -D warnings --remap-path-prefix=$sources/no_std-agent/=${remap:-}"
base=${CARGO_TARGET_DIR:-$(cd ../.. && pwd)/target}
if rustup target list --installed 2>/dev/null | grep -qx "$target"; then
    export CARGO_TARGET_DIR=$base/firmware
    cargo "${flags[@]}"
else
    # Another compiler: a target folder of its own.
    export CARGO_TARGET_DIR=$base/firmware-debian
    export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc PATH=/usr/bin:$PATH
    export RUSTFLAGS="$RUSTFLAGS -C linker=arm-none-eabi-ld -C linker-flavor=ld"
    /usr/bin/cargo "${flags[@]}" -Zbuild-std=core
fi
echo "$CARGO_TARGET_DIR/$target/release/$image"
