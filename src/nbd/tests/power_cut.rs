//! A power cut under an export: of all that its device was given, only what it was told to flush is sure to be there.
//!
//! The device is a file that QEMU serves and logs (`blklogwrites`, in the format of the kernel's dm-log-writes): each write in
//! the order in which it came, and each flush. After an acknowledged FLUSH or FUA the power goes: the log is replayed up to
//! its last flush, and all that was acknowledged must be there. `VOLCTL_SEED` runs one again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::raw::Raw;
use super::{KIB, Place, in_time};
use crate::nbd::protocol::{Headers, command, command_flag};
use crate::nbd::{Clients, ExportSpec};

const SLOT: u64 = 64 * KIB;
const SLOTS: u64 = 32;
const SIZE: u64 = SLOT * SLOTS;
const ROUNDS: usize = 150;

/// A device that QEMU serves and logs.
struct Logged {
    qemu: Child,
    file: PathBuf,
    log: Log,
}

impl Logged {
    fn mount(directory: &Path) -> Self {
        let [disk, log, file] = ["qemu-disk", "qemu-log", "qemu-export"].map(|name| directory.join(name));
        File::create(&disk).unwrap().set_len(SIZE).unwrap();
        for path in [&log, &file] {
            File::create(path).unwrap();
        }
        let node = |name: &str, path: &Path| format!("driver=file,node-name={name},filename={}", path.display());
        let qemu = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node("disk", &disk), "--blockdev", &node("log", &log)])
            .args(["--blockdev", "driver=blklogwrites,node-name=logged,file=disk,log=log,log-super-update-interval=1"])
            .args(["--export", &format!("fuse,id=file,node-name=logged,writable=on,mountpoint={}", file.display())])
            .spawn()
            .unwrap_or_else(|error| {
                panic!("this test needs qemu-storage-daemon: apt-get install qemu-system-common ({error})")
            });
        let logged = Self { qemu, log: Log { file: File::open(&log).unwrap(), read: 0, at: 0 }, file };
        let deadline = in_time();
        while fs::metadata(&logged.file).unwrap().len() != SIZE {
            assert!(Instant::now() < deadline, "QEMU does not serve the file");
            std::thread::yield_now();
        }
        logged
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        kill(Pid::from_raw(self.qemu.id() as i32), Signal::SIGTERM).ok();
        self.qemu.wait().ok();
    }
}

/// The log, as far as it was read.
struct Log {
    file: File,
    /// Entries, and bytes of the file.
    read: u64,
    at: u64,
}

/// What the device was told.
enum Told {
    Write { offset: u64, bytes: Vec<u8> },
    Flush,
}

impl Log {
    const SECTOR: u64 = 512;
    const FLUSH: u64 = 1;
    const DISCARD: u64 = 4;

    /// What came to the device since this was last asked.
    fn news(&mut self) -> Vec<Told> {
        let head = self.numbers(0);
        assert_eq!(head[..2], [0x6a_7366_7773_6872, 1], "the log's magic and version");
        let mut told = Vec::new();
        for _ in self.read..head[2] {
            self.at += Self::SECTOR;
            let [sector, sectors, flags, _] = self.numbers(self.at);
            if flags & Self::FLUSH != 0 {
                told.push(Told::Flush);
            }
            let mut bytes = vec![0; (sectors * Self::SECTOR) as usize];
            if flags & Self::DISCARD == 0 {
                self.file.read_exact_at(&mut bytes, self.at + Self::SECTOR).unwrap();
                self.at += sectors * Self::SECTOR;
            }
            told.push(Told::Write { offset: sector * Self::SECTOR, bytes });
        }
        self.read = head[2];
        told
    }

    fn numbers(&self, at: u64) -> [u64; 4] {
        let mut bytes = [0; 32];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        [0, 8, 16, 24].map(|start| u64::from_le_bytes(bytes[start..start + 8].try_into().unwrap()))
    }
}

/// What is on stable storage, and what the device was given since its last flush.
struct Disk {
    stable: Vec<u8>,
    volatile: Vec<Told>,
    flushes: usize,
}

impl Disk {
    fn take(&mut self, told: Told) {
        self.volatile.push(told);
        if let Some(Told::Flush) = self.volatile.last() {
            self.flushes += 1;
            for told in self.volatile.drain(..) {
                if let Told::Write { offset, bytes } = told {
                    self.stable[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                }
            }
        }
    }
}

struct Asked {
    command: u16,
    flags: u16,
    offset: u64,
    bytes: Vec<u8>,
}

fn any_write(rng: &mut Rng, slot: u64) -> Asked {
    let start = rng.u64(..SLOT);
    let length = rng.u64(1..=SLOT - start) as usize;
    let flags = if rng.u8(..6) == 0 { command_flag::FUA } else { 0 };
    let (command, flags, bytes) = match rng.u8(..4) {
        // QEMU takes a hole that is punched into its file for a discard, which need not zero.
        0 => (command::WRITE_ZEROES, flags | command_flag::NO_HOLE, vec![0; length]),
        _ => (command::WRITE, flags, (0..length).map(|_| rng.u8(..)).collect()),
    };
    Asked { command, flags, offset: slot * SLOT + start, bytes }
}

/// Has requests under way on all connections at a time, and waits for their answers.
fn round(rng: &mut Rng, clients: &mut [Raw]) -> Vec<Asked> {
    let mut slots: Vec<u64> = (0..SLOTS).collect();
    rng.shuffle(&mut slots);
    slots.truncate(rng.usize(1..12));
    let mut sent = vec![0; clients.len()];
    let mut round = Vec::new();
    for slot in slots {
        let (to, asked) = (rng.usize(..clients.len()), any_write(rng, slot));
        let payload: &[u8] = if asked.command == command::WRITE { &asked.bytes } else { &[] };
        clients[to].ask(asked.flags, asked.command, sent[to], asked.offset, asked.bytes.len() as u64, payload);
        sent[to] += 1;
        round.push(asked);
    }
    for (client, sent) in clients.iter_mut().zip(sent) {
        let replies = client.replies(sent as usize, |_| 0);
        assert!(replies.values().all(|reply| reply.error == 0), "{replies:?}");
    }
    round
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_flushed_is_there_after_a_power_cut() {
    if !Path::new("/dev/fuse").exists() {
        eprintln!("not run: QEMU's file takes the kernel's FUSE");
        return;
    }
    let seed =
        std::env::var("VOLCTL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("VOLCTL_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let place = Place::new().await;
    let mut device = Logged::mount(place.directory.path());
    let file = File::options().read(true).write(true).open(&device.file).unwrap();
    let export = place.server.add(ExportSpec { file, size_bytes: SIZE, ..place.device("disk", 0) }).await.unwrap();
    let headers = [Headers::Simple, Headers::Structured, Headers::Extended, Headers::Simple];
    let mut clients: Vec<Raw> = headers
        .into_iter()
        .map(|headers| {
            let mut client = place.connect().with(headers);
            client.go(&export.name);
            client
        })
        .collect();

    let mut model = vec![0; SIZE as usize];
    let mut disk = Disk { stable: vec![0; SIZE as usize], volatile: Vec::new(), flushes: 0 };
    let mut was_volatile = false;
    for number in 0..ROUNDS {
        let written = round(&mut rng, &mut clients);
        for asked in &written {
            model[asked.offset as usize..][..asked.bytes.len()].copy_from_slice(&asked.bytes);
        }
        device.log.news().into_iter().for_each(|told| disk.take(told));
        for asked in written.iter().filter(|asked| asked.flags & command_flag::FUA != 0) {
            let found = &disk.stable[asked.offset as usize..][..asked.bytes.len()];
            assert!(found == asked.bytes, "round {number}: FUA of {} bytes at {}", found.len(), asked.offset);
        }
        was_volatile |= disk.stable != model;
        if rng.u8(..3) == 0 {
            // A flush on one connection is for what was acknowledged on all of them.
            assert_eq!(rng.choice(&mut clients).unwrap().answer(0, command::FLUSH, 0, 0, &[]).error, 0);
            device.log.news().into_iter().for_each(|told| disk.take(told));
            assert!(disk.stable == model, "round {number}: something that was acknowledged is not there");
        }
    }
    assert!(was_volatile && disk.flushes > ROUNDS / 6, "the power cut takes nothing: {} flushes", disk.flushes);
    drop(clients);
    assert!(place.idle("disk").await);
    drop(place.server.remove("disk", Clients::MustBeGone).await.unwrap());
}
