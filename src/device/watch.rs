//! What wakes those who wait for a device: udev's monitor and inotify. Both only wake; what there is, is looked at.
//!
//! A missed event costs little, since whoever waits also looks by himself now and then; so a watch that cannot be had is
//! logged and done without.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch::Sender;

/// The events of a directory that can mean another device: a link came, went or was replaced, or the directory itself
/// did.
const EVENTS: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// Both wakers. Made before the first look, so that nothing falls between.
pub(super) struct Watch {
    udev: Option<UdevMonitor>,
    directory: Option<DirectoryWatch>,
}

impl Watch {
    /// Watches a directory, and block devices where they are wanted.
    pub fn start(directory: &Path, block_devices: bool) -> Self {
        let udev = block_devices.then(|| UdevMonitor::listen(udev::MonitorBuilder::new()));
        Self {
            udev: udev.and_then(|udev| kept(udev, "udev's monitor")),
            directory: kept(DirectoryWatch::start(directory), "inotify"),
        }
    }

    /// Counts up `wake` at each event, until nobody listens any more.
    pub async fn run(mut self, wake: Sender<u64>) {
        loop {
            tokio::select! {
                () = wake.closed() => return,
                result = changed(&mut self.udev) => self.udev = kept_on(self.udev, result, "udev's monitor"),
                result = directory_changed(&mut self.directory) => {
                    self.directory = kept_on(self.directory, result, "inotify");
                }
            }
            wake.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

async fn changed(udev: &mut Option<UdevMonitor>) -> io::Result<()> {
    match udev {
        Some(udev) => udev.changed().await,
        None => pending().await,
    }
}

async fn directory_changed(directory: &mut Option<DirectoryWatch>) -> io::Result<()> {
    match directory {
        Some(directory) => directory.changed().await,
        None => pending().await,
    }
}

fn kept<T>(source: io::Result<T>, name: &str) -> Option<T> {
    source.inspect_err(|error| tracing::warn!(%error, "{name} cannot be had: devices are looked for now and then")).ok()
}

fn kept_on<T>(source: Option<T>, result: io::Result<()>, name: &str) -> Option<T> {
    kept(result, name).and(source)
}

/// An owned descriptor of another library, as tokio wants it.
struct Source<T>(T);

impl<T: AsFd> AsRawFd for Source<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn watched<T: AsFd>(source: T) -> io::Result<AsyncFd<Source<T>>> {
    // SAFETY: the source owns its descriptor, which stays the same for its life, and nothing here replaces the source.
    #[expect(unsafe_code, reason = "tokio has no safe constructor")]
    let registered = unsafe { AsyncFd::register(Source(source)) };
    Ok(registered?)
}

/// udev's own events of block devices, which come after its rules have made the links. No libudev object leaves it:
/// their reference counts are not atomic.
struct UdevMonitor {
    socket: AsyncFd<Source<udev::MonitorSocket>>,
}

impl UdevMonitor {
    fn listen(source: io::Result<udev::MonitorBuilder>) -> io::Result<Self> {
        let socket = source?.match_subsystem("block")?.listen()?;
        Ok(Self { socket: watched(socket)? })
    }

    /// Returns after at least one event, when all that had come are taken. Lost events (`ENOBUFS`) are an event.
    async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable_mut().await?;
            let mut came = false;
            loop {
                if ready.get_inner().0.iter().next().is_some() {
                    came = true;
                    continue;
                }
                match Errno::last() {
                    Errno::ENOBUFS => came = true,
                    Errno::EINTR => {}
                    Errno::EAGAIN => break,
                    other => return Err(other.into()),
                }
            }
            // Only now that it is dry: cleared earlier, what was left would sleep until the next event.
            ready.clear_ready();
            if came {
                return Ok(());
            }
        }
    }
}

/// A directory that may be missing, made, removed and made again.
struct DirectoryWatch {
    inotify: AsyncFd<Source<Inotify>>,
    directory: PathBuf,
    watched: Option<WatchDescriptor>,
}

impl DirectoryWatch {
    fn start(directory: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let mut watch = Self { inotify: watched(inotify)?, directory: directory.to_owned(), watched: None };
        watch.watched = watch.arm()?;
        Ok(watch)
    }

    /// Watches the directory and all above it, from the root down: each is watched before its child is looked for, so a
    /// child that is missing is announced. None while the directory itself is missing.
    fn arm(&self) -> io::Result<Option<WatchDescriptor>> {
        let mut path: Vec<_> = self.directory.ancestors().collect();
        path.reverse();
        let mut last = None;
        for directory in path {
            match self.inotify.get_ref().0.add_watch(directory, EVENTS) {
                Ok(descriptor) => last = Some(descriptor),
                // What cannot be read is not a way to learn of changes, but what is below it may be.
                Err(Errno::EACCES) => last = None,
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(last)
    }

    /// Returns when something in the directory changed, or when another directory has taken its place.
    async fn changed(&mut self) -> io::Result<()> {
        loop {
            let came = {
                let mut ready = self.inotify.readable_mut().await?;
                let Ok(events) = ready.try_io(|inotify| Ok(inotify.get_ref().0.read_events()?)) else { continue };
                let of_directory = |descriptor| Some(descriptor) == self.watched;
                events?.iter().any(|event| event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) || of_directory(event.wd))
            };
            let before = self.watched;
            self.watched = self.arm()?;
            if let Some(old) = before.filter(|_| before != self.watched) {
                // Fails where the kernel has dropped it together with the directory.
                let _ = self.inotify.get_ref().0.rm_watch(old);
            }
            if came || before != self.watched {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop there")]
    use super::*;
    use std::fs;
    use std::time::Duration;
    use tokio::time::timeout;

    /// The kernel's own events, since there may be no udevd here; what is taken from the socket has the same form.
    #[tokio::test]
    async fn each_burst_of_events_wakes() {
        let devices =
            fs::read_dir("/sys/class/block").unwrap().filter_map(|entry| Some(entry.ok()?.path().join("uevent")));
        let trigger = || devices.into_iter().find(|uevent| fs::write(uevent, "change").is_ok());
        let mut monitor = UdevMonitor::listen(udev::MonitorBuilder::new_kernel()).unwrap();
        let Some(uevent) = trigger() else {
            eprintln!("skipped: no block device here whose events may be made");
            return;
        };
        for _ in 0..3 {
            timeout(Duration::from_secs(10), monitor.changed()).await.unwrap().unwrap();
            for _ in 0..50 {
                fs::write(&uevent, "change").unwrap();
            }
        }
    }
}
