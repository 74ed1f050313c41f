//! `completions/` and `man/` are what the clap definition says. `UPDATE_GENERATED=1` writes them anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap_complete::Shell;

/// The files of a folder by name.
type Files = BTreeMap<String, Vec<u8>>;

#[test]
fn completions_are_up_to_date() {
    compare("completions", |folder| {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut volctl::cli::definition(), "volctl", folder).unwrap();
        }
    });
}

#[test]
fn man_pages_are_up_to_date() {
    compare("man", |folder| clap_mangen::generate_to(volctl::cli::definition(), folder).unwrap());
}

fn compare(name: &str, generate: impl Fn(&Path)) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::remove_dir_all(&folder).ok();
        fs::create_dir(&folder).unwrap();
        generate(&folder);
    }
    let expected = tempfile::tempdir().unwrap();
    generate(expected.path());
    let (expected, found) = (files(expected.path()), files(&folder));
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected), "{name}/: run the tests with UPDATE_GENERATED=1");
    for (file, content) in &expected {
        assert!(found[file] == *content, "{name}/{file} has drifted: run the tests with UPDATE_GENERATED=1");
    }
}

fn files(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}
