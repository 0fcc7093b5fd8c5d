#!/bin/sh
# Prints the path of a Python with gRPC and WebSocket for the layer-7 tests: $L7_PYTHON, or one made under target/.
set -eu

good() { [ -x "$1" ] && "$1" -c 'import grpc, websockets.asyncio.client' >/dev/null 2>&1; }

python="$PWD/target/l7-python/bin/python3"
for candidate in "${L7_PYTHON:-}" "$python"; do
    if good "$candidate"; then echo "$candidate"; exit 0; fi
done
mkdir -p target
exec 9>target/l7-python.lock
flock 9 # Tests ask at the same time.
if ! good "$python"; then
    echo "getting gRPC and WebSocket for Python" >&2
    python3 -m venv --clear target/l7-python >&2
    target/l7-python/bin/pip install --quiet grpcio websockets >&2
    good "$python" || { echo "the fetched packages do not load" >&2; exit 1; }
fi
echo "$python"
