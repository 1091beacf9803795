#!/bin/sh
# The compiler of this workspace's packages for fuzzing (RUSTC_WORKSPACE_WRAPPER): as ever, and with libFuzzer's counters
# of what is reached and of what is compared. Other people's packages stay as they are, and so are those of every other
# build.
case " $* " in
*" --crate-name "*)
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$@" ;;
esac
