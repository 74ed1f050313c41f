//! What the database's file was when it was closed in order: a file that nobody has written to since need not be read
//! through at the next start, which for a large one would take longer than all the rest.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::open::beside;

/// Where it stands, beside the database.
const SUFFIX: &str = "-seal";

/// Seals a database that is whole: its write-ahead log is in it, and nobody writes any more.
pub(super) fn seal(database: &Path) -> io::Result<()> {
    fs::write(beside(database, SUFFIX), identity(database)?)
}

/// Whether it is the very file that was sealed.
pub(super) fn is_sealed(database: &Path) -> bool {
    let sealed = fs::read_to_string(beside(database, SUFFIX));
    sealed.is_ok_and(|sealed| identity(database).is_ok_and(|identity| sealed == identity))
}

/// Another one after each change: the kernel sets the last of these, and nobody can set it back.
fn identity(file: &Path) -> io::Result<String> {
    let found = fs::metadata(file)?;
    let (device, inode, size) = (found.dev(), found.ino(), found.size());
    Ok(format!("{device} {inode} {size} {}.{:09}\n", found.ctime(), found.ctime_nsec()))
}
