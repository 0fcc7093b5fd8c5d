#!/bin/sh
# Every test. Journeys in the sandbox run with $1 at a time, all others as many as there are cores.
set -eu

PATH="$PATH:/usr/sbin:/sbin"
KUBECTL=$(tools/kubectl.sh)
export PATH KUBECTL
cargo test --workspace --exclude e2e
cargo test -p e2e -- --test-threads="${1:-1}"
