#!/bin/sh
# Prints the directory of the lab's guest image: root.img, vmlinuz, initrd.img. Builds it where it is not there yet.
#
#   image.sh CACHE_DIR
#
# The image is kept under the hash of this recipe and of what goes into it, and appears whole or not at all. Its user
# never writes to it (QEMU's snapshot=on).
set -eu

lab=$(cd "$(dirname "$0")" && pwd)
cache=$1

stop() {
    echo "image.sh: $*" >&2
    exit 1
}

recipe() {
    cd "$lab"
    find image.sh rootfs -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
}

hash=$(recipe | sha256sum | cut -c1-16)
image=$cache/$hash
[ -d "$image" ] && echo "$image" && exit

[ "$(id -u)" -eq 0 ] || stop "building the guest image needs root (mmdebstrap unpacks packages as root)"
command -v mmdebstrap >/dev/null || stop "mmdebstrap is missing: apt-get install mmdebstrap"
command -v mkfs.ext4 >/dev/null || stop "mkfs.ext4 is missing: apt-get install e2fsprogs"

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[ -d "$image" ] && echo "$image" && exit

# Who holds the lock is the only builder: what lies here was left by one that was killed.
rm -rf "$cache"/building.*
work=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/image"

packages="ca-certificates dbus e2fsprogs fdisk kmod libudev1 linux-image-cloud-amd64 lvm2 mdadm nbd-client systemd
    systemd-sysv udev util-linux"
mmdebstrap --quiet --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --setup-hook="tar -C '$lab/rootfs' --owner=0 --group=0 --mode=u=rwX,go=rX -c . | tar -C \"\$1\" -x" \
    --customize-hook='systemctl --quiet --root="$1" enable lab-agent.service systemd-networkd.service' \
    bookworm "$work/root" >&2

cp "$work"/root/boot/vmlinuz-* "$work/image/vmlinuz"
cp "$work"/root/boot/initrd.img-* "$work/image/initrd.img"
mkfs.ext4 -q -F -L lab -d "$work/root" "$work/image/root.img" 900M >&2
mv "$work/image" "$image"
echo "$image"
