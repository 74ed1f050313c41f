//! The simulated CloudStack outside the guest, whose hypervisor plugs the volumes' disks into it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use volctl::model::{VmId, VolumeId};

use crate::guest::HOTPLUG_PORTS;
use crate::support::simulator::Simulator;
use crate::support::wait_for;

/// A simulator whose VM is the guest.
pub struct Cloud {
    /// The simulator.
    pub simulator: Simulator,
    disks: PathBuf,
}

impl Cloud {
    /// Starts the simulator. Its hypervisor finds QEMU at a socket, which need not be there yet.
    pub fn start(vm: VmId, work: &Path, hypervisor: &Path) -> Self {
        let disks = work.join("disks");
        fs::create_dir(&disks).unwrap();
        let options = [
            ["--this-vm", &vm.to_string()],
            ["--qmp", &hypervisor.to_string_lossy()],
            ["--qmp-ports", &HOTPLUG_PORTS.to_string()],
            ["--data", &disks.to_string_lossy()],
        ];
        Self { simulator: Simulator::start_as_it_is(options.as_flattened()), disks }
    }

    /// Where its API answers.
    pub fn address(&self) -> SocketAddr {
        let endpoint = self.simulator.endpoint();
        endpoint.trim_start_matches("http://").trim_end_matches("/client/api").parse().unwrap()
    }

    /// The volume of the disk that a VM runs from.
    pub fn root(&self, vm: VmId) -> VolumeId {
        let state = self.simulator.state();
        let mut volumes = state["volumes"].as_array().unwrap().iter();
        let root = volumes.find(|volume| volume["type"] == "ROOT" && volume["virtualmachineid"] == vm.to_string());
        root.unwrap()["id"].as_str().unwrap().parse().unwrap()
    }

    /// Whether it holds a volume to be attached, whatever the guest has.
    pub fn is_attached(&self, volume: VolumeId) -> bool {
        self.simulator.listed(&volume.to_string()).get("virtualmachineid").is_some()
    }

    /// Waits until it holds a volume to be attached no more.
    pub fn wait_detached(&self, volume: VolumeId) {
        wait_for("the detach in the cloud", || (!self.is_attached(volume)).then_some(()));
    }

    /// A volume's bytes, behind everybody's back.
    pub fn disk(&self, volume: VolumeId) -> PathBuf {
        self.disks.join(format!("{volume}.img"))
    }
}
