//! The house of the design: imports go down only, and the rooms of one row do not know each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rows, lowest first. A room may use the rooms of lower rows.
const ROWS: &[&[&str]] = &[
    &["model", "error", "config", "blocking"],
    &["api", "rpc", "systemd"],
    &["store", "cloudstack", "device", "nbd"],
    &["operation"],
    &["cli", "daemon"],
];

/// `model` and `error` know each other, and `config` knows both: the words of all rooms.
const WORDS: &[&str] = &["model", "error", "config"];

/// What the command line may know: nothing of what the daemon is made of.
const CLI: &[&str] = &["api", "rpc", "config", "model", "error"];

fn row(room: &str) -> usize {
    ROWS.iter().position(|row| row.contains(&room)).unwrap_or_else(|| panic!("{room} has no row in the house"))
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The rooms that a source names as `crate::ROOM`, or in a group `use crate::{...}`.
fn rooms_named(source: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in source.match_indices("crate::") {
        let rest = &source[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or_default(),
            None => rest,
        };
        let first_words = if names.len() == rest.len() { vec![names] } else { names.split(',').collect() };
        for name in first_words {
            let word: String = name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if ROWS.iter().flat_map(|row| row.iter()).any(|room| *room == word) {
                rooms.insert(word);
            }
        }
    }
    rooms
}

fn allowed(room: &str, other: &str) -> bool {
    match room {
        _ if room == other => true,
        "cli" => CLI.contains(&other),
        _ => row(other) < row(room) || (WORDS.contains(&room) && WORDS.contains(&other)),
    }
}

#[test]
fn imports_go_down_only() {
    let source_root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for file in sources(&source_root) {
        let inside = file.strip_prefix(&source_root).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let room = first.trim_end_matches(".rs");
        if ["lib", "bin"].contains(&room) {
            continue;
        }
        looked_at += 1;
        for other in rooms_named(&fs::read_to_string(&file).unwrap()) {
            if !allowed(room, &other) {
                wrong.push(format!("{} uses {other}", inside.display()));
            }
        }
    }
    assert!(looked_at > 20, "only {looked_at} files were found");
    assert!(wrong.is_empty(), "imports that do not go down:\n{}", wrong.join("\n"));
}

#[test]
fn the_rule_would_notice() {
    assert!(allowed("operation", "store") && allowed("cli", "api"));
    assert!(!allowed("store", "nbd") && !allowed("nbd", "operation") && !allowed("cli", "store"));
    assert_eq!(
        rooms_named("use crate::{api, nbd::Server};\ncrate::store::Store"),
        rooms_named("crate::api crate::nbd crate::store")
    );
}

#[test]
fn the_version_is_written_once() {
    let version = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("VERSION.txt")).unwrap();
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"), "VERSION.txt and Cargo.toml differ");
}
