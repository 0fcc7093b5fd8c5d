#!/bin/sh
# Installs what is missing of the system packages that building and testing need. Quiet when all is there.
set -eu

missing=""
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need cc gcc
need g++ g++
need make make
need nft nftables
need ip iproute2
need setpriv util-linux
need python3 python3
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$missing python3-venv"
need curl curl
need nghttp nghttp2-client
need wrk wrk
need nginx nginx-light
need openssl openssl
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"

[ -z "$missing" ] && exit 0
echo "installing:$missing"
as_root=""
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "missing packages:$missing. Install them as root: apt-get install$missing" >&2; exit 1; }
    as_root=sudo
fi
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
