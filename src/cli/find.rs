//! `volctl find`

use std::path::{self, PathBuf};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::render::{self, Output, Page};
use super::session::{Request, Session};
use crate::api::{DeviceFind, DeviceFound, method};
use crate::error::{Error, Kind};
use crate::model::printable;

/// Say which volume a device is
#[derive(Args, Debug)]
pub struct Find {
    /// Any path or link to the disk or one of its partitions
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    path: String,
}

impl Find {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let path = absolute(&self.path)?;
        let request = Request::new(method::DEVICE_FIND, format!("find {}", self.path), &DeviceFind { path })?;
        Ok(output.answer(session.ask(request), page))
    }
}

/// The daemon has another working directory.
fn absolute(path: &str) -> Result<PathBuf, Error> {
    path::absolute(path)
        .map_err(|e| Error::new(Kind::Usage, format_args!("cannot make \"{}\" absolute: {e}", printable(path))))
}

fn page(found: &DeviceFound) -> Page {
    let partition = found.partition.map(|number| format!("partition {number} of ")).unwrap_or_default();
    let device = render::path(&found.device.path);
    let text = format!("{} ({}): {partition}{device}\n", render::name(&found.volume), found.volume.id);
    Page { text, quiet: format!("{}\n", found.volume.id), notes: Vec::new() }
}
