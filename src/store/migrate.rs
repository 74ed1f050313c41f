//! Bringing a database up to date, with a copy of it as it was kept beside it for whoever has to go back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::open::{APPLICATION_ID, beside, remove};
use super::sql;
use crate::error::{Error, Kind, Result};
use crate::model::printable;

/// Migration N brings a database from version N-1 to N. Released ones are never edited.
pub(super) const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_initial.sql")];
/// What they end at.
pub(super) const NEWEST: i32 = MIGRATIONS.len() as i32;

/// Runs the migrations that a database of this version has not seen, all or none.
pub(super) fn migrate(connection: &mut Connection, version: i32, migrations: &[&str]) -> Result<()> {
    let transaction = connection.transaction().map_err(sql)?;
    for (migration, number) in migrations.iter().zip(1..).skip_while(|(_, number)| *number <= version) {
        transaction.execute_batch(migration).map_err(sql)?;
        transaction.pragma_update(None, "user_version", number).map_err(sql)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(sql)?;
    transaction.commit().map_err(sql)
}

/// The same for a database that has been in use: it is copied first.
pub(super) fn upgrade(connection: &mut Connection, path: &Path, version: i32, migrations: &[&str]) -> Result<()> {
    let copy = copy_of(path, version);
    keep(connection, path, &copy).map_err(|error| {
        Error::new(
            Kind::Store,
            format!(
                "{} has to be brought up to date, and could not be copied to {} before: {error}",
                path.display(),
                copy.display()
            ),
        )
        .hint("look for room and rights in the state directory; nothing was changed in the database")
    })?;
    migrate(connection, version, migrations)?;
    tracing::warn!(copy = %copy.display(), "the state store was brought up to date; it is kept as it was");
    Ok(())
}

/// The copy appears whole or not at all, for the same user as the database.
fn keep(connection: &Connection, path: &Path, copy: &Path) -> io::Result<()> {
    let draft = beside(copy, ".new");
    remove(&draft)?;
    let image = connection.serialize(rusqlite::MAIN_DB).map_err(io::Error::other)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(&image)?;
    let original = fs::metadata(path)?;
    // Root's daemon on another user's store; under the unit nothing may be given away.
    if file.metadata()?.uid() != original.uid() {
        fchown(&file, Some(original.uid()), Some(original.gid()))?;
    }
    file.sync_all()?;
    fs::rename(&draft, copy)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn copy_of(path: &Path, version: i32) -> PathBuf {
    beside(path, &format!(".v{version}"))
}

/// The refusal of a database that a newer volctld has written, with the way back.
pub(super) fn newer(path: &Path, version: i32) -> Error {
    let said =
        format!("{} was written by a newer volctld (version {version}; this one reads up to {NEWEST})", path.display());
    let copy = (1..=NEWEST).rev().map(|version| copy_of(path, version)).find(|copy| copy.exists());
    let Some(copy) = copy else {
        return Error::new(Kind::Store, format!("{said}, and no copy from before lies beside it"))
            .hint("install the newer package again; nothing was changed in it");
    };
    let quoted = |path: &Path| format!("'{}'", printable(&path.display().to_string()).replace('\'', r"'\''"));
    let (database, aside) = (quoted(path), quoted(&copy_of(path, version)));
    let (log, index) = (quoted(&beside(path, "-wal")), quoted(&beside(path, "-shm")));
    Error::new(Kind::Store, format!("{said}; as it was before, it is kept in {}", copy.display())).hint(format!(
        "install the newer package again; or go back, without what was done since: mv {database} {aside} && \
         rm -f {log} {index} && cp -p {} {database}",
        quoted(&copy)
    ))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rusqlite::OpenFlags;

    use super::super::Store;
    use super::*;

    fn version(path: &Path) -> i32 {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    /// A store as a volctld with one migration more leaves it.
    fn upgraded() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        Store::open(directory.path()).unwrap().set_meta("kept", "yes").unwrap();
        let path = directory.path().join("volctl.db");
        let mut connection = Connection::open(&path).unwrap();
        upgrade(&mut connection, &path, NEWEST, &[MIGRATIONS[0], "CREATE TABLE next (a ANY) STRICT"]).unwrap();
        connection.execute("DELETE FROM meta WHERE key = 'kept'", []).unwrap();
        (directory, path)
    }

    #[test]
    fn a_migration_keeps_the_store_as_it_was() {
        let (_directory, path) = upgraded();
        assert_eq!((version(&path), version(&copy_of(&path, NEWEST))), (NEWEST + 1, NEWEST));
        assert_eq!(fs::metadata(copy_of(&path, NEWEST)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_command_that_a_newer_store_is_refused_with_leads_back() {
        let (directory, path) = upgraded();
        let error = Store::open(directory.path()).err().unwrap();
        assert!(error.message.contains(&copy_of(&path, NEWEST).display().to_string()), "{error}");
        let hint = error.hint.unwrap();
        let (_, command) = hint.split_once("done since: ").unwrap();
        assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.meta("kept").unwrap().as_deref(), Some("yes"));
        assert_eq!(version(&copy_of(&path, NEWEST + 1)), NEWEST + 1, "the newer one is kept too");
    }

    #[test]
    fn what_cannot_be_copied_is_not_migrated() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let path = directory.path().join("volctl.db");
        fs::create_dir(copy_of(&path, NEWEST)).unwrap();
        let mut connection = Connection::open(&path).unwrap();
        let error = upgrade(&mut connection, &path, NEWEST, &[MIGRATIONS[0], "CREATE TABLE next (a ANY) STRICT"]);
        assert!(error.err().unwrap().message.contains("could not be copied"));
        assert_eq!(version(&path), NEWEST);
    }
}
