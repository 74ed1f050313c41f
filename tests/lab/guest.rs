//! The guest: a VM under QEMU, its hardware, commands in it, and disks that come and go while it runs.
//!
//! QEMU emulates (TCG), so that no hardware virtualisation is needed. The guest reaches the host only where a port is
//! forwarded by name, and the host reaches it through a virtio-serial port, on which `rootfs/usr/local/sbin/lab-agent`
//! listens.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use volctl::model::{Serial, VmId};

use crate::image::{Image, files_disk};
use crate::qmp::Qmp;
use crate::tool::{mortal_tool, tool};

/// Where `restrict=on` lets the guest reach one service of the host.
pub const CLOUDSTACK_ADDRESS: &str = "10.0.2.100:80";

/// Where the host's forwarded port arrives in the guest.
pub const NBD_ADDRESS: &str = "10.0.2.15:10809";

/// Ports that the hypervisor of the simulated cloud plugs disks into: `rp1`, `rp2`, ...
pub const HOTPLUG_PORTS: usize = 8;

/// How long a command in the guest may take, in seconds, where nothing else is said.
const COMMAND_SECONDS: u64 = 240;

/// How long the boot may take.
const BOOT_SECONDS: u64 = 240;

/// How long it takes on a machine with nothing else to do, in seconds.
const QUIET_BOOT_SECONDS: f64 = 10.0;

/// What a VM is before it starts.
pub struct Hardware<'a> {
    /// Its SMBIOS system UUID, as on CloudStack.
    pub vm: VmId,
    /// The serial of its root disk.
    pub root: Serial,
    /// The files on its second disk, which it mounts at `/usr/local/bin`.
    pub files: Vec<PathBuf>,
    /// What [`CLOUDSTACK_ADDRESS`] leads to.
    pub cloudstack: SocketAddr,
    /// Where the simulated cloud's hypervisor finds QEMU.
    pub hypervisor: &'a Path,
}

/// What a command in the guest came to.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; 124 or 137 where its time was up.
    pub code: i32,
    /// The first MiB of its standard output.
    pub stdout: String,
    /// The first MiB of its standard error.
    pub stderr: String,
}

/// What a disk is plugged into.
pub enum Bus {
    /// virtio-blk, as CloudStack gives to most guests.
    Virtio,
    /// A SCSI disk of a virtio-scsi controller.
    VirtioScsi,
}

/// A running guest, which ends with this value.
pub struct Guest {
    qemu: Child,
    agent: UnixStream,
    qmp: RefCell<Qmp>,
    console: PathBuf,
    work: tempfile::TempDir,
    boot: Duration,
}

impl Guest {
    /// Boots the guest and waits until systemd says that all of it has started.
    pub fn boot(image: &Image, hardware: &Hardware) -> Self {
        let begun = Instant::now();
        let work = tempfile::tempdir().unwrap();
        let path = |name: &str| work.path().join(name);
        let programs = files_disk(work.path(), &hardware.files);
        let agent = UnixListener::bind(path("agent")).unwrap();
        let (qmp, qmp_of_qemu) = UnixStream::pair().unwrap();

        let mut command = qemu();
        machine(&mut command, image, hardware);
        disk(&mut command, "root", &format!("file={},snapshot=on", image.root.display()), hardware.root.as_str());
        disk(&mut command, "programs", &format!("file={},readonly=on", programs.display()), "volctl-programs");
        channels(&mut command, &path("agent"), &path("console"), hardware.hypervisor);
        let qemu = command
            .stdin(OwnedFd::from(qmp_of_qemu.try_clone().unwrap()))
            .stdout(OwnedFd::from(qmp_of_qemu))
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // It holds QEMU's end of the channel, whose closing tells that QEMU has gone.
        drop(command);

        let qmp = RefCell::new(Qmp::new(qmp));
        let (agent, _) = agent.accept().unwrap();
        let mut guest = Self { qemu, agent, qmp, console: path("console"), work, boot: Duration::ZERO };
        guest.wait_started();
        guest.boot = begun.elapsed();
        guest
    }

    /// How long something may take here that takes so long on a machine with nothing else to do.
    pub fn stretched(&self, quiet: Duration) -> Duration {
        quiet.mul_f64((self.boot.as_secs_f64() / QUIET_BOOT_SECONDS).max(1.0))
    }

    fn wait_started(&self) {
        let state = self.run_within("systemctl is-system-running --wait", BOOT_SECONDS);
        assert_eq!(
            state.stdout,
            "running",
            "the guest has booted with failed units: {}",
            self.ok("systemctl --failed")
        );
    }

    /// Asks until the guest answers: what is sent while it starts may be lost.
    fn hail(&self) {
        self.agent.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut answers = BufReader::new(&self.agent);
        for hail in 0..BOOT_SECONDS / 5 {
            writeln!(&self.agent, "5 {}", BASE64_STANDARD.encode(format!("echo hail {hail}"))).unwrap();
            let mut answer = String::new();
            while answers.read_line(&mut answer).is_ok_and(|length| length > 0) {
                if Output::parse(&answer).is_some_and(|output| output.stdout == format!("hail {hail}")) {
                    return;
                }
                answer.clear();
            }
        }
        panic!("the guest does not answer after its reboot");
    }

    /// Restarts the guest's operating system; its disks stay plugged.
    pub fn reboot(&self) {
        let boot = "cat /proc/sys/kernel/random/boot_id";
        let before = self.ok(boot);
        self.ok("systemd-run --quiet --on-active=1 systemctl reboot");
        self.qmp.borrow_mut().wait_reset();
        self.hail();
        assert_ne!(self.ok(boot), before);
        self.wait_started();
    }

    /// Runs a command line (bash, as root).
    pub fn run(&self, command: &str) -> Output {
        self.run_within(command, COMMAND_SECONDS)
    }

    /// Runs a command line, which must succeed, and returns its standard output.
    pub fn ok(&self, command: &str) -> String {
        let output = self.run(command);
        assert_eq!(output.code, 0, "in the guest: {command}\n{}\n{}", output.stdout, output.stderr);
        output.stdout
    }

    fn run_within(&self, command: &str, seconds: u64) -> Output {
        // The guest ends the command; this limit is for a guest that has stopped answering.
        self.agent.set_read_timeout(Some(Duration::from_secs(seconds + 30))).unwrap();
        let mut answer = String::new();
        writeln!(&self.agent, "{seconds} {}", BASE64_STANDARD.encode(command))
            .and_then(|()| BufReader::new(&self.agent).read_line(&mut answer))
            .unwrap_or_else(|error| panic!("the guest does not answer: {command}: {error}"));
        Output::parse(&answer).unwrap_or_else(|| panic!("the guest's answer makes no sense: {command}: {answer:?}"))
    }

    /// The host's port that leads to [`NBD_ADDRESS`].
    pub fn nbd_port(&self) -> u16 {
        let command = json!({"command-line": "info usernet"});
        let table = self.qmp.borrow_mut().execute("human-monitor-command", command);
        let line = table.as_str().unwrap().lines().find(|line| line.contains("TCP[HOST_FORWARD]")).unwrap();
        line.split_whitespace()
            .nth(3)
            .and_then(|port| port.parse().ok())
            .unwrap_or_else(|| panic!("no port in: {line}"))
    }

    /// Plugs a new, empty disk in, behind the cloud's back.
    pub fn plug(&self, bus: Bus, serial: &Serial, bytes: u64) {
        let file = self.work.path().join(format!("{serial}.img"));
        File::create(&file).and_then(|file| file.set_len(bytes)).unwrap();
        let (driver, bus) = match bus {
            Bus::Virtio => ("virtio-blk-pci", "lab"),
            Bus::VirtioScsi => ("scsi-hd", "scsi.0"),
        };
        let storage = json!({"driver": "file", "filename": file});
        let disk = json!({"driver": driver, "bus": bus, "id": device(serial), "serial": serial, "drive": node(serial)});
        let mut qmp = self.qmp.borrow_mut();
        qmp.execute("blockdev-add", json!({"driver": "raw", "node-name": node(serial), "file": storage}));
        qmp.execute("device_add", disk);
    }

    /// Takes such a disk away, once the guest has let it go.
    pub fn unplug(&self, serial: &Serial) {
        let mut qmp = self.qmp.borrow_mut();
        qmp.execute("device_del", json!({"id": device(serial)}));
        qmp.wait_deleted(&device(serial));
        qmp.execute("blockdev-del", json!({"node-name": node(serial)}));
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Nothing in it is kept, so it is not shut down. An error means that it has ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if std::thread::panicking() {
            let console = fs::read(&self.console).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            let lines: Vec<_> = console.lines().collect();
            eprintln!("the guest's console, its end:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

impl Output {
    fn parse(answer: &str) -> Option<Self> {
        let mut fields = answer.strip_suffix('\n')?.split(' ');
        let code = fields.next()?.parse().ok()?;
        let mut text = || {
            let bytes = BASE64_STANDARD.decode(fields.next()?).ok()?;
            Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
        };
        Some(Self { code, stdout: text()?, stderr: text()? })
    }
}

fn device(serial: &Serial) -> String {
    format!("lab-{serial}")
}

fn node(serial: &Serial) -> String {
    format!("lab-{serial}-node")
}

fn qemu() -> Command {
    let mut command = mortal_tool("qemu-system-x86_64", "qemu-system-x86");
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    command
}

fn machine(command: &mut Command, image: &Image, hardware: &Hardware) {
    tool("socat", "socat");
    command.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    command.args(["-uuid", &hardware.vm.to_string()]);
    command.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initrd);
    // A getty would cut the log off.
    command.args(["-append", "root=LABEL=lab rw console=ttyS0 systemd.getty_auto=no systemd.show_status=no"]);
    let network = format!(
        "user,id=network,restrict=on,hostfwd=tcp:127.0.0.1:0-{NBD_ADDRESS},\
         guestfwd=tcp:{CLOUDSTACK_ADDRESS}-cmd:socat - TCP:{}",
        hardware.cloudstack
    );
    command.args(["-netdev", &network, "-device", "virtio-net-pci,netdev=network,romfile="]);
    for port in 1..=HOTPLUG_PORTS {
        command.args(["-device", &format!("pcie-root-port,id=rp{port},chassis={port}")]);
    }
    command.args(["-device", &format!("pcie-root-port,id=lab,chassis={}", HOTPLUG_PORTS + 1)]);
    command.args(["-device", "virtio-scsi-pci,id=scsi"]);
}

fn disk(command: &mut Command, id: &str, source: &str, serial: &str) {
    command.args(["-drive", &format!("if=none,id={id},format=raw,{source}")]);
    command.args(["-device", &format!("virtio-blk-pci,drive={id},serial={serial}")]);
}

fn channels(command: &mut Command, agent: &Path, console: &Path, hypervisor: &Path) {
    command.arg("-serial").arg(format!("file:{}", console.display()));
    command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=lab.agent"]);
    command.arg("-chardev").arg(format!("socket,id=agent,path={}", agent.display()));
    command.args(["-qmp", "stdio", "-qmp", &format!("unix:{},server=on,wait=off", hypervisor.display())]);
}
