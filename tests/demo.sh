#!/usr/bin/env bash
# The main job, as an operator sees it: create, attach, find, export, write and read over NBD, detach, attach again.
# Real binaries in a sandbox: a simulated CloudStack whose hypervisor plugs sparse files in, no cloud, nothing left behind.
set -euo pipefail

bin=$(cd "$(dirname "$0")/.." && pwd)/target/release
TMPDIR=$(mktemp -d)
export TMPDIR

clean_up() {
    if pid=$(cat "$TMPDIR"/volctl-sandbox-*/pid 2>/dev/null); then
        kill "$pid" 2>/dev/null || true
        while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    fi
    rm -rf "$TMPDIR"
}
trap clean_up EXIT

run() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

volctl() { "$bin/volctl" --sandbox "$@"; }

head -c 4M /dev/urandom >"$TMPDIR/written"

echo "volctl stands for: $bin/volctl --sandbox"
run volctl health
run volctl create data1 --size 1G --attach
run volctl device data1
run volctl find "$(volctl device data1)"
run volctl export data1
uri=$(volctl -q show data1)
run nbdcopy "$TMPDIR/written" "$uri"
run volctl exports
run volctl ls
run volctl detach data1
run volctl attach data1 --export --read-only
run nbdcopy "$(volctl -q show data1)" "$TMPDIR/read"
run cmp --bytes=4194304 "$TMPDIR/written" "$TMPDIR/read"
echo 'the bytes that were written are the bytes that were read'
run volctl detach data1
run volctl delete data1 --yes
run volctl ops
