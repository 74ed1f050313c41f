//! How long others bear a client that holds what they wait for, and neither sends nor takes what it has begun.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::Client;
use super::in_flight::Pool;

/// So many bytes in the time that others bear it are progress, however slow.
const PROGRESS: usize = 64 << 10;
/// A client whose bytes are waited for is looked after so often.
pub(super) const GLANCE: Duration = Duration::from_secs(2);

/// With one connection, which loses it once others are out of patience.
pub(super) struct Patience {
    client: Arc<Client>,
    pools: [Arc<Pool>; 2],
    limit: Duration,
}

/// How far a client has come with one thing, and since when it has not come further.
pub(super) struct Pace {
    since: Instant,
    moved: usize,
}

impl Pace {
    /// It has moved so many bytes by now.
    pub fn new(moved: usize) -> Self {
        Self { since: Instant::now(), moved }
    }
}

impl Patience {
    /// With a client that holds room in both pools; others bear it for so long.
    pub fn new(client: Arc<Client>, all: Arc<Pool>, limit: Duration) -> Self {
        let pools = [Arc::clone(client.pool()), all];
        Self { client, pools, limit }
    }

    /// To be asked while the client is waited for, which has moved so many bytes. Nobody is in its way as long as nobody
    /// waits for room.
    ///
    /// # Errors
    /// Where others have waited as long for room as it has made no progress: it is cut off.
    pub fn bear(&self, pace: &mut Pace, moved: usize) -> io::Result<()> {
        if moved >= pace.moved + PROGRESS {
            *pace = Pace::new(moved);
        }
        let is_in_the_way = || self.pools.iter().any(|pool| pool.has_starved(2 * GLANCE));
        if pace.since.elapsed() < self.limit || !is_in_the_way() {
            return Ok(());
        }
        let caller = self.client.caller();
        tracing::warn!(
            client = %caller.peer,
            "NBD client {caller} cut off: others wait for what it has in flight, and it sends and takes next to nothing"
        );
        self.client.kick();
        self.client.cut();
        Err(io::Error::new(io::ErrorKind::TimedOut, "others wait for what it has in flight"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::os::unix::net::UnixStream;

    use jiff::Timestamp;

    use super::*;
    use crate::config::InFlight;
    use crate::nbd::client::{Caller, Peer};
    use crate::nbd::in_flight::Flight;

    const LIMIT: Duration = Duration::from_millis(20);

    #[test]
    fn who_makes_progress_or_is_in_nobodys_way_is_left_in_peace() {
        let pool = || Arc::new(Pool::new(InFlight { requests: 1, bytes: 1 }, LIMIT));
        let (own, all) = (pool(), pool());
        let socket = Arc::new(UnixStream::pair().unwrap().0.into());
        let caller = Caller::plain(Peer::Unix { pid: None, uid: 0 });
        let client = Arc::new(Client::new(caller, Timestamp::now(), socket, Arc::clone(&own)));
        let patience = Patience::new(Arc::clone(&client), Arc::clone(&all), LIMIT);
        let mut flight = Flight::new(own, Arc::clone(&all));
        assert!(flight.take(1));
        let mut pace = Pace::new(0);
        std::thread::sleep(2 * LIMIT);
        assert!(patience.bear(&mut pace, 0).is_ok(), "nobody waits");
        let mut other = Flight::new(pool(), all);
        assert!(!other.wait_for(1, Instant::now(), LIMIT / 2));
        assert!(patience.bear(&mut pace, 0).is_ok(), "nobody has waited for long");
        let since = Instant::now() - LIMIT;
        assert!(!other.wait_for(1, since, LIMIT / 2));
        assert!(patience.bear(&mut pace, PROGRESS).is_ok(), "it has made progress");
        std::thread::sleep(2 * LIMIT);
        assert!(!client.is_kicked());
        assert!(patience.bear(&mut pace, 2 * PROGRESS - 1).is_err(), "it makes none any more");
        assert!(client.is_kicked());
    }
}
