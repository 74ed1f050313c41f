//! Named points at which a test stops the daemon, to kill it exactly there. Debug builds only: a release build has
//! nothing here.

use crate::api::OperationKind;

/// Which side of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The row says that the step is under way; nothing of it was done.
    BeforeRun,
    /// The step was done; the row does not say so yet.
    AfterRun,
    /// The row says that the step is being undone; nothing of that was done.
    BeforeUndo,
    /// The step was undone; the row does not say so yet.
    AfterUndo,
}

/// Where to stop: `attach/send/before`, `attach/send/after`, `create/await/before-undo` or `create/await/after-undo`.
pub const VARIABLE: &str = "VOLCTLD_PAUSE_AT";

/// Stops for ever, and says so on stderr, where the environment names this point.
#[cfg(debug_assertions)]
pub(super) async fn here(kind: OperationKind, step: &str, moment: Moment) {
    let kind = format!("{kind:?}").to_lowercase();
    let side = match moment {
        Moment::BeforeRun => "before",
        Moment::AfterRun => "after",
        Moment::BeforeUndo => "before-undo",
        Moment::AfterUndo => "after-undo",
    };
    let point = format!("{kind}/{step}/{side}");
    if std::env::var(VARIABLE).is_ok_and(|wanted| wanted == point) {
        eprintln!("paused at {point}");
        std::future::pending::<()>().await;
    }
}

#[cfg(not(debug_assertions))]
pub(super) async fn here(_kind: OperationKind, _step: &str, _moment: Moment) {}
