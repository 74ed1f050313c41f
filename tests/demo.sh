#!/usr/bin/env bash
# The main job, as an operator sees it: create, attach, find, export, write and read over NBD, detach, attach again.
# Real binaries, a simulated CloudStack whose hypervisor plugs sparse files in, no cloud, nothing left behind.
set -euo pipefail

bin=$(cd "$(dirname "$0")/.." && pwd)/target/release
work=$(mktemp -d)
appliance=a0000000-0000-4000-8000-000000000001
simulator="" daemon=""

clean_up() {
    for process in $daemon $simulator; do
        kill "$process" 2>/dev/null && wait "$process" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap clean_up EXIT

# Waits until a command succeeds, for ten seconds at most.
until_true() {
    local end=$((SECONDS + 10))
    until "$@" 2>/dev/null; do
        [ "$SECONDS" -lt "$end" ] || { echo "demo: gave up waiting for: $*" >&2; exit 1; }
        sleep 0.05
    done
}

run() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

"$bin/examples/cloudstack-simulator" --listen 127.0.0.1:0 --this-vm "$appliance" --devices "$work/by-id" >"$work/endpoint" 2>"$work/simulator.log" &
simulator=$!
until_true test -s "$work/endpoint"

cat >"$work/config.toml" <<CONFIG
[cloudstack]
endpoint = "$(head -n 1 "$work/endpoint")"
api_key = "simulator-key"
secret_key = "simulator-secret"
vm_id = "$appliance"

[device]
by_id_dir = "$work/by-id"

[nbd]
unix_socket = "$work/nbd.sock"
CONFIG
chmod 600 "$work/config.toml"

export VOLCTL_SOCKET=$work/volctld.sock
"$bin/volctld" --config "$work/config.toml" --state-dir "$work/state" 2>"$work/volctld.log" &
daemon=$!
until_true test -S "$VOLCTL_SOCKET"
volctl() { "$bin/volctl" "$@"; }

head -c 4M /dev/urandom >"$work/written"

echo "A simulated CloudStack and a volctld of its own run in $work."
run volctl health
run volctl create data1 --size 1G --attach
run volctl device data1
run volctl find "$(volctl device data1)"
run volctl export data1
uri=$(volctl -q show data1)
run nbdcopy "$work/written" "$uri"
run volctl exports
run volctl ls
run volctl detach data1
run volctl attach data1 --export --read-only
run nbdcopy "$(volctl -q show data1)" "$work/read"
run cmp --bytes=4194304 "$work/written" "$work/read"
echo 'the bytes that were written are the bytes that were read'
run volctl detach data1
run volctl delete data1 --yes
run volctl ops
