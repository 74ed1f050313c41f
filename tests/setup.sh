#!/bin/sh
# Installs the packages that a level needs on a Debian or Ubuntu machine; asks nothing of apt where they are all there.
#
#   setup.sh build|demo|test|fuzz|bench|packages
set -eu

build="gcc libc6-dev pkg-config libudev-dev"
demo="$build libnbd-bin"
packages="$build binutils cpio debhelper dpkg-dev lintian rpm rpmlint"
test="$packages debian-archive-keyring e2fsprogs faketime fio fish groff-base iproute2 libnbd-bin mmdebstrap nbd-client
    nbdkit prometheus python3-libnbd python3-prometheus-client qemu-system-x86 qemu-utils socat systemd zsh"
fuzz="$build g++"
bench="$test coreutils nbd-server python3 strace valgrind"

stop() {
    echo "setup.sh: $*" >&2
    exit 1
}

case ${1-} in
build) wanted=$build ;;
demo) wanted=$demo ;;
test) wanted=$test ;;
fuzz) wanted=$fuzz ;;
bench) wanted=$bench ;;
packages) wanted=$packages ;;
*) stop "say which level: build, demo, test, fuzz, bench or packages" ;;
esac

command -v cargo >/dev/null || stop "cargo is not in the PATH: install a Rust toolchain, see https://rustup.rs"
if ! command -v dpkg-query >/dev/null; then
    echo "setup.sh: neither Debian nor Ubuntu; going on as if these were installed: $wanted" >&2
    exit
fi

missing=
for package in $wanted; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || stop "these packages are missing, and without sudo only root can install them:$missing"
    as_root=sudo
fi

apt_get() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@"
}

# shellcheck disable=SC2086 # a list of package names
install_missing() {
    apt_get install -y --no-install-recommends --no-remove "$@" $missing
}

echo "setup.sh: installing$missing" >&2
# A third party's list that can't be fetched is no reason to stop: whether the packages are there, the install says.
apt_get update || true
# Beside a backported qemu-utils, the release's qemu-system-x86 goes in only together with the release's qemu-utils.
install_missing ||
    install_missing --allow-downgrades "qemu-utils=$(apt-cache madison qemu-utils | awk 'NR == 1 { print $3 }')" ||
    stop "apt-get could not install:$missing"
