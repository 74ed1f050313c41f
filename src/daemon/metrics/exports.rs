//! The metrics of exports: of all together, of each, and of its clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;

use super::{Family, Seen, of, word};
use crate::api::{Client, Export, ExportState};
use crate::operation::World;
use crate::operation::tally::counter;
use crate::store::Wish;

pub(super) fn exports(world: &World, seen: &Seen) -> Vec<Family> {
    let served = world.nbd.list();
    let wishes = seen.journal.as_ref().map_or(&[][..], |journal| &journal.wishes);
    let mut families = vec![states(&served, wishes)];
    families.extend(of_all(world, seen, &served));
    families.extend(of_each(&served, wishes));
    families.extend(of_clients(&served));
    families
}

fn states(served: &[Export], wishes: &[Wish]) -> Family {
    let not_served = wishes.iter().filter(|wish| !served.iter().any(|export| export.volume_id == wish.volume_id));
    let absent = not_served.map(|wish| if wish.failed { ExportState::Failed } else { ExportState::Pending });
    let states: Vec<ExportState> = served.iter().map(|export| export.state).chain(absent).collect();
    let all = [ExportState::Pending, ExportState::Active, ExportState::Draining, ExportState::Failed];
    let family = Family::gauge("volctl_exports", "Exports, by state; a pending one waits for its device.");
    all.iter().fold(family, |family, state| {
        family.with(&[("state", &word(state))], states.iter().filter(|other| *other == state).count() as u64)
    })
}

fn of_all(world: &World, seen: &Seen, served: &[Export]) -> Vec<Family> {
    let clients = served.iter().map(|export| export.clients.len() as u64).sum();
    let in_flight = world.nbd.in_flight();
    let gauges = [
        ("volctl_nbd_clients", "NBD clients that are connected to an export.", clients),
        ("volctl_nbd_in_flight_requests", "Requests of NBD clients that are not answered yet.", in_flight.requests),
        ("volctl_nbd_in_flight_bytes", "Bytes that these requests hold in memory.", in_flight.bytes),
    ];
    let counters = [
        ("volctl_nbd_read_bytes_total", counter::READ, "Bytes that NBD clients read."),
        ("volctl_nbd_written_bytes_total", counter::WRITTEN, "Bytes that NBD clients wrote or zeroed."),
        ("volctl_nbd_requests_total", counter::REQUESTS, "Requests of NBD clients."),
        ("volctl_nbd_errors_total", counter::REFUSED, "Requests of NBD clients that were refused or failed."),
    ];
    let gauges = gauges.map(|(name, help, value)| Family::gauge(name, help).with(&[], value));
    let counters = seen.journal.iter().flat_map(|journal| {
        counters.map(|(name, counter, help)| {
            let value = of(&journal.counters, counter).next().map_or(0, |(_, value)| value);
            Family::counter(name, help).with(&[], value)
        })
    });
    gauges.into_iter().chain(counters).collect()
}

/// What each export has moved is what is kept, so that it never goes back; the rest is of now.
fn of_each(served: &[Export], wishes: &[Wish]) -> Vec<Family> {
    let moved = |name: &str, help: &str, bytes: fn(&Wish) -> u64| {
        let family = Family::counter(name, help);
        wishes.iter().fold(family, |family, wish| family.with(&[("export", &wish.name)], bytes(wish)))
    };
    let now = |name: &str, help: &str, value: fn(&Export) -> Option<u64>| {
        let known = served.iter().filter_map(|export| Some((export, value(export)?)));
        known.fold(Family::gauge(name, help), |family, (export, value)| family.with(&[("export", &export.name)], value))
    };
    vec![
        moved("volctl_export_read_bytes_total", "Bytes that clients of an export read.", |wish| wish.usage.bytes_read),
        moved("volctl_export_written_bytes_total", "Bytes that clients of an export wrote or zeroed.", |wish| {
            wish.usage.bytes_written
        }),
        now("volctl_export_clients", "NBD clients that are connected to an export.", |export| {
            Some(export.clients.len() as u64)
        }),
        now("volctl_export_requests_per_second", "Requests to an export in the last second.", |export| {
            Some(export.traffic.requests_per_second)
        }),
        now(
            "volctl_export_errors",
            "Requests to an export that were refused or failed since volctld began to serve it.",
            |export| Some(export.traffic.errors),
        ),
        now(
            "volctl_export_last_flush_timestamp_seconds",
            "When all that was written to an export was last brought to stable storage, in seconds since 1970.",
            |export| export.traffic.last_flush.map(seconds),
        ),
    ]
}

/// A client over all its connections to an export: the same address and certificate.
struct Connections {
    count: u64,
    since: Timestamp,
    last_request: Option<Timestamp>,
}

fn of_clients(served: &[Export]) -> [Family; 3] {
    let mut clients: BTreeMap<(&str, String, &str), Connections> = BTreeMap::new();
    for (export, client) in served.iter().flat_map(|export| export.clients.iter().map(move |client| (export, client))) {
        let who = (export.name.as_str(), address(client), client.subject.as_deref().unwrap_or_default());
        let one = Connections { count: 0, since: client.since, last_request: None };
        let connections = clients.entry(who).or_insert(one);
        connections.count += 1;
        connections.since = connections.since.min(client.since);
        connections.last_request = connections.last_request.max(client.last_request);
    }
    let family = |name: &str, help: &str, value: fn(&Connections) -> Option<u64>| {
        let known = clients.iter().filter_map(|(who, connections)| Some((who, value(connections)?)));
        known.fold(Family::gauge(name, help), |family, ((export, client, subject), value)| {
            family.with(&[("export", export), ("client", client), ("subject", subject)], value)
        })
    };
    [
        family("volctl_export_client_connections", "Connections of a client to an export.", |client| {
            Some(client.count)
        }),
        family(
            "volctl_export_client_since_timestamp_seconds",
            "When a client's oldest connection to an export was made, in seconds since 1970.",
            |client| Some(seconds(client.since)),
        ),
        family(
            "volctl_export_client_last_request_timestamp_seconds",
            "When a client's last request to an export came, in seconds since 1970.",
            |client| client.last_request.map(seconds),
        ),
    ]
}

/// Its address without the port, which is another for each connection.
fn address(client: &Client) -> String {
    client.address.parse().map_or_else(|_| client.address.clone(), |address: SocketAddr| address.ip().to_string())
}

fn seconds(at: Timestamp) -> u64 {
    at.as_second().unsigned_abs()
}
