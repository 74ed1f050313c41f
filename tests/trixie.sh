#!/bin/sh
# Prints the directory of a small Debian 13: for its NBD clients, the first that know extended headers, which run here with
# that release's own loader and libraries, and for the package to be installed in a copy of it. Made where it is not there yet.
#
#   trixie.sh CACHE_DIR
set -eu

cache=$1

stop() {
    echo "trixie.sh: $*" >&2
    exit 1
}

debian=$cache/$(sha256sum "$0" | cut -c1-16)
[ -d "$debian" ] && echo "$debian" && exit

command -v mmdebstrap >/dev/null || stop "mmdebstrap is missing: apt-get install mmdebstrap"

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[ -d "$debian" ] && echo "$debian" && exit

# Who holds the lock is the only builder: what lies here was left by one that was killed.
rm -rf "$cache"/building.*
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
mmdebstrap --quiet --variant=minbase --include=libnbd-bin,libudev1,qemu-utils,systemd-standalone-sysusers \
    --dpkgopt='path-exclude=/usr/share/doc/*' trixie "$work/root" >&2
mv "$work/root" "$debian"
echo "$debian"
