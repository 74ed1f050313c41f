//! What only a look at the outside can tell of a configuration: at CloudStack, at this machine, at who listens here.
//!
//! Nothing is changed, and a daemon at work is not disturbed: CloudStack is asked to list only, no lock is taken and no
//! socket connected to.

mod cloud;
mod host;
mod listeners;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use self::report::Report;
use crate::api::Finding;
use crate::config::Config;

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(28);

/// Looks at all that a daemon with this configuration, state directory and control socket would need.
pub async fn check(config: Config, state_dir: PathBuf, socket: PathBuf) -> Vec<Finding> {
    let until = Instant::now() + LIMIT;
    let (device, nbd, directory) = (config.device.clone(), config.nbd.clone(), state_dir.clone());
    let (cloud, state, udev, listeners) = tokio::join!(
        cloud::look(config, until),
        look("state", until, move || host::state(&directory)),
        look("udev", until, move || host::udev(&device)),
        look("listeners", until, move || listeners::look(&nbd, &socket, host::daemon_of(&state_dir))),
    );
    [cloud, state, udev, listeners].into_iter().flat_map(Report::end).collect()
}

/// Makes a check that can hang on a file system, and does not wait for ever.
async fn look(name: &'static str, until: Instant, check: impl FnOnce() -> Report + Send + 'static) -> Report {
    timeout_at(until, tokio::task::spawn_blocking(check)).await.ok().and_then(Result::ok).unwrap_or_else(|| {
        let mut report = Report::of(name);
        report.skip("it did not end in time", "see whether a file system here does not answer");
        report
    })
}
