//! The package in a Debian with systemd: installed offline, configured, used by an unprivileged operator, rebooted,
//! removed and purged.

use std::path::Path;

use serde_json::{Value, json};
use volctl::api::{Changed, DeviceShown, ExportState, Exports};
use volctl::error::Kind;
use volctl::model::{VmId, VolumeId};

use crate::cloud::Cloud;
use crate::command::Volctl;
use crate::guest::{CLOUDSTACK_ADDRESS, Guest, Hardware, NBD_ADDRESS};
use crate::image::{self, Image};
use crate::in_use::HOLDER;
use crate::outside;
use crate::story::{random, uri, volume};
use crate::support::simulator::{API_KEY, SECRET_KEY};
use crate::{chapter, upgrade};

const MIB: usize = 1 << 20;

/// What every chapter has.
pub struct Installed<'a> {
    cloud: &'a Cloud,
    pub guest: &'a Guest,
    pub volctl: Volctl<'a>,
    /// For files of the clients outside.
    pub work: &'a Path,
}

#[test]
fn packaged() {
    let work = tempfile::tempdir().unwrap();
    let hypervisor = work.path().join("hypervisor");
    let vm = VmId::random();
    let cloud = Cloud::start(vm, work.path(), &hypervisor);
    let hardware = Hardware {
        vm,
        root: cloud.root(vm).serial(),
        files: image::packages(),
        cloudstack: cloud.address(),
        hypervisor: &hypervisor,
    };
    let guest = chapter("boot", || Guest::boot(&Image::get(), &hardware));
    let installed = Installed { cloud: &cloud, guest: &guest, volctl: Volctl::of_operator(&guest), work: work.path() };
    chapter("it_is_installed", || installed.it_is_installed());
    chapter("it_says_that_it_is_not_configured", || installed.it_says_that_it_is_not_configured());
    chapter("it_is_configured", || installed.it_is_configured());
    chapter("its_unit_is_sandboxed", || installed.its_unit_is_sandboxed());
    chapter("its_secret_may_be_a_credential", || installed.its_secret_may_be_a_credential());
    let (written, export) = chapter("an_operator_exports_a_volume", || installed.an_operator_exports_a_volume());
    chapter("a_change_is_found_in_the_journal", || installed.a_change_is_found_in_the_journal());
    chapter("no_client_notices", || upgrade::no_client_notices(&installed));
    chapter("a_client_that_would_notice_is_waited_for", || {
        upgrade::a_client_that_would_notice_is_waited_for(&installed)
    });
    chapter("a_disk_in_use_stays", || installed.a_disk_in_use_stays(vm));
    chapter("the_export_is_back_after_a_reboot", || installed.the_export_is_back_after_a_reboot(&export, &written));
    chapter("a_disk_that_is_unplugged_behind_its_back_fails_its_export", || {
        installed.a_disk_that_is_unplugged_behind_its_back_fails_its_export();
    });
    chapter("the_machine_keeps_its_hands_off", || installed.the_machine_keeps_its_hands_off());
    chapter("it_leaves_when_idle_and_comes_again", || installed.it_leaves_when_idle_and_comes_again());
    chapter("it_is_not_removed_while_it_is_used", || installed.it_is_not_removed_while_it_is_used());
    chapter("it_is_removed_and_purged", || installed.it_is_removed_and_purged());
}

impl Installed<'_> {
    fn it_is_installed(&self) {
        let package = image::package();
        self.guest.ok(&format!("dpkg --install /usr/local/bin/{}", package.file_name().unwrap().display()));
        assert_eq!(self.guest.ok("systemctl is-enabled volctld.socket volctld.service"), "enabled\nenabled");
        self.guest.ok("systemctl is-active volctld.socket");
        assert_eq!(
            self.guest.ok("systemctl --failed --no-legend --plain"),
            "",
            "nothing fails that is not configured yet"
        );
        let files = "/etc/volctl/config.toml /etc/volctl/secret /run/volctl /run/volctl/volctld.sock";
        assert_eq!(
            self.guest.ok(&format!("stat --format '%a %U:%G %n' {files}")),
            "644 root:root /etc/volctl/config.toml\n600 volctld:volctld /etc/volctl/secret\n2755 volctld:volctl-admin \
             /run/volctl\n660 root:volctl /run/volctl/volctld.sock"
        );
        self.guest.ok("useradd --groups volctl,volctl-admin alex");
        self.guest.ok("useradd stranger");
    }

    fn it_says_that_it_is_not_configured(&self) {
        let error = self.volctl.refused("ls");
        assert_eq!(error.kind, Kind::DaemonUnreachable);
        assert!(error.message.starts_with("the service failed: volctld cannot start: "), "{error}");
        assert!(error.message.contains("endpoint") && error.hint.unwrap().contains("endpoint"), "what to do");
        // Asked again and again, the socket stays, and nothing starts the service but who asks.
        for _ in 0..5 {
            self.volctl.refused("ls");
        }
        self.guest.ok("systemctl is-active volctld.socket");
        let service = self.guest.ok("systemctl show --property=NRestarts,Result,ExecMainStatus volctld.service");
        assert_eq!(service, "Result=exit-code\nNRestarts=0\nExecMainStatus=2");
    }

    fn it_is_configured(&self) {
        let nbd = self.guest.nbd_port();
        self.guest.ok(&format!(
            r#"cat >/etc/volctl/config.toml <<'END'
[cloudstack]
endpoint = "http://{CLOUDSTACK_ADDRESS}/client/api"
api_key = "{API_KEY}"
secret_key_file = "/etc/volctl/secret"
allow_plain_http = true

[nbd]
listen = ["{NBD_ADDRESS}"]
plain_public = true
allow = ["10.0.2.0/24"]
advertise = "127.0.0.1:{nbd}"

[daemon]
idle_timeout = "1s"
END"#
        ));
        self.guest.ok(&format!("printf '%s\\n' '{SECRET_KEY}' >/etc/volctl/secret"));
        // It looks at nothing for longer than 900 ms, and the first time here takes longer.
        self.guest.ok("for i in $(seq 100); do volctl health >/dev/null && exit; sleep 0.1; done; exit 1");
        let stranger = self.guest.run("runuser -u stranger -- volctl --json ls");
        assert!(stranger.code == 8 && stranger.stdout.contains("no right to connect"), "{stranger:?}");
        self.guest.ok("systemctl stop volctld.socket volctld.service");
        let error = self.volctl.refused("ls");
        assert!(error.message.starts_with("no daemon listens on /run/volctl/volctld.sock"), "{error}");
        assert!(error.hint.unwrap().contains("systemctl start volctld.socket"));
        self.guest.ok("systemctl start volctld.socket");
    }

    fn its_unit_is_sandboxed(&self) {
        let line = self.guest.ok("systemd-analyze security volctld.service --no-pager | tail -n 1");
        let exposure = line.split_whitespace().find_map(|word| word.parse::<f64>().ok());
        assert!(exposure.is_some_and(|exposure| exposure <= 2.2), "{line}");
        self.guest.ok("volctl ls >/dev/null; test $(stat --format %U /proc/$(systemctl show --property=MainPID --value volctld)) = volctld");
    }

    /// As the unit's example says; the key is then root's alone.
    fn its_secret_may_be_a_credential(&self) {
        self.guest.ok("chown root /etc/volctl/secret && sed -i /secret_key_file/d /etc/volctl/config.toml && \
             mkdir /etc/systemd/system/volctld.service.d && \
             grep -h ^#LoadCredential /lib/systemd/system/volctld.service | sed 's/^#/[Service]\\n/' \
             >/etc/systemd/system/volctld.service.d/secret.conf && \
             systemctl daemon-reload && systemctl restart volctld");
        self.volctl.ask::<Value>("health");
    }

    fn an_operator_exports_a_volume(&self) -> (Vec<u8>, Changed) {
        let created = self.volctl.change("create data1 --size 1G --export --reason 'a night'");
        let written = random(8 * MIB);
        outside::write(&uri(&created), self.work, &written);
        assert!(outside::read(&uri(&created), self.work, 0, 8) == written);
        let socket = self.guest.ok("stat --format '%a %U:%G' /run/volctl/nbd.sock");
        assert_eq!(socket, "660 volctld:volctl-admin", "its bytes are for those who may change");
        (written, created)
    }

    fn a_change_is_found_in_the_journal(&self) {
        let operation = self.volctl.change("export data1").operation.unwrap();
        let journal = "journalctl --unit volctld --output cat";
        let found = self.guest.ok(&format!("{journal} OPERATION={}", operation.id));
        assert!(found.contains("export of data1 asked for by user"), "{found}");
        let changes = self.guest.ok(&format!("{journal} MESSAGE_ID=4d6a1b0c3f0e4c6c9a4f6c1d2b7e8a55"));
        assert!(changes.contains("create of data1 asked for by user") && changes.contains("a night"), "{changes}");
    }

    /// Under the unit's sandbox the users of a disk are seen too.
    fn a_disk_in_use_stays(&self, vm: VmId) {
        let (created, device) = self.volctl.attached("create data2 --size 1G --attach");
        assert_eq!(self.cloud.simulator.listed(&volume(&created).to_string())["virtualmachineid"], vm.to_string());
        let (disk, node) = (device.path.display().to_string(), device.node.display());
        self.guest.ok(&format!("mkfs.ext4 -q {disk}"));
        let users = [
            // 512 bytes at a time: it does not end by itself meanwhile.
            (
                format!("dd if={disk} of=/dev/null bs=512 iflag=direct"),
                "dd",
                format!("ls -l {HOLDER}/fd | grep -q {node}"),
            ),
            (
                format!("--property=PrivateMounts=yes sh -c 'mount {disk} /mnt && exec sleep infinity'"),
                "/mnt",
                format!("grep -q ' /mnt ' {HOLDER}/mounts"),
            ),
        ];
        for (command, named, begun) in users {
            self.guest.ok(&format!("systemd-run --quiet --collect --unit=holder {command}"));
            self.guest.ok(&format!("until {begun}; do sleep 0.1; done"));
            let said = self.volctl.in_use("detach data2");
            assert!(said.contains(named), "{named} is not named: {said}");
            self.guest.ok("systemctl stop holder");
        }
        self.guest.ok(&format!("mount {disk} /mnt"));
        let said = self.volctl.in_use("detach data2 --force");
        assert!(said.contains("/mnt"), "a mount that was made after the daemon had started: {said}");
        self.guest.ok("umount /mnt");
        self.volctl.change("detach data2");
    }

    fn the_export_is_back_after_a_reboot(&self, exported: &Changed, written: &[u8]) {
        self.guest.reboot();
        self.guest.ok("for i in $(seq 100); do volctl -q exports | grep -q . && exit; sleep 0.1; done; exit 1");
        assert!(outside::read(&uri(exported), self.work, 0, 8) == written, "nobody typed anything, and it is served");
    }

    fn a_disk_that_is_unplugged_behind_its_back_fails_its_export(&self) {
        let shown: DeviceShown = self.volctl.ask("device data1");
        let id = shown.volume_id.to_string();
        self.cloud.simulator.admin("POST", "volume", json!({"id": id, "plugged": false}));
        self.guest.ok(&format!("udevadm wait --timeout=30 --removed {}", shown.device.path.display()));
        self.guest
            .ok("for i in $(seq 100); do volctl --json exports | grep -q failed && exit; sleep 0.1; done; exit 1");
        let exports: Exports = self.volctl.ask("exports");
        assert_eq!(exports.exports[0].state, ExportState::Failed);
        self.volctl.change("detach data1");
    }

    /// What clients write is not activated here: a volume group named like the guest's own, an md member, an ext4.
    fn the_machine_keeps_its_hands_off(&self) {
        self.guest.ok("truncate -s 64M /root/pv && losetup /dev/loop7 /root/pv && vgcreate --quiet own /dev/loop7");
        let contents = [
            (
                "group",
                "vgcreate --quiet --config 'devices{filter=[\"a|/dev/loop8|\",\"r|.*|\"]}' own /dev/loop8 && lvcreate --quiet --config 'devices{filter=[\"a|/dev/loop8|\",\"r|.*|\"]}' -Wn -Zn -an -l 1 -n data own",
            ),
            (
                "raid",
                "mdadm --create /dev/md/x --run --quiet --level=1 --raid-devices=2 --force /dev/loop8 missing && mdadm --stop --quiet /dev/md/x",
            ),
            ("files", "mkfs.ext4 -q /dev/loop8"),
        ];
        for (name, make) in contents {
            let created = self.volctl.change(&format!("create {name} --size 1G --export"));
            let image = self.image_of(make);
            outside::write(&uri(&created), self.work, &image);
            self.nothing_is_activated(volume(&created));
            self.volctl.change(&format!("detach {name}"));
            // Now udev would find it as soon as the disk comes.
            let attached = self.volctl.change(&format!("attach {name} --export"));
            self.guest.ok("udevadm settle");
            self.nothing_is_activated(volume(&attached));
            outside::write(&uri(&attached), self.work, &image);
            self.nothing_is_activated(volume(&attached));
            self.volctl.change(&format!("detach {name}"));
            self.guest.ok(&format!(
                "for i in $(seq 100); do test ! -e /var/lib/volctl/hands-off/{} && exit; sleep 0.1; done; exit 1",
                volume(&attached).serial()
            ));
        }
        self.volctl.ask::<Value>("delete --yes group raid files");
        self.guest.ok("vgremove --quiet --force own && losetup -d /dev/loop7");
    }

    /// The first MiB of a disk that the guest makes in a file.
    fn image_of(&self, make: &str) -> Vec<u8> {
        use base64::Engine;
        self.guest.ok("truncate -s 1G /root/disk && losetup /dev/loop8 /root/disk");
        self.guest.ok(make);
        self.guest.ok("udevadm settle; dmsetup remove own-data 2>/dev/null; mdadm --stop --scan 2>/dev/null; losetup -d /dev/loop8");
        let text = self.guest.ok("head -c 700K /root/disk | base64 -w0; rm /root/disk");
        base64::prelude::BASE64_STANDARD.decode(text).unwrap()
    }

    fn nothing_is_activated(&self, volume: VolumeId) {
        let link = format!("/dev/disk/by-id/virtio-{}", volume.serial());
        let node = self.guest.ok(&format!("readlink -f {link}"));
        let properties = self.guest.ok(&format!("udevadm info --query=property {link}"));
        for property in ["VOLCTL_HANDS_OFF=1", "SYSTEMD_READY=0", "UDISKS_IGNORE=1", "DM_MULTIPATH_DEVICE_PATH=0"] {
            assert!(properties.lines().any(|line| line == property), "{property}:\n{properties}");
        }
        assert!(!properties.contains("ID_FS_"), "{properties}");
        let name = node.trim_start_matches("/dev/");
        assert_eq!(self.guest.ok(&format!("ls /sys/class/block/{name}/holders")), "");
        assert_eq!(self.guest.ok("dmsetup ls"), "No devices found");
        assert!(!self.guest.ok("cat /proc/mdstat 2>/dev/null || true").contains(name));
        assert!(!self.guest.ok("cat /proc/mounts").contains(&node));
    }

    fn it_leaves_when_idle_and_comes_again(&self) {
        for _ in 0..3 {
            self.guest.ok("for i in $(seq 300); do systemctl is-active volctld | grep -q inactive && exit; sleep 0.1; done; systemctl status volctld; exit 1");
            self.guest.ok("test -S /run/volctl/volctld.sock && systemctl is-active volctld.socket");
            self.volctl.ask::<Value>("ls");
        }
        assert_eq!(self.guest.ok("systemctl --failed --no-legend --plain"), "");
    }

    fn it_is_not_removed_while_it_is_used(&self) {
        self.cloud.simulator.fault(json!({"command": "attachVolume", "mode": "job-never-ends"}));
        let attach = self.volctl.change("attach data2 --no-wait").operation.unwrap();
        let refused = self.guest.run("dpkg --remove volctl");
        assert_ne!(refused.code, 0);
        assert!(
            refused.stderr.contains("volctl drain") && refused.stderr.contains(&attach.id.to_string()),
            "{refused:?}"
        );
        self.guest.ok("systemctl is-active volctld.socket");
        self.cloud.simulator.admin("POST", "release-jobs", json!({}));
        self.volctl.wait_for(attach.id);
        self.guest.ok("runuser -u alex -- volctl drain");
    }

    fn it_is_removed_and_purged(&self) {
        self.guest.ok("dpkg --remove volctl");
        self.guest
            .ok("test -s /var/lib/volctl/volctl.db && test -f /etc/volctl/config.toml && test ! -e /usr/bin/volctl");
        let purged = self.guest.run("dpkg --purge volctl");
        assert_eq!(purged.code, 0, "{purged:?}");
        assert!(purged.stderr.contains("data2") && purged.stderr.contains("stays attached: /dev/disk"), "{purged:?}");
        assert!(purged.stderr.contains("kept in /etc/volctl/tls"), "{purged:?}");
        self.guest.ok("test ! -e /var/lib/volctl && test ! -e /run/volctl");
        assert_eq!(self.guest.ok("ls /etc/volctl"), "tls");
        self.guest.ok("test -s /var/backups/volctl-*/volctl.db");
    }
}
