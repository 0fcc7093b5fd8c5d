#!/bin/sh
# Searches every decoder for bytes that break it, $1 seconds each (300 if not given), or only the one named $2.
set -eu

seconds=${1:-300}
# Optimising all of the program once more for each decoder would take longer than the search.
export CARGO_PROFILE_RELEASE_LTO=off
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
for decoder in ${2:-$(ls fuzz/corpus)}; do
    echo "fuzz: $decoder for $seconds s"
    # What is found beside the checked-in corpus stays out of the repository; a crash is written to fuzz/artifacts.
    mkdir -p "target/fuzz/$decoder"
    cargo fuzz run --sanitizer none --features engine "$decoder" "target/fuzz/$decoder" "fuzz/corpus/$decoder" -- \
        -max_total_time="$seconds" -max_len=8192 -timeout=10 -print_final_stats=1
done
