//! The NBD server: block devices served live, by export name, to clients of TCP listeners and one Unix socket.
//!
//! Each client has a thread, and nothing else waits for it. It reads as many requests as have arrived (which [`gather`]
//! may make more), serves those at once for which the page cache is enough, and sends the replies together. What has to
//! wait for the device is left to the [`workers`] of the export, or in a [`ring`] to the kernel, and answered as it is done. The table of exports ([`exports`])
//! decides who is let in and when a device is free again; [`access`] says who may be, and [`tls`] who somebody is.
//!
//! Source of the protocol: `doc/proto.md` of the NBD project (<https://github.com/NetworkBlockDevice/nbd>).

mod access;
mod backend;
mod bell;
mod channel;
mod check;
mod client;
mod connection;
mod deferred;
mod direct;
mod eager;
mod entry;
mod exports;
mod gather;
mod hand_over;
mod handshake;
mod herald;
mod in_flight;
mod ioctl;
mod latch;
mod listen;
mod memory;
mod patience;
mod probe;
mod protocol;
mod queue;
mod removal;
mod ring;
mod served;
mod stream;
mod take_over;
mod tls;
mod traffic;
mod transmission;
mod uri;
mod work;
mod workers;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

pub use exports::Activity;
pub use herald::Happening;
pub use removal::{Clients, Removed};
pub use served::ExportSpec;
pub use traffic::Moved;

use crate::api;
use crate::config;
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, printable};
use crate::rpc::socket::SocketFile;
use crate::systemd::{ServiceManager, Stored};
use access::Access;
use connection::Connection;
use exports::Exports;
use listen::Hall;
use take_over::Estate;
use tls::Tls;
use uri::Locations;

/// The server; clones are the same one.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    hall: Arc<Hall>,
    acceptors: Mutex<JoinSet<()>>,
    socket: PathBuf,
    socket_file: SocketFile,
    listeners: Vec<String>,
    manager: Arc<ServiceManager>,
    /// Clients of the process before, whose exports are not served yet.
    waiting: Mutex<Vec<Connection>>,
}

impl Server {
    /// Listens on all that the configuration names, and accepts clients from now on. What the process before has stored
    /// with the manager is taken over: its listeners at once, its clients as soon as their exports are served.
    pub async fn bind(config: &config::Nbd, manager: Arc<ServiceManager>, stored: Vec<Stored>) -> Result<Self> {
        let tls = config.tls_certificates.as_deref().map(Tls::load).transpose()?;
        let is_restart = !stored.is_empty();
        let mut estate = Estate::of(stored);
        let mut listeners = Vec::new();
        for address in &config.listen {
            let (listener, bound) = listen::bind_tcp(*address, &mut estate).await?;
            listeners.push((listener, (bound, listen::must_encrypt(bound, config)?)));
        }
        let (unix_listener, socket_file) = listen::bind_unix(&config.unix_socket, &mut estate)?;
        let sockets = listeners.iter().map(|(listener, _)| listener.as_fd()).chain([unix_listener.as_fd()]);
        let mut waiting = estate.settle(&manager, &sockets.collect::<Vec<_>>());

        let bound: Vec<_> = listeners.iter().map(|(_, bound)| *bound).collect();
        let hostname = nix::unistd::gethostname().unwrap_or_default();
        let hostname = hostname.to_string_lossy();
        waiting.retain(|connection| {
            let is_admitted = take_over::is_admitted(connection, &bound, &config.allow);
            if !is_admitted {
                let peer = connection.state.peer;
                tracing::warn!(client = %peer, "NBD client {peer} is closed: the listeners do not let it in any more");
            }
            is_admitted
        });
        let locations = Locations::new(&bound, config.advertise.as_deref(), &hostname, &config.unix_socket);
        let exports = Exports::new(locations, config.limits, config.direct);
        let hall = Hall::new(Arc::new(exports), tls, config.limits);
        let hall = Arc::new(hall.map_err(|error| Error::new(Kind::Internal, error).doing("starting the NBD server"))?);

        if !is_restart {
            hall.opened.raise();
        }
        let mut acceptors = JoinSet::new();
        for (listener, bound) in listeners {
            acceptors.spawn(listen::accept_tcp(listener, bound, config.allow.clone(), Arc::clone(&hall)));
        }
        acceptors.spawn(listen::accept_unix(unix_listener, Arc::clone(&hall)));
        acceptors.spawn(sample_each_second(Arc::clone(&hall.exports)));
        let socket = config.unix_socket.clone();
        let unix = format!("unix:{}", printable(&socket.to_string_lossy()));
        let listeners = bound.iter().map(|(address, _)| address.to_string()).chain([unix]).collect();
        let (acceptors, waiting) = (Mutex::new(acceptors), Mutex::new(waiting));
        let shared = Shared { hall, acceptors, socket, socket_file, listeners, manager, waiting };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Greets clients from now on, where they have come over from the process before: all exports are back that can be.
    pub fn open(&self) {
        self.shared.hall.opened.raise();
    }

    /// Serves a device. It is active once a client of the server's own Unix socket was told the right size; where that
    /// does not happen it is not served, and its file is closed.
    pub async fn add(&self, spec: ExportSpec) -> Result<api::Export> {
        let (name, size) = (spec.name.clone(), spec.size_bytes);
        self.exports().insert(spec)?;
        let found = match probe::size_of(&self.shared.socket, &name).await {
            Ok(found) if found == size => {
                // Those who were there before, before anybody else can be the one who writes.
                self.resume(&name);
                return self.exports().activate(&name);
            }
            Ok(found) => format!("it says {found} bytes, and {size} were expected"),
            Err(error) => printable(&error.to_string()),
        };
        self.remove(&name, Clients::Close).await?;
        let socket = self.shared.socket.display();
        let message = format!("export {} does not answer through {socket}: {found}", printable(&name));
        Err(Error::new(Kind::Internal, message).retryable(true))
    }

    /// The size that a client of an export is told, in bytes, through a handshake over the server's own Unix socket.
    ///
    /// # Errors
    /// Where a client is not let in, or told no size.
    pub async fn served_size(&self, name: &str) -> std::io::Result<u64> {
        probe::size_of(&self.shared.socket, name).await
    }

    /// All exports, by name.
    pub fn list(&self) -> Vec<api::Export> {
        self.exports().list()
    }

    /// The export of a name.
    pub fn get(&self, name: &str) -> Option<api::Export> {
        self.exports().get(name)
    }

    /// The export of a volume; a volume has one at most.
    pub fn of_volume(&self, volume: VolumeId) -> Option<api::Export> {
        self.exports().of_volume(volume)
    }

    /// What a client could use if an export of this name were served.
    pub fn uris(&self, name: &str, access: &api::Access) -> Vec<String> {
        self.exports().uris(name, access)
    }

    /// Refuses what names nobody, and what nobody could fulfil.
    ///
    /// # Errors
    /// `usage`
    pub fn check_access(&self, access: &api::Access) -> Result<()> {
        if Access::read(access)?.needs_tls() && self.shared.hall.tls.is_none() {
            let message = "TLS is not configured: an export that needs certificates could be opened by nobody";
            return Err(Error::new(Kind::Usage, message)
                .hint("`volctl tls init` makes certificates; set their directory as [nbd] tls_certificates"));
        }
        Ok(())
    }

    /// Changes who may open an export, and sends those away who may not any more.
    ///
    /// # Errors
    /// `usage` where that names nobody, `not_found` where there is no such export.
    pub async fn set_access(&self, name: &str, access: &api::Access) -> Result<Vec<api::Client>> {
        removal::set_access(self.exports(), name, Access::read(access)?).await
    }

    /// Lets several clients write at a time from now on.
    ///
    /// # Errors
    /// `not_found` where there is no such export.
    pub fn share(&self, name: &str) -> Result<()> {
        self.exports().share(name)
    }

    /// Refuses to have one client alone write where several are inside whom this lets stay.
    ///
    /// # Errors
    /// `in_use` with the clients, `not_found` where there is no such export.
    pub fn check_one_writer(&self, name: &str, access: &api::Access) -> Result<()> {
        self.exports().check_one_writer(name, &Access::read(access)?)
    }

    /// Lets one client alone write from now on; gives whether several could before.
    ///
    /// # Errors
    /// As [`check_one_writer`](Self::check_one_writer); then nothing has changed.
    pub fn one_writer(&self, name: &str, access: &api::Access) -> Result<bool> {
        self.exports().one_writer(name, &Access::read(access)?)
    }

    /// How it is with the certificates, where there are any: until when they count, or what is to be done.
    pub fn tls_health(&self) -> Option<std::result::Result<String, String>> {
        self.shared.hall.tls.as_ref().map(Tls::health)
    }

    /// Makes certificates. A server that is given no name gets those under which this one is reached.
    ///
    /// # Errors
    /// `usage` where they cannot be made as asked for.
    pub fn issue(&self, wanted: &api::TlsIssue) -> Result<api::TlsIssued> {
        let locations = self.exports().locations();
        tls::authority::issue(wanted, locations.hosts(), locations.port())
    }

    /// Takes over the size of an export's device where that has grown, in bytes: clients that come from now on are told
    /// it, those that are inside keep what they were told.
    ///
    /// # Errors
    /// `not_found` where there is no such export; `internal` where the size cannot be read.
    pub fn grow(&self, name: &str) -> Result<u64> {
        let size = self.exports().served(name)?.backend.grow();
        size.map_err(|error| Error::new(Kind::Internal, error).doing(format!("the size of export {}", printable(name))))
    }

    /// Marks an export whose device is gone.
    pub fn fail(&self, name: &str) {
        self.exports().fail(name);
    }

    /// Takes no new clients; those that are inside go on.
    pub fn drain(&self, name: &str) -> Result<()> {
        self.exports().set_draining(name, true)
    }

    /// Takes new clients again.
    pub fn undrain(&self, name: &str) -> Result<()> {
        self.exports().set_draining(name, false)
    }

    /// Waits until an export has no clients (or is no more); false if it still has some at that moment.
    pub async fn wait_idle(&self, name: &str, until: Instant) -> bool {
        self.exports().wait_idle(name, until).await
    }

    /// Removes an export and gives its file back once nothing uses it any more and all is on stable storage. Takes
    /// 10 s at most before the flush: clients that are closed have 5 s to take their answers and are then cut off,
    /// and the device has 5 s more.
    ///
    /// # Errors
    /// `in_use` with the clients, and the export stays as it was; `internal` where the flush failed, and it stays as
    /// `failed`; `timeout` where the device does not end its requests, and it stays without clients.
    pub async fn remove(&self, name: &str, clients: Clients) -> Result<Removed> {
        removal::remove(self.exports(), name, clients).await
    }

    /// Where it listens, as people write addresses.
    pub fn listeners(&self) -> &[String] {
        &self.shared.listeners
    }

    /// What clients of all exports have in flight.
    pub fn in_flight(&self) -> config::InFlight {
        self.exports().in_flight()
    }

    /// What clients of all exports have moved since the server began; never less than before.
    pub fn moved(&self) -> Moved {
        self.exports().moved()
    }

    /// Follows how many exports and clients there are; also woken by changes that leave the numbers as they are. Do
    /// not call the server inside of `wait_for`, which holds the channel.
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.exports().activity()
    }

    /// Sends clients of an export away, all of them or those at one address, with or without its port. The request
    /// that is under way is answered, unless they do not take the answer. They may come back.
    ///
    /// # Errors
    /// `not_found` where there is no such export or no such client.
    pub async fn kick(&self, name: &str, address: Option<&str>) -> Result<Vec<api::Client>> {
        removal::kick(self.exports(), name, address).await
    }

    /// Has a listener, who must not block, told what happens at the exports from now on; the first one only.
    pub fn listen(&self, listener: impl Fn(Happening) + Send + Sync + 'static) {
        self.exports().herald().listen(listener);
    }

    /// Goes on with the clients of the process before that are an export's.
    fn resume(&self, name: &str) {
        let mut waiting = self.waiting();
        for connection in waiting.extract_if(.., |connection| connection.state.export == name) {
            self.shared.hall.resume(connection);
        }
    }

    /// The volumes of exports for which clients of the process before wait.
    pub fn awaited(&self) -> HashSet<VolumeId> {
        self.waiting().iter().map(|connection| connection.state.volume_id).collect()
    }

    /// Closes those that wait for exports of other volumes.
    pub fn await_only(&self, volumes: &HashSet<VolumeId>) {
        let mut waiting = self.waiting();
        for connection in waiting.extract_if(.., |connection| !volumes.contains(&connection.state.volume_id)) {
            let (peer, name) = (connection.state.peer, printable(&connection.state.export));
            tracing::warn!(
                client = %peer, export = name,
                "NBD client {peer} is closed after the restart: export {name} has not come back"
            );
        }
    }

    /// How many clients a restart of the daemon would cost their connections.
    pub fn clients_lost_by_restart(&self) -> usize {
        if self.shared.manager.keeps_descriptors() { self.exports().tied() } else { self.activity().borrow().clients }
    }

    /// Ends the server so that the next process goes on with its clients where the service manager keeps descriptors;
    /// else as [`Server::shutdown`] does. Takes 300 ms at most, unless a device has not done its requests and written
    /// all that it was given by then.
    pub async fn hand_over(&self) {
        if !self.shared.manager.keeps_descriptors() {
            return self.shutdown().await;
        }
        self.shared.acceptors.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        hand_over::hand_over(&self.shared.hall, &self.shared.manager).await;
    }

    /// Ends the server: accepts nobody, answers the requests in flight, flushes all exports, and removes the socket's
    /// file. Takes 300 ms at most.
    pub async fn shutdown(&self) {
        self.shared.acceptors.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        if self.shared.manager.keeps_descriptors()
            && let Err(error) = self.shared.manager.forget(hand_over::LISTENER)
        {
            tracing::warn!("systemd keeps the NBD listeners, which nobody serves: {error}");
        }
        self.shared.socket_file.remove();
        self.shared.hall.stop.raise();
        removal::leave(self.exports()).await;
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exports(&self) -> &Arc<Exports> {
        &self.shared.hall.exports
    }
}

/// Lets each export know its requests of a second. Sleeps while there are no clients.
async fn sample_each_second(exports: Arc<Exports>) {
    let mut activity = exports.activity();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        second.tick().await;
        exports.sample_traffic();
        let has_clients = activity.borrow_and_update().clients > 0;
        if !has_clients && !exports.has_traffic() && activity.changed().await.is_err() {
            return;
        }
    }
}
