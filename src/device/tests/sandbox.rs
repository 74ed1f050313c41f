//! The sandbox: links to files, watched with inotify.

use super::*;

/// Far less than the safety look, so that only an event can have woken the waiter.
const AT_ONCE: Duration = Duration::from_millis(1500);

/// Waits for the first look to be over and then does something; says how long the waiter took from there.
async fn after_the_first_look<T>(waiter: impl Future<Output = T>, then: impl FnOnce()) -> (T, Duration) {
    tokio::pin!(waiter);
    // A single poll looks once and goes to wait.
    tokio::select! {
        biased;
        _ = &mut waiter => panic!("it did not wait"),
        () = std::future::ready(()) => {}
    }
    let since = Instant::now();
    then();
    (waiter.await, since.elapsed())
}

#[tokio::test]
async fn a_link_that_is_there_is_a_device() {
    let (sandbox, devices, device) = Sandbox::with_one(4096);
    assert_eq!(device.path, sandbox.by_id().join(format!("virtio-{A}")));
    assert_eq!(device.node, fs::canonicalize(sandbox.root.path().join("disk")).unwrap());
    assert_eq!(device.size_bytes, 4096);
    assert_eq!(devices.all().unwrap(), [device]);
    assert_eq!(devices.find(&serial(B)).unwrap(), None);
    assert!(devices.seen().contains(A));
    assert!(devices.this_vm().smbios.is_err(), "a sandbox proves no VM");
}

#[tokio::test]
async fn only_links_of_that_name_to_files_count() {
    let sandbox = Sandbox::new();
    let file = sandbox.file("disk", 1);
    for name in [format!("scsi-{A}"), format!("virtio-{A}-part1"), format!("virtio-{}", A.to_uppercase())] {
        symlink(&file, sandbox.by_id().join(name)).unwrap();
    }
    sandbox.link(B, Path::new("/nowhere/at/all"));
    fs::write(sandbox.by_id().join(format!("virtio-{A}")), "no link").unwrap();
    symlink(sandbox.root.path(), sandbox.by_id().join("virtio-00000000000000000000")).unwrap();
    symlink("/dev/null", sandbox.by_id().join("virtio-11111111111111111111")).unwrap();
    assert_eq!(sandbox.devices().all().unwrap(), []);
}

#[tokio::test]
async fn two_links_to_one_file_are_no_device() {
    let (sandbox, devices, device) = Sandbox::with_one(1);
    sandbox.link(B, &device.node);
    assert_eq!(devices.find(&serial(A)).unwrap_err().kind, Kind::DeviceMismatch);
    assert_eq!(devices.all().unwrap(), []);
}

#[tokio::test]
async fn a_late_link_wakes_the_waiter_and_so_does_its_end() {
    let sandbox = Sandbox::new();
    let devices = sandbox.devices();
    let file = sandbox.file("disk", 1);
    let a = serial(A);
    let mut link = PathBuf::new();
    let (found, took) = after_the_first_look(devices.wait_for(&a, within(60)), || link = sandbox.link(A, &file)).await;
    assert_eq!(found.unwrap().unwrap().path, link);
    assert!(took < AT_ONCE, "{took:?}");
    let (gone, took) =
        after_the_first_look(devices.wait_gone(&a, within(60)), || fs::remove_file(&link).unwrap()).await;
    assert!(gone.unwrap());
    assert!(took < AT_ONCE, "{took:?}");
}

#[tokio::test]
async fn the_directory_may_come_go_and_come_again() {
    let sandbox = Sandbox::new();
    let deep = sandbox.root.path().join("a/b/by-id");
    let config = config::Device { by_id_dir: deep.clone(), timeout: Duration::from_secs(60), max_disks: 32 };
    let devices = Devices::start(&config).unwrap();
    let file = sandbox.file("disk", 1);
    let a = serial(A);
    for _ in 0..3 {
        let make = || {
            fs::create_dir_all(&deep).unwrap();
            symlink(&file, deep.join(format!("virtio-{A}"))).unwrap();
        };
        let (found, took) = after_the_first_look(devices.wait_for(&a, within(60)), make).await;
        assert!(found.unwrap().is_some());
        assert!(took < AT_ONCE, "{took:?}");
        let remove = || fs::remove_dir_all(sandbox.root.path().join("a")).unwrap();
        let (gone, took) = after_the_first_look(devices.wait_gone(&a, within(60)), remove).await;
        assert!(gone.unwrap());
        assert!(took < AT_ONCE, "{took:?}");
    }
}

#[tokio::test]
async fn what_no_event_tells_is_found_by_looking() {
    let sandbox = Sandbox::new();
    let target = sandbox.root.path().join("disk");
    sandbox.link(A, &target);
    let devices = sandbox.devices();
    let a = serial(A);
    // The link was there all the time; only its target appears, in a directory that nobody watches.
    let (found, _) = after_the_first_look(devices.wait_for(&a, within(60)), || {
        File::create(&target).unwrap();
    })
    .await;
    assert!(found.unwrap().is_some());
}

#[tokio::test]
async fn waiting_ends_at_the_deadline() {
    let (_sandbox, devices, _) = Sandbox::with_one(1);
    let soon = Some(Instant::now() + Duration::from_millis(20));
    assert_eq!(devices.wait_for(&serial(B), soon).await.unwrap(), None);
    assert!(!devices.wait_gone(&serial(A), soon).await.unwrap());
}

#[tokio::test]
async fn events_are_counted_and_the_watch_ends_with_the_last_listener() {
    let sandbox = Sandbox::new();
    let devices = sandbox.devices();
    let mut wake = devices.wake();
    sandbox.link(A, &sandbox.file("disk", 1));
    timeout(AT_ONCE, wake.changed()).await.unwrap().unwrap();
    let (sender, last) = tokio::sync::watch::channel(0);
    let run = tokio::spawn(Watch::start(&sandbox.by_id(), true).run(sender));
    drop(last);
    timeout(AT_ONCE, run).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_path_is_traced_to_its_device() {
    let (sandbox, devices, device) = Sandbox::with_one(1);
    let other = sandbox.root.path().join("other-link");
    symlink(&device.path, &other).unwrap();
    for path in [&device.path, &device.node, &other] {
        assert_eq!(devices.identify(path).unwrap(), Identified { device: device.clone(), partition: None });
    }
    let cases = [
        ("relative", Kind::Usage),
        ("/nowhere/at/all", Kind::NotFound),
        ("/dev/null", Kind::NotFound),
        ("/", Kind::NotFound),
        ("/proc/self/exe", Kind::NotFound),
    ];
    for (path, kind) in cases {
        assert_eq!(devices.identify(Path::new(path)).unwrap_err().kind, kind, "{path}");
    }
    assert!(devices.identify(Path::new("/proc/self/exe")).unwrap_err().hint.unwrap().contains(A), "says what is here");
}

#[tokio::test]
async fn the_directory_must_not_be_a_file() {
    let sandbox = Sandbox::new();
    let by_id_dir = sandbox.file("file", 0);
    let config = config::Device { by_id_dir, timeout: Duration::from_secs(60), max_disks: 32 };
    assert_eq!(Devices::start(&config).unwrap_err().kind, Kind::Config);
}

#[tokio::test]
async fn holding_is_exclusive_and_proves_the_device() {
    let (_sandbox, devices, device) = Sandbox::with_one(4096);
    let held = devices.open_exclusive(&device, false).unwrap();
    assert_eq!(held.identity, devices.identity(&device).unwrap());
    assert!(held.identity.starts_with(A));
    let error = devices.open_exclusive(&device, true).unwrap_err();
    assert_eq!(error.kind, Kind::InUse, "{error}");
    assert!(devices.users(&device).await.unwrap().is_empty(), "our own use is none");
    drop(held);
    devices.open_exclusive(&device, true).unwrap();
}

#[tokio::test]
async fn another_file_under_the_same_link_is_not_the_same_device() {
    let (sandbox, devices, device) = Sandbox::with_one(4096);
    let before = devices.identity(&device).unwrap();
    fs::remove_file(&device.path).unwrap();
    sandbox.link(A, &sandbox.file("another", 8192));
    assert_ne!(devices.identity(&device).unwrap(), before);
    let error = devices.open_exclusive(&device, false).unwrap_err();
    assert_eq!(error.kind, Kind::DeviceMismatch, "the size is another: {error}");
    fs::remove_file(&device.path).unwrap();
    for error in [devices.open_exclusive(&device, false).unwrap_err(), devices.identity(&device).unwrap_err()] {
        assert_eq!(error.kind, Kind::DeviceMissing, "{error}");
    }
    assert_eq!(devices.users(&device).await.unwrap_err().kind, Kind::DeviceMissing);
}

#[tokio::test]
async fn a_path_that_leads_to_another_device_is_never_opened_for_it() {
    let (sandbox, devices, device) = Sandbox::with_one(4096);
    let other = sandbox.link(B, &sandbox.file("other", 4096));
    let wrong = Device { path: other, ..device };
    let error = devices.open_exclusive(&wrong, false).unwrap_err();
    assert_eq!(error.kind, Kind::DeviceMismatch, "{error}");
}
