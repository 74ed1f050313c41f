//! A bell that wakes one thread, which waits beside a socket. It costs nothing while that thread is awake.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Rung by many, heard by one.
pub(super) struct Bell {
    event: EventFd,
    rung: AtomicBool,
    asleep: AtomicBool,
}

impl Bell {
    /// One that nobody has rung.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { event, rung: AtomicBool::new(false), asleep: AtomicBool::new(false) })
    }

    /// Wakes the one who hears it, or keeps it from going to sleep.
    pub fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.event.write(1)
        {
            tracing::error!("an NBD client's thread could not be woken: {error}");
        }
    }

    /// Whether to go to sleep, until the descriptor is readable; not where it was rung meanwhile.
    pub fn lie_down(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let rung = self.rung.swap(false, Ordering::SeqCst);
        if rung {
            self.asleep.store(false, Ordering::SeqCst);
        }
        !rung
    }

    /// After sleep, in which it was heard or not; whatever it was rung for is to be looked after now.
    pub fn get_up(&self, heard: bool) {
        self.asleep.store(false, Ordering::SeqCst);
        self.rung.store(false, Ordering::SeqCst);
        if heard {
            // Its descriptor is quiet again; it was readable, so that this does not fail.
            let _ = self.event.read();
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
