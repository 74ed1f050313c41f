//! In-use checks, on real processes, mounts, swap and loop devices.

use super::*;

/// Held by each test with loop devices: `losetup -f` opens those of the others to see whether they are free.
static LOOP_DEVICES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A loop device of a file or of another device, as long as it lives.
struct Loop {
    node: PathBuf,
}

impl Loop {
    /// None where this machine or user has no loop devices.
    fn over(path: &Path) -> Option<Self> {
        Self::with(&[], path)
    }

    fn with(options: &[&str], path: &Path) -> Option<Self> {
        if File::options().read(true).write(true).open("/dev/loop-control").is_err() {
            eprintln!("skipped: no loop devices here");
            return None;
        }
        let node = run("losetup", &[options, &["-f", "--show", path.to_str().unwrap()]].concat());
        Some(Self { node: PathBuf::from(node.trim()) })
    }

    fn node(&self) -> &str {
        self.node.to_str().unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.node).status();
    }
}

/// A partition with the number 2, as long as it lives.
struct Partition<'a> {
    disk: &'a Loop,
}

impl<'a> Partition<'a> {
    fn add(disk: &'a Loop, first_sector: u64, sectors: u64) -> Self {
        run("addpart", &[disk.node(), "2", &first_sector.to_string(), &sectors.to_string()]);
        Self { disk }
    }

    fn name(&self) -> String {
        format!("{}p2", self.disk.node.file_name().unwrap().to_str().unwrap())
    }
}

impl Drop for Partition<'_> {
    fn drop(&mut self) {
        let _ = Command::new("delpart").args([self.disk.node(), "2"]).status();
    }
}

/// A mount, as long as it lives.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn mount(node: &str, point: PathBuf) -> Mounted {
    fs::create_dir(&point).unwrap();
    run("mount", &[node, point.to_str().unwrap()]);
    Mounted(point)
}

async fn tree(devices: &Devices, device: &Device) -> String {
    devices.users(device).await.unwrap().to_string()
}

/// A sandbox whose device is a real block device: a loop device over a file elsewhere.
fn block_device() -> Option<(Sandbox, Loop, Devices, Device)> {
    let sandbox = Sandbox::new();
    let disk = Loop::over(&sandbox.file("backing", 32 << 20))?;
    sandbox.link(A, &disk.node);
    let devices = sandbox.devices();
    let device = devices.find(&serial(A)).unwrap().unwrap();
    assert_eq!(device.size_bytes, 32 << 20);
    Some((sandbox, disk, devices, device))
}

#[tokio::test]
async fn a_process_that_has_the_file_open_is_named() {
    let (_sandbox, devices, device) = Sandbox::with_one(1);
    assert!(devices.users(&device).await.unwrap().is_empty());
    let holder = Holder::open(&device.path);
    let pid = holder.0.id();
    let error = devices.users(&device).await.unwrap().into_error("data1");
    assert_eq!(error.kind, Kind::InUse);
    assert!(error.message.starts_with("data1 is in use here:\n"), "{error}");
    assert!(error.message.contains(&format!("is open in process {pid} (sleep); to free it: kill {pid}")), "{error}");
    drop(holder);
    assert!(devices.users(&device).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_lock_of_another_process_is_a_conflict() {
    let (_sandbox, devices, device) = Sandbox::with_one(1);
    let mut command = Command::new("flock");
    let path = device.node.to_str().unwrap();
    let holder = Holder::run(command.args(["--no-fork", path, "sleep", "600"]), Path::new("/dev/null"));
    let mut wait = tokio::time::interval(Duration::from_millis(10));
    let error = loop {
        wait.tick().await;
        match devices.open_exclusive(&device, true) {
            Ok(held) => drop(held),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, Kind::InUse, "{error}");
    drop(holder);
    devices.open_exclusive(&device, true).unwrap();
}

#[tokio::test]
async fn udevds_look_is_waited_out_but_not_for_ever() {
    let (sandbox, devices, device) = Sandbox::with_one(1);
    let worker = sandbox.root.path().join("(udev-worker)");
    fs::copy("/bin/sleep", &worker).unwrap();
    let short = Holder::run(Command::new(&worker).arg("0.3"), &device.path);
    assert!(devices.users(&device).await.unwrap().is_empty());
    drop(short);
    let _long = Holder::run(Command::new(&worker).arg("600"), &device.path);
    assert!(tree(&devices, &device).await.contains("(udev-worker)"));
}

#[tokio::test]
async fn a_file_under_a_loop_device_is_in_use_with_all_that_stands_on_it() {
    let _turn = LOOP_DEVICES.lock().await;
    let (sandbox, devices, device) = Sandbox::with_one(32 << 20);
    let Some(disk) = Loop::over(&device.node) else { return };
    run("mkfs.ext4", &["-q", disk.node()]);
    let mounted = mount(disk.node(), sandbox.root.path().join("my mount"));
    let file = mounted.0.join("file");
    File::create(&file).unwrap();
    let tree_now = tree(&devices, &device).await;
    let lines: Vec<_> = tree_now.lines().collect();
    assert_eq!(lines.len(), 2, "{tree_now}");
    assert!(lines[0].ends_with(&format!("the loop device {0}; to free it: losetup -d {0}", disk.node())), "{tree_now}");
    let point = mounted.0.display();
    assert_eq!(
        lines[1],
        format!("    {} is mounted on {point}; to free it: umount '{point}'", disk.node()),
        "the tree is indented and the command quoted"
    );
    drop(mounted);
    drop(disk);
    assert!(devices.users(&device).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_mounted_disk_is_in_use_in_every_namespace() {
    let _turn = LOOP_DEVICES.lock().await;
    let Some((sandbox, disk, devices, device)) = block_device() else { return };
    assert!(devices.users(&device).await.unwrap().is_empty());
    run("mkfs.ext4", &["-q", disk.node()]);
    let mounted = mount(disk.node(), sandbox.root.path().join("mnt"));
    assert!(tree(&devices, &device).await.contains("umount"));
    let error = devices.open_exclusive(&device, true).unwrap_err();
    assert_eq!(error.kind, Kind::InUse, "{error}");
    drop(mounted);

    let hidden = sandbox.root.path().join("hidden");
    fs::create_dir(&hidden).unwrap();
    let script = format!("mount {} {} && echo mounted && exec sleep 600", disk.node(), hidden.display());
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &script]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 8];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    let holder = Holder(child);
    let pid = holder.0.id();
    let tree_now = tree(&devices, &device).await;
    assert!(tree_now.contains(&format!("nsenter -t {pid} -m umount {}", hidden.display())), "{tree_now}");
    drop(holder);
}

#[tokio::test]
async fn a_partition_in_use_is_the_disk_in_use() {
    let _turn = LOOP_DEVICES.lock().await;
    let Some((sandbox, disk, devices, device)) = block_device() else { return };
    let partition = Partition::add(&disk, 2048, 32768);
    let name = partition.name();
    let number = fs::read_to_string(format!("/sys/class/block/{name}/dev")).unwrap();
    let (major, minor) = number.trim().split_once(':').unwrap();
    // Its node may be missing (no udevd), or be made by a devtmpfs; one of our own does as well.
    let node = sandbox.root.path().join("part");
    run("mknod", &[node.to_str().unwrap(), "b", major, minor]);
    let found = devices.identify(&node).unwrap();
    assert_eq!((found.device.serial.as_str(), found.partition), (A, Some(2)));

    run("mkfs.ext4", &["-q", node.to_str().unwrap()]);
    let mounted = mount(node.to_str().unwrap(), sandbox.root.path().join("mnt"));
    let tree_now = tree(&devices, &device).await;
    assert!(tree_now.contains(&format!("/dev/{name} is mounted on")), "{tree_now}");
    drop(mounted);

    let holder = Holder::open(&node);
    let tree_now = tree(&devices, &device).await;
    assert!(tree_now.contains(&format!("/dev/{name} is open in process {}", holder.0.id())), "{tree_now}");
    drop(holder);
}

#[tokio::test]
async fn a_loop_device_over_the_disk_is_in_use_though_it_is_not_exclusive() {
    let _turn = LOOP_DEVICES.lock().await;
    let Some((_sandbox, disk, devices, device)) = block_device() else { return };
    let Some(over) = Loop::over(&disk.node) else { return };
    let tree_now = tree(&devices, &device).await;
    assert!(tree_now.contains(&format!("losetup -d {}", over.node())), "{tree_now}");
}

#[tokio::test]
async fn swap_is_use() {
    let _turn = LOOP_DEVICES.lock().await;
    let Some((_sandbox, disk, devices, device)) = block_device() else { return };
    run("mkswap", &[disk.node()]);
    if !Command::new("swapon").arg(disk.node()).status().unwrap().success() {
        eprintln!("skipped: no swap here");
        return;
    }
    let tree_now = tree(&devices, &device).await;
    run("swapoff", &[disk.node()]);
    assert!(tree_now.contains(&format!("swapoff {}", disk.node())), "{tree_now}");
}

#[tokio::test]
async fn a_held_disk_cannot_be_mounted() {
    let _turn = LOOP_DEVICES.lock().await;
    let Some((sandbox, disk, devices, device)) = block_device() else { return };
    run("mkfs.ext4", &["-q", disk.node()]);
    let held = devices.open_exclusive(&device, false).unwrap();
    assert_eq!(held.identity, A);
    let point = sandbox.root.path().join("mnt");
    fs::create_dir(&point).unwrap();
    assert!(!Command::new("mount").arg(&disk.node).arg(&point).stderr(Stdio::null()).status().unwrap().success());
    assert!(devices.users(&device).await.unwrap().is_empty(), "our own hold is no use");
}

#[tokio::test]
async fn a_read_only_disk_is_not_opened_for_writing() {
    let _turn = LOOP_DEVICES.lock().await;
    let sandbox = Sandbox::new();
    let Some(disk) = Loop::with(&["-r"], &sandbox.file("backing", 1 << 20)) else { return };
    sandbox.link(A, &disk.node);
    let devices = sandbox.devices();
    let device = devices.find(&serial(A)).unwrap().unwrap();
    assert_eq!(devices.open_exclusive(&device, false).unwrap_err().kind, Kind::Conflict);
    devices.open_exclusive(&device, true).unwrap();
}
