//! When the daemon leaves: no operation, no export, nobody who asks or watches, for `idle_timeout`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::api::method;
use crate::operation::Engine;

/// The requests under way that give the daemon a reason to stay. Looking at the daemon itself is none: whoever watches
/// over it would keep it for ever.
#[derive(Clone, Default)]
pub(super) struct Activity(Arc<watch::Sender<usize>>);

impl Activity {
    /// Counts a request of this method until the value is dropped.
    pub fn begin(&self, method: &str) -> Option<Busy> {
        let looks_at_itself = matches!(method, method::SYSTEM_HEALTH | method::SYSTEM_METRICS);
        (!looks_at_itself).then(|| {
            self.0.send_modify(|requests| *requests += 1);
            Busy(self.clone())
        })
    }
}

/// A request under way.
pub(super) struct Busy(Activity);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.send_modify(|requests| *requests -= 1);
    }
}

/// Ends once there was nothing to do for that long.
pub(super) async fn long_enough(engine: &Engine, activity: &Activity, timeout: Duration) {
    let mut requests = activity.0.subscribe();
    let mut ended = engine.ended();
    let mut exports = engine.world().nbd.activity();
    loop {
        requests.mark_unchanged();
        ended.mark_unchanged();
        exports.mark_unchanged();
        let busy = *requests.borrow() > 0 || has_work(engine);
        let patience = if busy { Duration::MAX } else { timeout };
        tokio::select! {
            _ = requests.changed() => {}
            _ = ended.changed() => {}
            _ = exports.changed() => {}
            () = tokio::time::sleep(patience) => return,
        }
    }
}

/// An export that is wished for keeps the daemon too: its device may come.
fn has_work(engine: &Engine) -> bool {
    let wishes = engine.world().store.wishes().map_or(1, |wishes| wishes.len());
    engine.unfinished() > 0 || wishes > 0
}
