//! The server against clients that others wrote: libnbd's, QEMU's, and fio.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Output};

use super::{MIB, Place, noise};
use crate::nbd::protocol::command;
use crate::nbd::{Clients, ExportSpec};

/// Runs a client, which must succeed; what it printed comes back.
pub async fn run(program: &str, package: &str, arguments: &[&str]) -> String {
    let output = output(program, package, arguments).await;
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{complaint}{said}", output.status);
    said
}

async fn output(program: &str, package: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    output.unwrap_or_else(|error| panic!("this test needs {program}: apt-get install {package} ({error})"))
}

async fn nbdinfo(arguments: &[&str]) -> String {
    run("nbdinfo", "libnbd-bin", arguments).await
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdinfo_sees_what_is_served() {
    let place = Place::new().await;
    let odd = ExportSpec { name: "a b/ü?".to_owned(), read_only: true, ..place.device("odd", MIB) };
    let exports = [place.serve("disk", 5 * MIB).await, place.server.add(odd).await.unwrap()];
    for (export, size) in exports.iter().zip([5 * MIB, MIB]) {
        for uri in &export.uris {
            let info: serde_json::Value = serde_json::from_str(&nbdinfo(&["--json", uri]).await).unwrap();
            assert_eq!(info["protocol"], "newstyle-fixed");
            assert_eq!(info["structured"], true);
            let shown = &info["exports"][0];
            assert_eq!(shown["export-name"], export.name.as_str());
            assert_eq!(shown["export-size"], size);
            assert_eq!(shown["is_read_only"], export.read_only);
            assert_eq!(shown["can_multi_conn"], true);
            assert_eq!(shown["can_flush"], true);
            assert_eq!(shown["can_fua"], true);
            assert_eq!(shown["can_trim"], !export.read_only);
            assert_eq!(shown["can_zero"], !export.read_only);
            assert_eq!(shown["can_df"], true);
            assert_eq!(shown["can_cache"], true);
            assert_eq!(shown["can_fast_zero"], !export.read_only);
            assert_eq!(shown["contexts"], serde_json::json!(["base:allocation"]));
            assert_eq!(shown["block_size_minimum"], 1);
            assert_eq!(shown["block_size_preferred"], 4096);
            assert_eq!(shown["block_size_maximum"], 32 * MIB);
        }
    }
    let list: serde_json::Value =
        serde_json::from_str(&nbdinfo(&["--json", "--list", &exports[0].uris[0]]).await).unwrap();
    let names: Vec<_> = list["exports"].as_array().unwrap().iter().map(|export| &export["export-name"]).collect();
    assert_eq!(names, ["a b/ü?", "disk"]);
    let nothing = output("nbdinfo", "libnbd-bin", &[&exports[0].uris[0].replace("disk", "disc")]).await;
    assert!(!nothing.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_of_libnbd_and_qemu_show_holes_and_data() {
    let place = Place::new().await;
    let export = place.serve("disk", 8 * MIB).await;
    let written = "write -P 0xab 2M 1M";
    for uri in &export.uris {
        run("qemu-io", "qemu-utils", &["-f", "raw", uri, "-c", written]).await;
        let map: serde_json::Value = serde_json::from_str(&nbdinfo(&["--json", "--map", uri]).await).unwrap();
        let extents = map.as_array().unwrap().iter().map(|extent| (&extent["offset"], &extent["type"]));
        let found: Vec<_> = extents.map(|(offset, kind)| (offset.as_u64().unwrap() / MIB, kind.as_u64())).collect();
        assert_eq!(found, [(0, Some(3)), (2, Some(0)), (3, Some(3))]);
        let map = run("qemu-img", "qemu-utils", &["map", "-f", "raw", "--output=json", uri]).await;
        let map: serde_json::Value = serde_json::from_str(&map).unwrap();
        let found: Vec<_> = map.as_array().unwrap().iter().map(|extent| extent["zero"].as_bool().unwrap()).collect();
        assert_eq!(found, [true, false, true]);
        for can in ["read", "write", "trim", "zero", "fast-zero", "df", "fua", "flush", "multi-conn", "cache"] {
            nbdinfo(&["--can", can, uri]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn libnbd_sends_the_edge_cases_of_each_request() {
    let place = Place::new().await;
    let export = place.serve("disk", 4 * MIB).await;
    for uri in &export.uris {
        // Debian's python, whichever else comes first in the PATH.
        run("/usr/bin/python3", "python3-libnbd", &["-c", include_str!("edges.py"), uri]).await;
        fs::File::options().write(true).truncate(true).open(place.path("disk")).unwrap().set_len(4 * MIB).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_copy_stays_sparse() {
    let place = Place::new().await;
    let size = 256 * MIB;
    let export = place.serve("disk", size).await;
    let source = place.path("source");
    let file = fs::File::create(&source).unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(&noise(9, 3 * MIB), 77 * MIB).unwrap();
    let copy = place.path("copy");
    let allocated = |name: &str| fs::metadata(place.path(name)).unwrap().blocks() * 512;
    run("nbdcopy", "libnbd-bin", &["--flush", text(&source), &export.uris[0]]).await;
    run("nbdcopy", "libnbd-bin", &[&export.uris[1], text(&copy)]).await;
    for name in ["disk", "copy"] {
        assert!(place.contents(name) == place.contents("source"), "{name}");
        assert!(allocated(name) < 16 * MIB, "{name}: {} bytes are allocated", allocated(name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nbdcopy_copies_in_and_out() {
    let place = Place::new().await;
    let size = 96 * MIB;
    let export = place.serve("disk", size).await;
    let mut data = noise(4, size);
    data[10 * MIB as usize..40 * MIB as usize].fill(0);
    let (source, copy) = (place.path("source"), place.path("copy"));
    fs::write(&source, &data).unwrap();
    for uri in &export.uris {
        for connections in ["--connections=1", "--connections=4"] {
            run("nbdcopy", "libnbd-bin", &[connections, "--flush", text(&source), uri]).await;
            assert!(place.contents("disk") == data, "in, {connections}, {uri}");
            run("nbdcopy", "libnbd-bin", &[connections, uri, text(&copy)]).await;
            assert!(fs::read(&copy).unwrap() == data, "out, {connections}, {uri}");
        }
    }
    assert!(place.idle("disk").await);
    place.server.remove("disk", Clients::MustBeGone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_converts_compares_and_checks() {
    let place = Place::new().await;
    let export = place.serve("disk", 64 * MIB).await;
    let source = place.path("source");
    let mut data = noise(5, 64 * MIB);
    data[MIB as usize..9 * MIB as usize].fill(0);
    fs::write(&source, &data).unwrap();
    for uri in &export.uris {
        run("qemu-img", "qemu-utils", &["convert", "-n", "-f", "raw", "-O", "raw", text(&source), uri]).await;
        let compare = ["compare", "-f", "raw", "-F", "raw", text(&source), uri];
        assert_eq!(run("qemu-img", "qemu-utils", &compare).await.trim(), "Images are identical.");
        let commands = [
            "-f",
            "raw",
            uri,
            "-c",
            "write -P 0xab 1000 70000",
            "-c",
            "write -f -P 0xcd 2M 32M",
            "-c",
            "write -z 3M 1M",
            "-c",
            "write -z -u 40M 8M",
            "-c",
            "discard 50M 1M",
            "-c",
            "flush",
            "-c",
            "read -P 0xab 1000 70000",
            "-c",
            "read -P 0xcd 4M 30M",
            "-c",
            "read -P 0 3M 1M",
            "-c",
            "read -P 0 40M 8M",
        ];
        let said = run("qemu-io", "qemu-utils", &commands).await;
        assert!(!said.contains("failed"), "{said}");
    }
    let read_only = place.serve_read_only("ro", MIB).await;
    let said = output("qemu-io", "qemu-utils", &["-f", "raw", &read_only.uris[0], "-c", "write 0 512"]).await;
    assert!(!said.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn fio_verifies_what_it_wrote() {
    let place = Place::new().await;
    let export = place.serve("disk", 64 * MIB).await;
    for uri in &export.uris {
        let uri = format!("--uri={uri}");
        let arguments = [
            "--name=verify",
            "--ioengine=nbd",
            &uri,
            "--rw=randrw",
            "--size=64M",
            "--io_size=32M",
            "--bsrange=512-256k",
            "--iodepth=32",
            "--fsync=64",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_state_save=0",
        ];
        run("fio", "fio", &arguments).await;
    }
}

/// A loop device, let go at the end of the test.
struct LoopDevice(String);

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detached = Command::new("losetup").args(["-d", &self.0]).status();
        assert!(detached.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_device_is_served_trimmed_and_zeroed() {
    block_device(Place::new().await, [512, 4096]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_device_is_served_past_the_page_cache() {
    block_device(Place::direct().await, [512, 512]).await;
}

async fn block_device(place: Place, block_sizes: [u64; 2]) {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("not run: a loop device takes root and the kernel's loop driver");
        return;
    }
    let backing = place.path("backing");
    let data = noise(6, 32 * MIB);
    fs::write(&backing, &data).unwrap();
    let device = run("losetup", "mount", &["--find", "--show", text(&backing)]).await.trim().to_owned();
    let device = LoopDevice(device);
    let file = fs::File::options().read(true).write(true).open(&device.0).unwrap();
    let spec = ExportSpec { file, size_bytes: 32 * MIB, ..place.device("disk", 0) };
    let export = place.server.add(spec).await.unwrap();
    let info: serde_json::Value = serde_json::from_str(&nbdinfo(&["--json", &export.uris[1]]).await).unwrap();
    let sizes = ["block_size_minimum", "block_size_preferred"].map(|size| info["exports"][0][size].as_u64().unwrap());
    assert_eq!(sizes, block_sizes);
    let map: serde_json::Value = serde_json::from_str(&nbdinfo(&["--json", "--map", &export.uris[1]]).await).unwrap();
    let allocated = serde_json::json!([{"offset": 0, "length": 32 * MIB, "type": 0, "description": "data"}]);
    assert_eq!(map, allocated, "a device does not tell what is a hole");
    let mut careful = place.connect();
    careful.go_with_block_sizes("disk");
    let mut careless = place.connect();
    careless.go("disk");
    for command in [command::READ, command::WRITE_ZEROES] {
        assert_eq!(careful.answer(0, command, 512, 513, &[]).error, 22);
        assert_eq!(careless.answer(0, command, 512, 513, &[]).error, 0);
    }
    assert_eq!(careless.answer(0, command::WRITE, 512, 513, &data[512..1025]).error, 0);
    drop((careful, careless));

    let commands = [
        "-f",
        "raw",
        &export.uris[1],
        "-c",
        "write -z 1000 3000000",
        "-c",
        "write -z -u 8M 1M",
        "-c",
        "write -P 0xab 10M 100",
        "-c",
        "discard 16M 1000000",
        "-c",
        "write -z 20M 100",
        "-c",
        "flush",
    ];
    let said = run("qemu-io", "qemu-utils", &commands).await;
    assert!(!said.contains("failed"), "{said}");
    assert!(place.idle("disk").await);
    let removed = place.server.remove("disk", Clients::MustBeGone).await.unwrap();
    drop((removed, device));

    let mut expected = data;
    let range = |start: usize, length: usize| start..start + length;
    let mib = MIB as usize;
    expected[range(1000, 3_000_000)].fill(0);
    expected[range(8 * mib, mib)].fill(0);
    expected[range(10 * mib, 100)].fill(0xab);
    expected[range(20 * mib, 100)].fill(0);
    let found = fs::read(&backing).unwrap();
    for (start, length) in [(0, 16 * mib), (17 * mib, 15 * mib)] {
        assert!(found[range(start, length)] == expected[range(start, length)], "{length} bytes at {start}");
    }
    assert!(found[range(16 * mib + 4096, 512 << 10)].iter().all(|byte| *byte == 0), "nothing was discarded");
}
