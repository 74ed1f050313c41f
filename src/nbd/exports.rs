//! What is served, and to whom: the table of exports, their phases and their clients.
//!
//! One lock guards the table. A client is let in, and an export closed, under it, so that no client slips into an
//! export that goes. Whoever is inside holds a [`Session`]; the file leaves the table only when nobody is.
//!
//! ```text
//! Pending --probed--> Active <--drain, undrain--> Draining        Pending, Active, Draining --remove--> Closing
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::watch;

use super::access::{Access, Verdict};
use super::client::{Caller, Client};
use super::entry::{Entry, Phase, Refusal};
use super::herald::Herald;
use super::in_flight::{Flight, Pool};
use super::patience::Patience;
use super::protocol::Headers;
use super::served::{ExportSpec, Offer, Served};
use super::traffic::Moved;
use super::uri::Locations;
use crate::api::{self, LastClient, Leaving, Usage};
use crate::config::{InFlight, NbdLimits};
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, printable};

/// How much goes on; changes are worth waking for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Exports, in any state.
    pub exports: usize,
    /// Clients connected to them.
    pub clients: usize,
}

/// A client inside an export. The fields go in this order: the device first, then the seat, so that whoever sees no
/// seat taken knows that nobody uses the device.
pub(super) struct Session {
    served: Arc<Served>,
    /// The export's size when the client came, in bytes: an export that grows does so for those who come after.
    size: u64,
    seat: Seat,
}

impl Session {
    /// The export.
    pub fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// What the client was told of it.
    pub fn offer(&self, headers: Headers) -> Offer {
        Offer { size: self.size, ..self.served.offer(headers) }
    }

    /// Notes that a request has come now.
    pub fn note_request(&self) {
        self.seat.client.note_request();
    }

    /// Notes that the last request is answered.
    pub fn note_answer(&self) {
        self.seat.client.note_answer();
    }

    /// Whether the client has to go.
    pub fn is_kicked(&self) -> bool {
        self.seat.client.is_kicked()
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.seat.client
    }

    /// The patience that others have with it.
    pub fn patience(&self) -> Patience {
        let Seat { exports, client, .. } = &self.seat;
        Patience::new(Arc::clone(client), Arc::clone(&exports.in_flight), exports.limits.stall)
    }

    /// What its connection will have in flight.
    pub fn flight(&self) -> Flight {
        Flight::new(Arc::clone(self.seat.client.pool()), Arc::clone(&self.seat.exports.in_flight))
    }

    /// Leaves without a word: the client goes on with another process.
    pub fn hand_over(mut self) {
        self.seat.handed_over = true;
    }
}

struct Seat {
    exports: Arc<Exports>,
    name: String,
    client: Arc<Client>,
    handed_over: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.exports.table();
        if let Some(entry) = table.get_mut(&self.name) {
            entry.clients.retain(|client| !Arc::ptr_eq(client, &self.client));
            let cut_off = entry.served.stop.is_raised() || self.client.is_kicked();
            let left = if cut_off { Leaving::CutOff } else { Leaving::Disconnected };
            let left = Some(left).filter(|_| !self.handed_over);
            if left.is_some() {
                self.exports.herald.disconnected(&entry.served, &self.client, cut_off);
            }
            let address = self.client.caller().peer.to_string();
            entry.last_client = Some(LastClient { address, at: Timestamp::now(), left });
        }
        self.exports.publish(&table);
    }
}

type Table = BTreeMap<String, Entry>;

/// An export that has left the table, and what can be said of its time in it.
pub(super) struct Gone {
    pub file: File,
    pub usage: Usage,
}

/// All exports.
pub(super) struct Exports {
    table: Mutex<Table>,
    activity: watch::Sender<Activity>,
    locations: Locations,
    limits: NbdLimits,
    in_flight: Arc<Pool>,
    /// Data go past the page cache.
    direct: bool,
    herald: Herald,
    /// What clients moved of exports that have left the table; changed under its lock.
    gone: Mutex<Moved>,
}

impl Exports {
    /// An empty table; `direct` takes the data past the page cache.
    pub fn new(locations: Locations, limits: NbdLimits, direct: bool) -> Self {
        Self {
            table: Mutex::default(),
            activity: watch::Sender::default(),
            locations,
            limits,
            in_flight: Arc::new(Pool::new(limits.in_flight, limits.stall)),
            direct,
            herald: Herald::default(),
            gone: Mutex::default(),
        }
    }

    /// The way to whoever keeps a history.
    pub fn herald(&self) -> &Herald {
        &self.herald
    }

    /// Where clients would find an export of this name.
    pub fn uris(&self, name: &str, access: &api::Access) -> Vec<String> {
        let needs_tls = Access::read(access).is_ok_and(|access| access.needs_tls());
        self.locations.uris(name, needs_tls)
    }

    /// Where clients find the server.
    pub fn locations(&self) -> &Locations {
        &self.locations
    }

    /// Follows how much goes on.
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.activity.subscribe()
    }

    /// Takes an export in, as pending.
    pub fn insert(&self, spec: ExportSpec) -> Result<()> {
        let access = Access::read(&spec.access)?;
        let shared = spec.shared;
        let served = Served::new(spec, self.direct, self.herald.clone())?;
        let (name, volume) = (served.name.clone(), served.volume_id);
        let last_client = served.before.last_client.clone();
        let served = Arc::new(served);
        let entry = Entry { served, phase: Phase::Pending, access, shared, clients: Vec::new(), last_client };
        let mut table = self.table();
        if let Some(other) = table.get(&name) {
            let message = format!("the export name {} is taken by volume {}", printable(&name), other.served.volume_id);
            return Err(Error::new(Kind::Conflict, message).hint("choose another with --name"));
        }
        if let Some(other) = table.values().find(|entry| entry.served.volume_id == volume) {
            let name = printable(&other.served.name);
            let message = format!("volume {volume} is exported already, as {name}");
            return Err(Error::new(Kind::Conflict, message).hint(format!("volctl unexport {name}")));
        }
        table.insert(name, entry);
        self.publish(&table);
        Ok(())
    }

    /// Lets clients in.
    pub fn activate(&self, name: &str) -> Result<api::Export> {
        let mut table = self.table();
        let entry = entry(&mut table, name)?;
        if entry.phase == Phase::Pending {
            entry.phase = Phase::Active;
            self.herald.served(&entry.served);
        }
        Ok(self.shown(entry))
    }

    /// What a client with such headers would be let in to.
    pub fn offer(&self, name: &str, headers: Headers, caller: &Caller) -> Result<Offer, Refusal> {
        self.table().get(name).ok_or(Refusal::Unknown)?.offer(headers, caller)
    }

    /// Lets a client in.
    pub fn enter(self: &Arc<Self>, name: &str, caller: &Caller, socket: Arc<OwnedFd>) -> Result<Session, Refusal> {
        let mut table = self.table();
        let most = self.limits.connections_per_client;
        let is_crowded = connections_of(&table, caller).count() >= most as usize;
        let pool = self.pool_of(&table, caller);
        let entry = table.get_mut(name).ok_or(Refusal::Unknown)?;
        let let_in = entry.let_in(caller).and(if is_crowded { Err(Refusal::Crowded(most)) } else { Ok(()) });
        let_in.inspect_err(|refusal| {
            if let Some(why) = refusal.why() {
                self.herald.refused(&entry.served, caller, &why);
            }
        })?;
        self.herald.connected(&entry.served, caller);
        let client = Client::new(caller.clone(), Timestamp::now(), socket, pool);
        let session = self.seat(entry, client, entry.served.backend.size());
        self.publish(&table);
        Ok(session)
    }

    /// Lets a client in that another process has let in before, and told of this offer; the export must still be as it was
    /// told.
    pub fn enter_again(
        self: &Arc<Self>,
        (name, volume): (&str, VolumeId),
        told: &Offer,
        headers: Headers,
        (caller, since, socket): (Caller, Timestamp, Arc<OwnedFd>),
    ) -> Result<Session, &'static str> {
        let mut table = self.table();
        let pool = self.pool_of(&table, &caller);
        let entry =
            table.get_mut(name).filter(|entry| entry.served.volume_id == volume).ok_or("its export is no more")?;
        if entry.phase == Phase::Closing || entry.served.is_gone() {
            return Err("its export is on its way out");
        }
        if !entry.served.offer(headers).keeps(told) {
            return Err("its export is not what it was told");
        }
        entry.admit(&caller).map_err(|_| "its export is not for it any more")?;
        let session = self.seat(entry, Client::new(caller, since, socket, pool), told.size);
        self.publish(&table);
        Ok(session)
    }

    /// What all connections of one client have in flight.
    fn pool_of(&self, table: &Table, caller: &Caller) -> Arc<Pool> {
        let mut clients = table.values().flat_map(|entry| &entry.clients);
        let pool = clients.find(|other| other.caller().shares_with(caller)).map(|other| Arc::clone(other.pool()));
        pool.unwrap_or_else(|| Arc::new(Pool::new(self.limits.in_flight_per_client, self.limits.stall)))
    }

    fn seat(self: &Arc<Self>, entry: &mut Entry, client: Client, size: u64) -> Session {
        let (client, served) = (Arc::new(client), Arc::clone(&entry.served));
        entry.clients.push(Arc::clone(&client));
        let (exports, name) = (Arc::clone(self), served.name.clone());
        Session { served, size, seat: Seat { exports, name, client, handed_over: false } }
    }

    /// Clients that cannot be handed over as things are: they use TLS, whose keys stay in this process, or their device has
    /// failed, or does not answer.
    pub fn tied(&self) -> usize {
        let table = self.table();
        let tied = table
            .values()
            .flat_map(|entry| entry.clients.iter().filter(|client| entry.served.failed() || client.is_tied()));
        tied.count()
    }

    /// The names that a client may enter.
    pub fn open_names(&self, caller: &Caller) -> Vec<String> {
        let table = self.table();
        let is_open = |entry: &Entry| entry.phase == Phase::Active && entry.access.judge(caller) == Verdict::Open;
        table.iter().filter(|(_, entry)| is_open(entry)).map(|(name, _)| name.clone()).collect()
    }

    /// Lets several clients write at a time.
    pub fn share(&self, name: &str) -> Result<()> {
        entry(&mut self.table(), name)?.shared = true;
        Ok(())
    }

    /// Refuses one writer where there are several who may stay.
    pub fn check_one_writer(&self, name: &str, access: &Access) -> Result<()> {
        entry(&mut self.table(), name)?.check_one_writer(access)
    }

    /// Lets one client write at a time, where there are not several who may stay; gives whether several could before.
    pub fn one_writer(&self, name: &str, access: &Access) -> Result<bool> {
        let mut table = self.table();
        let entry = entry(&mut table, name)?;
        entry.check_one_writer(access)?;
        Ok(std::mem::replace(&mut entry.shared, false))
    }

    /// Changes who may enter an export, and gives those inside who may not any more.
    pub fn set_access(&self, name: &str, access: Access) -> Result<Vec<Arc<Client>>> {
        let mut table = self.table();
        let entry = entry(&mut table, name)?;
        entry.access = access;
        let may_not = |client: &&Arc<Client>| entry.access.judge(client.caller()) != Verdict::Open;
        Ok(entry.clients.iter().filter(may_not).cloned().collect())
    }

    /// All exports, by name.
    pub fn list(&self) -> Vec<api::Export> {
        self.table().values().map(|entry| self.shown(entry)).collect()
    }

    /// The export of a name.
    pub fn get(&self, name: &str) -> Option<api::Export> {
        self.table().get(name).map(|entry| self.shown(entry))
    }

    /// The export of a volume.
    pub fn of_volume(&self, volume: VolumeId) -> Option<api::Export> {
        let table = self.table();
        table.values().find(|entry| entry.served.volume_id == volume).map(|entry| self.shown(entry))
    }

    /// Takes no new clients, or takes them again.
    pub fn set_draining(&self, name: &str, draining: bool) -> Result<()> {
        let mut table = self.table();
        let entry = entry(&mut table, name)?;
        entry.phase = match (entry.phase, draining) {
            (Phase::Active, true) => Phase::Draining,
            (Phase::Draining, false) => Phase::Active,
            (Phase::Closing, false) => return Err(closing(name)),
            (phase, _) => phase,
        };
        Ok(())
    }

    /// Waits until an export has no clients; false if it still has some at that moment.
    pub async fn wait_idle(&self, name: &str, until: Instant) -> bool {
        let idle = || self.table().get(name).is_none_or(|entry| entry.clients.is_empty());
        self.wait_until(idle, until).await
    }

    /// Waits until no export has clients; false if there are some at that moment.
    pub async fn wait_all_idle(&self, until: Instant) -> bool {
        self.wait_until(|| self.table().values().all(|entry| entry.clients.is_empty()), until).await
    }

    /// Looks again at each change. The table's lock is taken before the channel's, so never inside of `wait_for`.
    async fn wait_until(&self, condition: impl Fn() -> bool, until: Instant) -> bool {
        let mut activity = self.activity.subscribe();
        while !condition() {
            if tokio::time::timeout_at(until.into(), activity.changed()).await.is_err() {
                return condition();
            }
        }
        true
    }

    /// Lets nobody in any more, and gives the phase before. With `must_be_gone` only if nobody is inside; else those
    /// inside are told to go.
    pub fn close(&self, name: &str, must_be_gone: bool) -> Result<Phase> {
        let mut table = self.table();
        let entry = entry(&mut table, name)?;
        if must_be_gone && !entry.clients.is_empty() {
            let clients: Vec<String> = entry.clients.iter().map(|client| client.label()).collect();
            let message = format!("export {} is in use by {}", printable(name), clients.join(", "));
            return Err(Error::new(Kind::InUse, message)
                .hint("disconnect them, let them finish with --drain 10m, or close them with --force"));
        }
        if !must_be_gone {
            entry.served.stop.raise();
        }
        Ok(std::mem::replace(&mut entry.phase, Phase::Closing))
    }

    /// Takes back a close that told nobody, where the export is still closed.
    pub fn reopen(&self, name: &str, phase: Phase) {
        if let Some(entry) = self.table().get_mut(name)
            && entry.phase == Phase::Closing
            && !entry.served.stop.is_raised()
        {
            entry.phase = phase;
        }
    }

    /// Closes all exports.
    pub fn close_all(&self) {
        for entry in self.table().values_mut() {
            entry.phase = Phase::Closing;
            entry.served.stop.raise();
        }
    }

    /// Marks an export whose device is gone.
    pub fn fail(&self, name: &str) {
        let table = self.table();
        if let Some(entry) = table.get(name) {
            entry.served.mark_gone();
            self.publish(&table);
        }
    }

    /// Cuts the connections of one export's clients, or of all, whatever they are doing.
    pub fn cut(&self, name: Option<&str>) {
        let table = self.table();
        let entries = table.iter().filter(|(key, _)| name.is_none_or(|name| name == *key));
        entries.flat_map(|(_, entry)| &entry.clients).for_each(|client| client.cut());
    }

    /// The clients of an export, or those at one address.
    pub fn clients_at(&self, name: &str, address: Option<&str>) -> Result<Vec<Arc<Client>>> {
        let mut table = self.table();
        let clients = entry(&mut table, name)?.clients.iter();
        Ok(clients.filter(|client| address.is_none_or(|address| client.is_at(address))).cloned().collect())
    }

    /// Waits until these clients of an export are gone; false if some are there at that moment.
    pub async fn wait_gone(&self, name: &str, clients: &[Arc<Client>], until: Instant) -> bool {
        let is_gone =
            |client: &Arc<Client>, entry: &Entry| !entry.clients.iter().any(|other| Arc::ptr_eq(client, other));
        let all_gone =
            || self.table().get(name).is_none_or(|entry| clients.iter().all(|client| is_gone(client, entry)));
        self.wait_until(all_gone, until).await
    }

    /// Lets each export know its requests of the last second.
    pub fn sample_traffic(&self) {
        self.table().values().for_each(|entry| entry.served.sample_traffic());
    }

    /// Whether any export has had requests in the last second.
    pub fn has_traffic(&self) -> bool {
        self.table().values().any(|entry| entry.served.traffic.shown().requests_per_second > 0)
    }

    /// The export of a name, for as long as it takes to flush it.
    pub fn served(&self, name: &str) -> Result<Arc<Served>> {
        Ok(Arc::clone(&entry(&mut self.table(), name)?.served))
    }

    /// All exports, for as long as it takes to flush them.
    pub fn all_served(&self) -> Vec<Arc<Served>> {
        self.table().values().map(|entry| Arc::clone(&entry.served)).collect()
    }

    /// Takes a closed export out, with its file, which nobody uses any more.
    pub fn take(&self, name: &str) -> Result<Gone> {
        let mut table = self.table();
        let entry = entry(&mut table, name)?;
        let used = !entry.clients.is_empty() || Arc::get_mut(&mut entry.served).is_none();
        if used || entry.phase != Phase::Closing {
            let message = format!("export {} is still in use by another request", printable(name));
            return Err(Error::new(Kind::Busy, message));
        }
        let gone = table.remove(name).and_then(|entry| {
            let usage = entry.usage();
            let served = Arc::into_inner(entry.served)?;
            self.herald.ended(&served);
            self.count_gone(served.traffic.moved());
            Some(Gone { file: served.backend.into_file(), usage })
        });
        self.publish(&table);
        gone.ok_or_else(|| unknown(name))
    }

    /// What clients of all exports have in flight.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.taken()
    }

    /// What clients of all exports have moved so far; never less than before.
    pub fn moved(&self) -> Moved {
        let table = self.table();
        let gone = *self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        table.values().map(|entry| entry.served.traffic.moved()).fold(gone, Moved::and)
    }

    /// Keeps what was moved of an export that leaves the table, whose lock is held.
    fn count_gone(&self, moved: Moved) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        *gone = gone.and(moved);
    }

    fn shown(&self, entry: &Entry) -> api::Export {
        let served = &entry.served;
        api::Export {
            name: served.name.clone(),
            volume_id: served.volume_id,
            volume_name: None,
            read_only: served.read_only,
            shared: entry.shared,
            access: entry.access.shown().clone(),
            uris: self.locations.uris(&served.name, entry.access.needs_tls()),
            clients: entry.clients.iter().map(|client| client.shown()).collect(),
            traffic: served.traffic.shown(),
            device_path: served.device_path.clone(),
            state: entry.state(),
            usage: entry.usage(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing under the lock leaves the table half changed, so a panic elsewhere does not spoil it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, table: &Table) {
        let clients = table.values().map(|entry| entry.clients.len()).sum();
        self.activity.send_replace(Activity { exports: table.len(), clients });
    }
}

fn entry<'a>(table: &'a mut Table, name: &str) -> Result<&'a mut Entry> {
    table.get_mut(name).ok_or_else(|| unknown(name))
}

/// The other connections of the same client; of one on the Unix socket none are known.
fn connections_of<'a>(table: &'a Table, caller: &Caller) -> impl Iterator<Item = &'a Arc<Client>> + use<'a> {
    let identity = caller.identity();
    let clients = table.values().flat_map(|entry| &entry.clients);
    clients.filter(move |other| identity.is_some() && other.caller().identity() == identity)
}

fn unknown(name: &str) -> Error {
    Error::new(Kind::NotFound, format!("no export is named {}", printable(name))).hint("volctl exports lists them")
}

fn closing(name: &str) -> Error {
    Error::new(Kind::Conflict, format!("export {} is being removed", printable(name)))
}
