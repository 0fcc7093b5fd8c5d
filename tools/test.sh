#!/bin/sh
# Every test. Journeys in the sandbox run with $1 at a time; conformance tests mostly wait, so more of them than there are
# cores; all others as many as there are cores.
set -eu

PATH="$PATH:/usr/sbin:/sbin"
KUBECTL=$(tools/kubectl.sh)
# A run must not fail by luck: the same cases each time.
PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED-3}
export PATH KUBECTL PROPTEST_RNG_SEED
cargo test --workspace --exclude e2e --exclude conformance --exclude hostile --exclude soak --exclude faults --exclude l7
cargo test -p conformance -- --test-threads=6
cargo test -p faults -- --test-threads=2
cargo test -p l7 -- --test-threads=2
cargo test -p hostile -p soak -- --test-threads=1
cargo test -p e2e -- --test-threads="${1:-1}"
