//! `volctl tls`: certificates for the NBD server and its clients, in the files that they read.
//!
//! The daemon makes them; the files are the caller's, and only here.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::render::{Output, Page, read};
use super::session::{Request, Session};
use crate::api::{Credentials, IssuedToClient, TlsIssue, TlsIssued, method};
use crate::error::{Error, Kind, Result};
use crate::model::printable;
use crate::rpc::json::Json;

/// Nobody but their owner reads private keys; certificates are for everybody.
const KEY: u32 = 0o600;
const CERTIFICATE: u32 = 0o644;
/// The client of whoever names none.
const CLIENT: &str = "client";
/// NBD's port, where the daemon has none yet.
const PORT: u16 = 10809;
const NO_PORT: &str = "volctld listens on no TCP address: set one under [nbd], such as listen = [\"0.0.0.0:10809\"]";

/// Make the certificates for NBD over TLS
#[derive(Args, Debug)]
pub struct Tls {
    #[command(subcommand)]
    command: TlsCommand,
}

#[derive(Debug, Subcommand)]
enum TlsCommand {
    /// Make a small authority, and certificates for the server and its clients
    ///
    /// In DIR: `ca`, whose private key signs, `server` for [nbd] tls_certificates, and `clients/NAME` for each client,
    /// all as nbdkit, qemu and libnbd read them. What is there is kept: run again with --client, it adds clients of the same
    /// authority. The authority counts for 10 years, the others for 2; to renew one, remove its directory and run
    /// this again: volctld takes the new one by itself.
    Init(Init),
}

#[derive(Args, Debug)]
struct Init {
    /// Where to put them
    #[arg(long, value_name = "DIR", default_value = "/etc/volctl/tls")]
    dir: PathBuf,
    /// A host name or address by which clients reach the server; may be repeated [default: those that it listens on]
    #[arg(long = "name", value_name = "HOST|IP", value_parser = NonEmptyStringValueParser::new())]
    names: Vec<String>,
    /// A client's name, its certificate's common name; may be repeated [default: client]
    #[arg(long = "client", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    clients: Vec<String>,
}

impl Tls {
    pub fn run(self, session: &Session, output: &Output) -> Answer<u8> {
        let TlsCommand::Init(init) = self.command;
        let directory = std::path::absolute(&init.dir)
            .map_err(|error| Error::new(Kind::Usage, format!("{} is no path: {error}", shown(&init.dir))))?;
        let layout = Layout { directory };
        let wanted = layout.wanted(init)?;
        let request = Request::new(method::TLS_ISSUE, "make certificates", &wanted)?;
        let issued: TlsIssued = read(&session.ask(request)?)?;
        let made = layout.put(&issued)?;
        let shown = Json::of(&made).map_err(unwritable)?;
        Ok(output.answer(Ok(shown), page))
    }
}

/// The files in a directory.
struct Layout {
    directory: PathBuf,
}

/// What was made, as it is shown: paths, and no key.
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    /// Where the authority's certificate and key are.
    authority: PathBuf,
    /// None where the server has a certificate already.
    server: Option<MadeServer>,
    clients: Vec<MadeClient>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MadeServer {
    directory: PathBuf,
    names: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MadeClient {
    name: String,
    /// As `volctl export --client` takes it.
    subject: String,
    directory: PathBuf,
    /// What the client can type.
    commands: Vec<String>,
}

impl Layout {
    fn authority(&self) -> PathBuf {
        self.directory.join("ca")
    }

    fn server(&self) -> PathBuf {
        self.directory.join("server")
    }

    fn client(&self, name: &str) -> PathBuf {
        self.directory.join("clients").join(name)
    }

    /// What is to be made beside what is there already; nothing of that may be what was asked for by name.
    fn wanted(&self, init: Init) -> Result<TlsIssue> {
        let authority = self.present_authority()?;
        let has_server = is_there(&self.server());
        if has_server && !init.names.is_empty() {
            return Err(present(&self.server(), "the server has a certificate"));
        }
        let clients = match init.clients {
            none if none.is_empty() && authority.is_none() => vec![CLIENT.to_owned()],
            clients => clients,
        };
        for (n, name) in clients.iter().enumerate() {
            let is_one_name =
                Path::new(name).components().count() == 1 && !name.starts_with('.') && !name.contains('/');
            if !is_one_name || clients[..n].contains(name) {
                let what = if is_one_name { "is named twice" } else { "cannot be a client's name" };
                return Err(Error::new(Kind::Usage, format!("\"{}\" {what}", printable(name))));
            }
            if is_there(&self.client(name)) {
                let what = format!("client {} has a certificate", printable(name));
                return Err(present(&self.client(name), &what));
            }
        }
        if has_server && clients.is_empty() {
            let what = format!("{} has an authority and a certificate for the server already", shown(&self.directory));
            return Err(Error::new(Kind::Conflict, what).hint("--client NAME adds a client"));
        }
        Ok(TlsIssue { authority, server: (!has_server).then_some(init.names), clients })
    }

    /// The authority that is there.
    fn present_authority(&self) -> Result<Option<Credentials>> {
        let directory = self.authority();
        let file = |name: &str| {
            let path = directory.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(Error::new(Kind::Usage, format!("cannot read {}: {error}", shown(&path)))),
            }
        };
        match (file("ca-cert.pem")?, file("ca-key.pem")?) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(Credentials { certificate, key })),
            _ => {
                let what = format!("{} has one of ca-cert.pem and ca-key.pem, not both", shown(&directory));
                Err(Error::new(Kind::Conflict, what)
                    .hint("put the other one back for as long as certificates are made"))
            }
        }
    }

    fn put(&self, issued: &TlsIssued) -> Result<Made> {
        let certificate = &issued.certificate;
        if let Some(new) = &issued.authority {
            put(&self.authority(), &[("ca-key.pem", &new.key, KEY), ("ca-cert.pem", certificate, CERTIFICATE)])?;
        }
        if let Some(server) = &issued.server {
            put_with_authority(&self.server(), "server", &server.credentials, certificate)?;
        }
        for client in &issued.clients {
            put_with_authority(&self.client(&client.name), "client", &client.credentials, certificate)?;
        }
        let server = issued.server.as_ref();
        Ok(Made {
            authority: self.authority(),
            server: server.map(|server| MadeServer { directory: self.server(), names: server.names.clone() }),
            clients: issued.clients.iter().map(|client| self.made(client, issued)).collect(),
            notes: issued.port.is_none().then(|| NO_PORT.to_owned()).into_iter().collect(),
        })
    }

    fn made(&self, client: &IssuedToClient, issued: &TlsIssued) -> MadeClient {
        let directory = self.client(&client.name);
        let (host, port) = (&issued.host, issued.port.unwrap_or(PORT));
        let place = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let uri = format!("'nbds://{place}/EXPORT?tls-certificates={}'", directory.display());
        let commands = vec![
            format!("nbdinfo {uri}"),
            format!("nbdcopy {uri} disk.img"),
            format!(
                "qemu-img info --object tls-creds-x509,id=tls0,endpoint=client,dir={} --image-opts \
                 driver=nbd,host={host},port={port},export=EXPORT,tls-creds=tls0",
                directory.display()
            ),
        ];
        MadeClient { name: client.name.clone(), subject: format!("CN={}", client.name), directory, commands }
    }
}

fn put_with_authority(directory: &Path, whose: &str, credentials: &Credentials, authority: &str) -> Result<()> {
    let files = [
        (&*format!("{whose}-key.pem"), &*credentials.key, KEY),
        (&*format!("{whose}-cert.pem"), &*credentials.certificate, CERTIFICATE),
        ("ca-cert.pem", authority, CERTIFICATE),
    ];
    put(directory, &files)
}

/// Makes a directory with files: name, text, mode. Nothing that is there is touched.
fn put(directory: &Path, files: &[(&str, &str, u32)]) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| Error::new(Kind::Usage, format!("cannot make {}: {error}", shown(directory))))?;
    for (name, text, mode) in files {
        let path = directory.join(name);
        let written = OpenOptions::new().write(true).create_new(true).mode(*mode).open(&path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| Error::new(Kind::Usage, format!("cannot write {}: {error}", shown(&path))))?;
    }
    Ok(())
}

fn is_there(directory: &Path) -> bool {
    fs::symlink_metadata(directory).is_ok()
}

fn present(directory: &Path, what: &str) -> Error {
    let message = format!("{what} already: {}; nothing was made", shown(directory));
    Error::new(Kind::Conflict, message).hint("to make a new one, remove that directory first")
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::new(Kind::Internal, format!("what was made cannot be shown: {error}"))
}

fn page(made: &Made) -> Page {
    let mut text = format!("authority: {} (keep ca-key.pem where nobody else reads it)\n", shown(&made.authority));
    if let Some(server) = &made.server {
        let directory = shown(&server.directory);
        let names: Vec<String> = server.names.iter().map(|name| printable(name)).collect();
        text += &format!("server: {directory}, for {}\n", names.join(", "));
        text += &format!("  set under [nbd]: tls_certificates = \"{directory}\"\n");
    }
    for client in &made.clients {
        text += &format!("client {}: copy {} to it, then there\n", printable(&client.name), shown(&client.directory));
        text.extend(client.commands.iter().map(|command| format!("  {}\n", printable(command))));
    }
    let quiet = made.clients.iter().map(|client| format!("{}\n", shown(&client.directory))).collect();
    Page { text, quiet, notes: made.notes.clone() }
}
