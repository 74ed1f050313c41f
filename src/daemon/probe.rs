//! Looks that may hang: each is made aside, one at a time, and waited for only so long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};

/// How long a look is waited for: with all of them side by side, health answers within two seconds whatever hangs.
pub(super) const PATIENCE: Duration = Duration::from_millis(900);

/// A kind of look. One that hangs keeps the next ones from beginning, so that they do not pile up.
#[derive(Clone, Default)]
pub(super) struct Probe(Arc<Mutex<()>>);

impl Probe {
    /// What a look that blocks finds; none where it, or one before it, does not come back in time.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        self.begun(|alone| {
            spawn_blocking(move || {
                let _alone = alone;
                look()
            })
        })
        .await
    }

    /// The same for a look that waits.
    pub async fn ask<T: Send + 'static>(&self, look: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.begun(|alone| {
            tokio::spawn(async move {
                let _alone = alone;
                look.await
            })
        })
        .await
    }

    async fn begun<T>(&self, begin: impl FnOnce(tokio::sync::OwnedMutexGuard<()>) -> JoinHandle<T>) -> Option<T> {
        let found = async { begin(Arc::clone(&self.0).lock_owned().await).await };
        tokio::time::timeout(PATIENCE, found).await.ok()?.ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn one_that_hangs_is_not_waited_for_and_not_begun_twice() {
        let probe = Probe::default();
        let (let_go, held) = mpsc::channel::<()>();
        assert!(probe.look(move || held.recv()).await.is_none());
        assert_eq!(probe.look(|| 2).await, None, "the first still hangs");
        drop(let_go);
        assert_eq!(probe.look(|| 3).await, Some(3));
        assert_eq!(probe.ask(async { 4 }).await, Some(4));
    }
}
