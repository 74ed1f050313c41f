//! The contract without the spaces that it has for people: the daemon carries it.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src/api/openrpc.json");
    let contract = fs::read_to_string("src/api/openrpc.json")?;
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(Path::new(&out).join("openrpc.json"), compact(&contract))
}

/// JSON without the spaces between its tokens.
fn compact(json: &str) -> String {
    let (mut in_string, mut is_escaped) = (false, false);
    let stays = |character: &char| {
        let stays = in_string || !character.is_whitespace();
        if *character == '"' && !is_escaped {
            in_string = !in_string;
        }
        is_escaped = in_string && *character == '\\' && !is_escaped;
        stays
    };
    json.chars().filter(stays).collect()
}
