//! `volctl device`

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::duration;
use super::render::{self, Output, Page};
use super::session::{Request, Session};
use crate::api::{DeviceGet, DeviceShown, method};
use crate::error::Result;

/// Print the stable device path of volumes that are attached here
#[derive(Args, Debug)]
pub struct Device {
    /// Id, unique name or unique id prefix
    #[arg(value_name = "VOLUME", required = true, value_parser = NonEmptyStringValueParser::new())]
    volumes: Vec<String>,
    /// Wait at most this long for the device to appear
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    wait: Option<Duration>,
}

impl Device {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let requests = self.volumes.iter().map(|volume| self.request(volume)).collect::<Result<Vec<_>>>()?;
        Ok(output.answers(session.ask_all(requests), false, page))
    }

    fn request(&self, volume: &str) -> Result<Request> {
        let wait_seconds = self.wait.map(|wait| wait.as_secs());
        let params = DeviceGet { volume: volume.to_owned(), wait_seconds };
        let request = Request::new(method::DEVICE_GET, format!("find the device of {volume}"), &params)?;
        Ok(request.patient(self.wait.unwrap_or_default()))
    }
}

fn page(shown: &DeviceShown) -> Page {
    let path = format!("{}\n", render::path(&shown.device.path));
    Page { text: path.clone(), quiet: path, notes: Vec::new() }
}
