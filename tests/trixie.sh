#!/bin/sh
# Prints the directory of Debian 13's NBD clients, the first that know extended headers. Unpacks them where they are not
# there yet. They are not installed: they run here, with that release's own loader and libraries.
#
#   trixie.sh CACHE_DIR
set -eu

cache=$1

stop() {
    echo "trixie.sh: $*" >&2
    exit 1
}

clients=$cache/$(sha256sum "$0" | cut -c1-16)
[ -d "$clients" ] && echo "$clients" && exit

command -v mmdebstrap >/dev/null || stop "mmdebstrap is missing: apt-get install mmdebstrap"

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[ -d "$clients" ] && echo "$clients" && exit

# Who holds the lock is the only builder: what lies here was left by one that was killed.
rm -rf "$cache"/building.*
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
mmdebstrap --quiet --variant=extract --include=libnbd-bin,qemu-utils \
    --dpkgopt='path-exclude=/usr/share/doc/*' trixie "$work/root" >&2
mv "$work/root" "$clients"
echo "$clients"
