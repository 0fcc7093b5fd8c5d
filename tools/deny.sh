#!/bin/sh
# Bans, licences and sources of the dependencies. Advisories need a network that CI may not have.
set -eu

if cargo tree --workspace -i ring 2>/dev/null | grep -q .; then
    echo "ring is in the dependency tree: cargo tree -i ring" >&2
    exit 1
fi
command -v cargo-deny >/dev/null 2>&1 || cargo install --locked --quiet cargo-deny
cargo deny --log-level error check bans licenses sources
