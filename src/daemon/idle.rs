//! When the daemon leaves: no operation, no export, nobody who asks or watches, for `idle_timeout`.

use std::time::Duration;

use tokio::sync::watch;

use crate::operation::Engine;
use crate::rpc::server::Load;

/// Ends once there was nothing to do for that long.
pub(super) async fn long_enough(engine: &Engine, mut load: watch::Receiver<Load>, timeout: Duration) {
    let mut ended = engine.ended();
    let mut exports = engine.world().nbd.activity();
    loop {
        load.mark_unchanged();
        ended.mark_unchanged();
        exports.mark_unchanged();
        let busy = is_busy(engine, *load.borrow());
        let patience = if busy { Duration::MAX } else { timeout };
        tokio::select! {
            _ = load.changed() => {}
            _ = ended.changed() => {}
            _ = exports.changed() => {}
            () = tokio::time::sleep(patience) => return,
        }
    }
}

/// An export that is wished for keeps the daemon too: its device may come.
fn is_busy(engine: &Engine, load: Load) -> bool {
    let wishes = engine.world().store.wishes().map_or(1, |wishes| wishes.len());
    load.connections > 0 || engine.unfinished() > 0 || wishes > 0
}
