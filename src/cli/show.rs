//! `volctl show`

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::render::{self, Facts, Output, Page, Screen};
use super::session::{Request, Session};
use super::{duration, ls};
use crate::api::{Client, Export, Hold, Volume, VolumeGet, VolumeShown, method};
use crate::model::{format_size, printable};

/// Show everything about one volume
#[derive(Args, Debug)]
pub struct Show {
    /// Id, unique name or unique id prefix
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    volume: String,
    /// Ask CloudStack again for what is older than this [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    max_age: Option<Duration>,
}

impl Show {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let max_age_seconds = self.max_age.map(|age| age.as_secs());
        let params = VolumeGet { volume: self.volume.clone(), max_age_seconds };
        let request = Request::new(method::VOLUME_GET, format!("show {}", self.volume), &params)?;
        let screen = output.screen();
        Ok(output.answer(session.ask(request), |shown| page(shown, &screen)))
    }
}

fn page(shown: &VolumeShown, screen: &Screen) -> Page {
    let volume = &shown.volume;
    let text = facts(volume, screen).draw(screen);
    let uri = volume.export.as_ref().and_then(|export| render::uris(export).next());
    let device = || volume.device.as_ref().map(|device| render::path(&device.path));
    let quiet = uri.or_else(device).unwrap_or_else(|| volume.id.to_string());
    Page { text, quiet: format!("{quiet}\n"), notes: shown.notes.clone() }
}

fn facts(volume: &Volume, screen: &Screen) -> Facts {
    let mut facts = Facts::default();
    facts.add("name", printable(&volume.name));
    facts.add("id", volume.id);
    facts.add("size", format_args!("{} ({} bytes)", format_size(volume.size_bytes), volume.size_bytes));
    facts.add("state", ls::state(volume));
    facts.add("type", render::word(volume.volume_type));
    facts.add("zone", printable(&volume.zone_id));
    facts.add_some("vm", attachment(volume));
    if !volume.tags.is_empty() {
        facts.add("tags", render::tags(&volume.tags));
    }
    if let Some(device) = &volume.device {
        facts.add("device", render::path(&device.path));
        facts.add("node", render::path(&device.node));
        facts.add("serial", &device.serial);
    }
    if let Some(export) = &volume.export {
        add_export(&mut facts, export, screen);
    }
    facts.add_some("held", volume.hold.as_ref().map(|hold| held(hold, screen)));
    facts.add("as of", format_args!("{} ago (what CloudStack says)", render::ago(screen.now, volume.cloudstack_as_of)));
    facts
}

fn held(hold: &Hold, screen: &Screen) -> String {
    let since = render::ago(screen.now, hold.since);
    format!("by {} for {since}: \"{}\"", printable(&hold.holder), printable(&hold.note))
}

fn attachment(volume: &Volume) -> Option<String> {
    let id = volume.vm_id?;
    let name = volume.vm_name.as_deref().map(|name| format!("{} ", printable(name))).unwrap_or_default();
    let number = volume.device_id.map(|number| format!(", device id {number}")).unwrap_or_default();
    Some(format!("{name}({id}){number}"))
}

fn add_export(facts: &mut Facts, export: &Export, screen: &Screen) {
    let mode = if export.read_only { "read-only" } else { "writable" };
    facts.add("export", format_args!("{} ({}, {mode})", printable(&export.name), render::word(export.state)));
    for uri in render::uris(export) {
        facts.add("uri", uri);
    }
    for client in &export.clients {
        facts.add("client", client_words(client, screen));
    }
}

fn client_words(client: &Client, screen: &Screen) -> String {
    let last = client
        .last_request
        .map_or_else(|| "no request yet".to_owned(), |at| format!("last request {} ago", render::ago(screen.now, at)));
    format!("{}, connected {} ago, {last}", printable(&client.address), render::ago(screen.now, client.since))
}
