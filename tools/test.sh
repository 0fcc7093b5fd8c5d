#!/bin/sh
# Every test. Journeys in the sandbox run with $1 at a time, all others as many as there are cores.
set -eu

PATH="$PATH:/usr/sbin:/sbin"
KUBECTL=$(tools/kubectl.sh)
# A run must not fail by luck: the same cases each time. `make soak` draws new ones.
PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED-3}
export PATH KUBECTL PROPTEST_RNG_SEED
cargo test --workspace --exclude e2e
cargo test -p e2e -- --test-threads="${1:-1}"
