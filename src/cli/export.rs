//! `volctl export`

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::answer::Answer;
use super::change::{self, ChangeFlags, Verb};
use super::names::Names;
use super::render::{self, Output};
use super::session::Session;
use crate::api::{Changed, ExportCreate, TlsMode, method};
use crate::error::{Error, Kind};
use crate::model::printable;

/// Serve volumes that are attached here over NBD
///
/// Prints the URIs that a client can use as they are. A device that is in use here is not exported. Of a volume that is
/// exported already, --client, --any-client, --tls, --shared and --one-writer change what they say, and what is not given
/// stays as it is; its name, and whether it is read-only, take an unexport first.
#[derive(Args, Debug)]
pub struct Export {
    /// Id, unique name or unique id prefix; - reads them from standard input, one a line
    #[arg(value_name = "VOLUME", required = true, value_parser = NonEmptyStringValueParser::new())]
    volumes: Vec<String>,
    /// Export name [default: the one it has, or vol-<volume id>]
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// Refuse writes
    #[arg(long)]
    read_only: bool,
    /// Let several clients write at a time, where one alone may else; also of an export that is served
    #[arg(long, conflicts_with = "read_only")]
    shared: bool,
    /// Let one client alone write again; refused while several are inside
    #[arg(long, conflicts_with = "shared")]
    one_writer: bool,
    /// Take connections without TLS, or only with it [default: as before, or as the configuration says]
    #[arg(long, ignore_case = true)]
    tls: Option<TlsMode>,
    /// Let in only this client: a certificate's subject (CN=backup1,O=Example), its common name, an address or a network; may
    /// be repeated. Of an export that is served, this is the new list, and who is not on it is sent away
    #[arg(long = "client", value_name = "SUBJECT|CIDR", value_parser = NonEmptyStringValueParser::new())]
    clients: Vec<String>,
    /// Let in everybody again
    #[arg(long, conflicts_with = "clients")]
    any_client: bool,
    #[command(flatten)]
    change: ChangeFlags,
}

impl Export {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let names = Names::of(self.volumes)?;
        if self.name.is_some() && names.is_list {
            return Err(Error::new(Kind::Usage, "--name is for one volume, and several are named").into());
        }
        let params = |volume: &String| ExportCreate {
            volume: volume.clone(),
            name: self.name.clone(),
            read_only: self.read_only,
            shared: (self.shared || self.one_writer).then_some(self.shared),
            tls: self.tls,
            clients: (self.any_client || !self.clients.is_empty()).then(|| self.clients.clone()),
        };
        let verb = Verb { word: "export", method: method::EXPORT_CREATE };
        let terminal = output.screen().width.is_some();
        self.change
            .run(verb, &names, names.words.iter().map(params), (session, output), |changed| phrase(changed, terminal))
    }
}

/// The URIs, a line each; on a terminal below the sentence.
fn phrase(changed: &Changed, terminal: bool) -> String {
    let subject = change::subject(changed);
    let Some(export) = &changed.export else { return format!("{subject} exported") };
    let uris = render::uris(export).collect::<Vec<_>>().join("\n");
    if !terminal {
        return uris;
    }
    let already = if changed.changed == Some(false) { "is already " } else { "" };
    let read_only = if export.read_only { ", read-only" } else { "" };
    format!("{subject} {already}exported as {}{read_only}:\n{uris}", printable(&export.name))
}
