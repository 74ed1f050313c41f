//! One export as its clients' threads see it: the device, what is offered, and what has become of it.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::backend::{self, Backend};
use super::gather::Gather;
use super::herald::Herald;
use super::latch::Latch;
use super::memory::Spare;
use super::protocol::{BlockSizes, Errno, Fault, Headers, transmission_flag};
use super::traffic::Traffic;
use super::workers::Workers;
use crate::api::{Access, Usage};
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, is_hidden, printable};

/// The longest export name, in bytes: what every client can show and type, and far below the protocol's 4096.
const MAXIMUM_NAME: usize = 255;

/// What is to be served.
#[derive(Debug)]
pub struct ExportSpec {
    /// The export name, 1 to 255 bytes without control characters.
    pub name: String,
    /// Its volume.
    pub volume_id: VolumeId,
    /// Refuse writes.
    pub read_only: bool,
    /// Let several clients write at a time.
    pub shared: bool,
    /// Who may open it.
    pub access: Access,
    /// The device's stable path, shown only: `file` is what is served.
    pub device_path: PathBuf,
    /// The open device; open for writing too unless `read_only`.
    pub file: File,
    /// The size that the device must have, in bytes.
    pub size_bytes: u64,
    /// What clients did with it while another process served it.
    pub usage: Usage,
}

/// An export as its clients' threads see it.
pub(super) struct Served {
    pub name: String,
    pub volume_id: VolumeId,
    pub read_only: bool,
    pub device_path: PathBuf,
    pub backend: Backend,
    /// Who waits for it.
    pub workers: Workers,
    /// Memory for its requests.
    pub spare: Spare,
    /// How its requests come.
    pub gather: Gather,
    /// Raised when the export closes its clients.
    pub stop: Latch,
    /// What clients did before this process served it.
    pub before: Usage,
    /// What they have done since.
    pub traffic: Traffic,
    herald: Herald,
    failed: AtomicBool,
    /// The device is no longer there: nothing is read or written any more, whatever the open file would still do.
    gone: AtomicBool,
}

impl Served {
    /// Takes a device over, which must be what was said of it; `direct` takes its data past the page cache.
    pub fn new(spec: ExportSpec, direct: bool, herald: Herald) -> Result<Self> {
        check_name(&spec.name)?;
        let label = printable(&spec.name);
        let path = spec.device_path.display();
        let mut backend = Backend::new(spec.file).map_err(|error| {
            Error::new(Kind::DeviceMissing, format!("export {label}: the size of {path} cannot be read: {error}"))
        })?;
        let (size, expected) = (backend.size(), spec.size_bytes);
        if size != expected {
            let message = format!("export {label}: {path} has {size} bytes, and {expected} were expected");
            return Err(Error::new(Kind::DeviceMismatch, message));
        }
        if direct {
            backend.bypass_cache(!spec.read_only).map_err(|error| {
                let message = format!("export {label}: {path} cannot be served past the page cache: {error}");
                Error::new(Kind::Config, message).hint("[nbd] direct = false serves it through the page cache")
            })?;
        }
        Ok(Self {
            stop: Latch::new().map_err(|error| Error::new(Kind::Internal, error).doing(format!("export {label}")))?,
            name: spec.name,
            volume_id: spec.volume_id,
            read_only: spec.read_only,
            device_path: spec.device_path,
            backend,
            workers: Workers::default(),
            spare: Spare::default(),
            gather: Gather::new(),
            before: spec.usage,
            traffic: Traffic::default(),
            herald,
            failed: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        })
    }

    /// Whether the device is no longer there.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Says that the device is no longer there.
    pub fn mark_gone(&self) {
        self.failed.store(true, Ordering::Relaxed);
        if !self.gone.swap(true, Ordering::Relaxed) {
            self.herald.failed(self, "its device is gone");
            let export = printable(&self.name);
            tracing::error!(export, volume = %self.volume_id, "export {export} failed: its device is gone");
        }
    }

    /// Whether its device failed; for good.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Brings all that was written to stable storage.
    pub fn flush(&self) -> io::Result<()> {
        self.backend.flush()?;
        self.traffic.note_flush();
        Ok(())
    }

    /// What a client with such headers learns before it enters.
    pub fn offer(&self, headers: Headers) -> Offer {
        use transmission_flag::*;
        // All connections share one open file, and a flush is a flush of the file: multi-conn is true.
        let mut flags = HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN | SEND_CACHE;
        if headers != Headers::Simple {
            flags |= SEND_DF;
        }
        if self.read_only {
            flags |= READ_ONLY;
        } else {
            flags |= SEND_WRITE_ZEROES | SEND_FAST_ZERO | if self.backend.trims() { SEND_TRIM } else { 0 };
        }
        Offer { size: self.backend.size(), flags, block_sizes: self.backend.block_sizes() }
    }

    /// Takes the requests of the last second, to be called each second; where there were none, their memory is given back.
    pub fn sample_traffic(&self) {
        self.traffic.sample();
        if self.traffic.shown().requests_per_second == 0 {
            self.spare.forget();
        }
    }

    /// What a client is told of an I/O error. The first that is the device's own makes the export `failed` for good.
    pub fn fault(&self, error: &io::Error) -> Fault {
        let errno = backend::errno(error);
        if errno == Errno::Io && !self.failed.swap(true, Ordering::Relaxed) {
            self.herald.failed(self, &error.to_string());
            let export = printable(&self.name);
            tracing::error!(export, volume = %self.volume_id, "export {export} failed: {error}");
        }
        let text = match errno {
            Errno::NoSpc => "no space is left behind the export",
            Errno::Perm => "the device refuses it",
            Errno::NoMem => "the server is out of memory",
            _ => "the device reports an input/output error",
        };
        Fault { errno, text }
    }
}

/// What a client learns before it enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    /// Bytes.
    pub size: u64,
    /// Transmission flags.
    pub flags: u16,
    /// What its requests should keep to.
    pub block_sizes: BlockSizes,
}

impl Offer {
    /// Whether a client that was told of another offer finds in this one all that it relies on.
    pub fn keeps(&self, told: &Offer) -> bool {
        let modes = [self.flags, told.flags].map(|flags| flags & transmission_flag::READ_ONLY);
        modes[0] == modes[1]
            && told.flags & !self.flags == 0
            && told.size <= self.size
            && self.block_sizes.minimum <= told.block_sizes.minimum
    }
}

fn check_name(name: &str) -> Result<()> {
    if !name.is_empty() && name.len() <= MAXIMUM_NAME && !name.chars().any(is_hidden) {
        return Ok(());
    }
    let message = format!(
        "\"{}\" cannot be an export name: 1 to {MAXIMUM_NAME} bytes without control characters are needed",
        printable(&name.chars().take(64).collect::<String>())
    );
    Err(Error::new(Kind::Usage, message))
}
