//! The server against Debian 13's libnbd and QEMU, the first that speak with extended headers.

use std::fs;
use std::path::Path;

use super::foreign::run;
use super::{MIB, Place, noise};

/// Runs one of Debian 13's clients by its own loader; unpacks them first where that was not done yet.
async fn trixie(program: &str, arguments: &[&str]) -> String {
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trixie.sh");
    let cache = concat!(env!("CARGO_MANIFEST_DIR"), "/target/trixie");
    let directory = run("sh", "dash", &[recipe, cache]).await;
    let path = |name: &str| Path::new(directory.trim()).join("usr").join(name).to_str().unwrap().to_owned();
    let (libraries, program) = (path("lib/x86_64-linux-gnu"), path(&format!("bin/{program}")));
    let line = [&["--library-path", &libraries, &program], arguments].concat();
    run(&path("lib64/ld-linux-x86-64.so.2"), "mmdebstrap", &line).await
}

#[tokio::test(flavor = "multi_thread")]
async fn debian_13s_clients_speak_with_extended_headers() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: unpacking another release takes root");
        return;
    }
    let place = Place::new().await;
    let export = place.serve("disk", 64 * MIB).await;
    let (source, copy) = (place.path("source"), place.path("copy"));
    let mut data = vec![0; 64 * MIB as usize];
    data[(5 * MIB) as usize..(8 * MIB) as usize].copy_from_slice(&noise(10, 3 * MIB));
    fs::write(&source, &data).unwrap();
    let (source, copy) = (source.to_str().unwrap(), copy.to_str().unwrap());
    for uri in &export.uris {
        let info = trixie("nbdinfo", &[uri]).await;
        assert!(info.contains("using extended packets") && info.contains("base:allocation"), "{info}");
        assert!(trixie("nbdinfo", &["--list", uri]).await.contains("export=\"disk\""));
        trixie("nbdcopy", &["--connections=4", "--flush", source, uri]).await;
        assert!(place.contents("disk") == data, "in, over {uri}");
        let map: serde_json::Value = serde_json::from_str(&trixie("nbdinfo", &["--json", "--map", uri]).await).unwrap();
        let types: Vec<_> = map.as_array().unwrap().iter().map(|extent| extent["type"].as_u64().unwrap()).collect();
        assert_eq!(types, [3, 0, 3]);
        trixie("nbdcopy", &["--connections=4", uri, copy]).await;
        assert!(fs::read(copy).unwrap() == data, "out, over {uri}");

        let compared = trixie("qemu-img", &["compare", "-f", "raw", "-F", "raw", source, uri]).await;
        assert_eq!(compared.trim(), "Images are identical.");
        let map = trixie("qemu-img", &["map", "-f", "raw", "--output=json", uri]).await;
        assert_eq!(map.matches("\"zero\": true").count(), 2, "{map}");
        let commands = [
            "write -P 0xab 1000 70000",
            "write -f -P 0xcd 10M 32M",
            "write -z -u 12M 1M",
            "discard 50M 1M",
            "flush",
            "read -P 0xab 1000 70000",
            "read -P 0xcd 13M 29M",
            "read -P 0 12M 1M",
        ];
        let words: Vec<&str> =
            ["-f", "raw", uri].into_iter().chain(commands.iter().flat_map(|line| ["-c", line])).collect();
        let said = trixie("qemu-io", &words).await;
        assert!(!said.contains("failed"), "{said}");
        trixie("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", source, uri]).await;
        assert!(place.contents("disk") == data, "converted, over {uri}");
    }
}
