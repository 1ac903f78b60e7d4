#!/usr/bin/env bash
# Fuzzes one target of a crate with libFuzzer, with a nightly compiler and nothing else installed:
#
#     tools/fuzz.sh CRATE TARGET SECONDS [SEED_FILE...]
#     tools/fuzz.sh llm gguf 600 crates/llm/tests/goldens/tiny_*.gguf
#
# The corpus that it finds stays in target/fuzz/CRATE-TARGET; what made the target fail lies in its
# `failures` folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
crate=$1 target=$2 seconds=$3
shift 3

build=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
corpus=$build/$crate-$target
mkdir -p "$corpus/corpus" "$corpus/failures"
for seed in "$@"; do cp "$seed" "$corpus/corpus/"; done

# What cargo-fuzz passes, without the address sanitizer: the code fuzzed here has no pointers of its
# own, and runs twice as fast so. Overflow and debug assertions are on.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks \
-Ccodegen-units=1 --cfg fuzzing"
host=$(rustc -vV | sed -n 's/^host: //p')
(cd "crates/$crate/fuzz" && CARGO_TARGET_DIR=$build cargo +nightly build --release \
    --target "$host" --bin "$target")
exec "$build/$host/release/$target" -max_total_time="$seconds" -rss_limit_mb=2048 \
    -max_len=200000 -print_final_stats=1 -artifact_prefix="$corpus/failures/" "$corpus/corpus"
