//! The package in Debian 13, without systemd: installed in a chroot, and used there through the sandbox.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::image;
use crate::tool::{run, tool};

/// A copy of a small Debian 13.
struct Chroot {
    root: PathBuf,
    _directory: tempfile::TempDir,
}

impl Chroot {
    fn new() -> Self {
        let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trixie.sh");
        let cache = concat!(env!("CARGO_MANIFEST_DIR"), "/target/trixie");
        let debian = run(tool("sh", "dash").args([recipe, cache]));
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        run(tool("cp", "coreutils").args(["--archive", "--reflink=auto", &debian]).arg(&root));
        Self { root, _directory: directory }
    }

    fn add(&self, file: &Path, directory: &str) {
        std::fs::copy(file, self.root.join(directory).join(file.file_name().unwrap())).unwrap();
    }

    /// Runs a command line in it; what that leaves behind ends with it.
    fn ok(&self, command: &str) -> String {
        let mut unshare: Command = tool("unshare", "util-linux");
        unshare.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            &format!("--mount-proc={}/proc", self.root.display()),
        ]);
        run(unshare.arg("chroot").arg(&self.root).args(["sh", "-c", command]).env("TMPDIR", "/tmp"))
    }
}

#[test]
fn debian_13() {
    let chroot = Chroot::new();
    let package = image::package();
    chroot.add(&package, "root");
    chroot.add(Path::new(env!("CARGO_BIN_EXE_cloudstack-simulator")), "usr/bin");
    chroot.ok("dpkg --install /root/volctl_*.deb && rm /root/volctl_*.deb");
    assert_eq!(chroot.ok("stat --format %a /etc/volctl/config.toml"), "644");
    let said = chroot
        .ok("volctl --sandbox -q create data1 --size 1G --export >/root/uri && nbdinfo --size $(cat /root/uri) && \
         volctl --sandbox detach data1");
    assert!(said.starts_with("1073741824\n") && said.contains("detached"), "{said}");
    chroot.ok("dpkg --purge volctl && test ! -e /etc/volctl");
}
