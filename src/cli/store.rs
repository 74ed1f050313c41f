//! `volctl store`: what can be done with the state store.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::answer::Answer;
use super::render::{Output, Page};
use super::session::{Request, Session};
use crate::api::{BackedUp, StoreBackup, method};
use crate::error::{Error, Kind};
use crate::model::{format_size, printable};

/// Look after the state store
#[derive(Args, Debug)]
pub struct Store {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Copy the store to a new file while it is in use
    ///
    /// volctld writes the file, readable by its user only. To restore it, stop volctld, empty the state directory, and
    /// put the file there as volctl.db.
    Backup {
        /// The file to write; nothing may be there yet
        file: PathBuf,
    },
}

impl Store {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let StoreCommand::Backup { file } = self.command;
        let path = std::path::absolute(&file).map_err(|error| {
            Error::new(Kind::Usage, format!("{} is no path: {error}", printable(&file.display().to_string())))
        })?;
        let request = Request::new(method::STORE_BACKUP, "back up the store", &StoreBackup { path })?;
        Ok(output.answer(session.ask(request), page))
    }
}

fn page(backup: &BackedUp) -> Page {
    let path = printable(&backup.path.display().to_string());
    Page {
        text: format!("{path} written, {}\n", format_size(backup.bytes)),
        quiet: format!("{path}\n"),
        notes: Vec::new(),
    }
}
