#!/bin/sh
# Makes the .deb and the .rpm of the binaries in target/release, checks them, and puts them into target/packages/.
#
#   build-packages.sh               the version is VERSION.txt's
#   build-packages.sh VERSION       the .deb only, with another version, to try an upgrade to
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
version=${1-$(cat "$here/VERSION.txt")}
out=$here/target/packages
work=$out/work

stop() {
    echo "build-packages.sh: $*" >&2
    exit 1
}

for program in volctl volctld; do
    [ -x "$here/target/release/$program" ] || stop "target/release/$program is missing: run \`make build\` first"
done
for tool in cpio dh dpkg-buildpackage lintian objdump rpmbuild rpmlint; do
    command -v "$tool" >/dev/null || stop "$tool is missing: run tests/setup.sh packages"
done

# The oldest systems that they are for: Debian 12 (glibc 2.36), and with it Debian 13 and Ubuntu 24.04 (2.39).
newest=$(objdump -T "$here/target/release/volctl" "$here/target/release/volctld" |
    grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
[ "$(printf 'GLIBC_2.36\n%s\n' "$newest" | sort -V | tail -n 1)" = GLIBC_2.36 ] ||
    stop "the binaries need $newest, and Debian 12 has GLIBC_2.36: build them there"

# The same files again give the same packages.
SOURCE_DATE_EPOCH=$(git -C "$here" log -1 --format=%ct 2>/dev/null || stat -c %Y "$here/VERSION.txt")
export SOURCE_DATE_EPOCH

rm -rf "$work"
mkdir -p "$work/volctl/bin"
cp "$here/target/release/volctl" "$here/target/release/volctld" "$work/volctl/bin"
cp -r "$here/packaging" "$here/man" "$here/completions" "$here/LICENSE" "$here/README.md" "$work/volctl"

deb() {
    tree=$work/volctl
    cp -r "$here/packaging/deb" "$tree/debian"
    mkdir -p "$tree/debian/source"
    echo "3.0 (native)" >"$tree/debian/source/format"
    install -D -m 0644 "$tree/completions/volctl.bash" "$tree/bash/volctl"
    cp "$tree/packaging/volctl.sysusers" "$tree/debian/volctl.sysusers"
    cp "$tree/packaging/volctl.tmpfiles" "$tree/debian/volctl.tmpfiles"
    cat >"$tree/debian/changelog" <<CHANGELOG
volctl ($version) unstable; urgency=medium

  * Release $version.

 -- The volctl developers <maintainers@volctl.invalid>  $(date -R -u -d "@$SOURCE_DATE_EPOCH")
CHANGELOG
    (cd "$tree" && dpkg-buildpackage -b -uc -us --no-check-builddeps >"$work/deb.log" 2>&1) ||
        { cat "$work/deb.log" >&2; stop "the .deb could not be built"; }
    mv "$work"/volctl_*.deb "$out"
    rm -rf "$tree/debian"
}

rpm() {
    rpmbuild -bb --quiet --define "_topdir $work/rpm" --define "volctl_version $version" \
        --define "volctl_date $(LC_ALL=C date -u -d "@$SOURCE_DATE_EPOCH" '+%a %b %d %Y')" \
        --define "volctl_tree $work/volctl" "$here/packaging/rpm/volctl.spec" >"$work/rpm.log" 2>&1 ||
        { cat "$work/rpm.log" >&2; stop "the .rpm could not be built"; }
    mv "$work"/rpm/RPMS/*/volctl-*.rpm "$out"
}

# What the .rpm would put on a machine: both programs run, and have their manual pages.
unpack_rpm() {
    mkdir "$work/unpacked"
    (cd "$work/unpacked" && rpm2cpio "$out/volctl-$version"-*.rpm | cpio --extract --make-directories --quiet)
    for page in volctl.1 volctld.8; do
        program=$work/unpacked/usr/bin/${page%.*}
        "$program" --version | grep -qF "$version" || stop "the .rpm's $program does not run as $version"
        [ -f "$work/unpacked/usr/share/man/man${page#*.}/$page.gz" ] || stop "the .rpm lacks the page $page"
    done
}

deb
lintian --fail-on error "$out/volctl_$version"_*.deb
if [ "$#" -eq 0 ]; then
    rpm
    rpmlint --config "$here/packaging/rpm/rpmlint.toml" "$out/volctl-$version"-*.rpm
    unpack_rpm
fi
rm -rf "$work"
