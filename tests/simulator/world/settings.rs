//! How the cloud behaves: its global settings, the caller's rights, and the latencies that tests set.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::seed;

/// The cloud's settings; `POST /admin/settings` changes them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The one key that is known; by default that of the command line.
    pub api_key: Option<String>,
    /// Its secret; by default that of the command line.
    pub secret_key: Option<String>,
    /// The key's account.
    pub account: String,
    /// `user` or `admin` (root admin).
    pub role: Role,
    /// Commands that the role may not call.
    pub denied_commands: Vec<String>,
    /// `enforce.post.requests.and.timestamps`
    pub enforce_post_requests_and_timestamps: bool,
    /// `default.page.size`; -1 for no limit.
    pub default_page_size: i64,
    /// How long a job takes, or a synchronous call, by command; `default` is for jobs only.
    pub latency: BTreeMap<String, Latency>,
    /// When a disk appears in the guest, counted from the end of its attach job; before it if negative.
    pub device_delay_ms: i64,
    /// Whether disks appear at all.
    pub devices_appear: bool,
    /// Whether a guest is told that its disk has grown; the job succeeds either way.
    pub resize_notifies: bool,
    /// `wait.detach.device`
    pub wait_detach_device_ms: u64,
    /// Limits calls, if given.
    pub throttle: Option<Throttle>,
    /// Takes no new jobs.
    pub maintenance: bool,
    /// The account's limit of volumes.
    pub max_volumes: Option<usize>,
    /// The account's limit of volume snapshots.
    pub max_snapshots: Option<usize>,
    /// The account's limit of primary storage, GiB.
    pub max_primary_storage_gib: Option<u64>,
    /// `storage.max.volume.size`, GiB.
    pub max_volume_size_gib: u64,
    /// Data disks of a KVM machine.
    pub max_data_disks: usize,
    /// `allow.user.expunge.recover.volume`
    pub allow_user_expunge_recover_volume: bool,
    /// `allow.user.force.stop.vm`
    pub allow_user_force_stop_vm: bool,
    /// `job.expire.minutes`
    pub job_expire_minutes: i64,
    /// The cloud's clock is ahead of this machine's by so much.
    pub clock_offset_seconds: i64,
    /// Answers tell that clock's time (`Date`).
    pub tells_time: bool,
}

/// What the caller is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// An ordinary account.
    User,
    /// Root admin.
    Admin,
}

/// A time between two bounds.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// At least so long.
    pub min_ms: u64,
    /// At most so long.
    pub max_ms: u64,
}

/// At most so many calls in each interval.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// Calls.
    pub max: u32,
    /// The interval's length.
    pub interval_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            api_key: None,
            secret_key: None,
            account: seed::ACCOUNT.to_owned(),
            role: Role::User,
            denied_commands: Vec::new(),
            enforce_post_requests_and_timestamps: false,
            default_page_size: 500,
            latency: BTreeMap::new(),
            device_delay_ms: 0,
            devices_appear: true,
            resize_notifies: true,
            wait_detach_device_ms: 10_000,
            throttle: None,
            maintenance: false,
            max_volumes: None,
            max_snapshots: None,
            max_primary_storage_gib: None,
            max_volume_size_gib: 2000,
            max_data_disks: 32,
            allow_user_expunge_recover_volume: true,
            allow_user_force_stop_vm: true,
            job_expire_minutes: 1440,
            clock_offset_seconds: 0,
            tells_time: true,
        }
    }
}

impl Settings {
    /// Whether the caller is root admin.
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// How long the next job of a command takes.
    pub fn job_latency(&self, command: &str) -> Duration {
        const DEFAULT: Latency = Latency { min_ms: 300, max_ms: 300 };
        self.latency.get(command).or_else(|| self.latency.get("default")).unwrap_or(&DEFAULT).pick()
    }

    /// How long the next synchronous call of a command takes.
    pub fn call_latency(&self, command: &str) -> Duration {
        self.latency.get(command).map(Latency::pick).unwrap_or_default()
    }
}

impl Latency {
    fn pick(&self) -> Duration {
        let span = self.max_ms.saturating_sub(self.min_ms).saturating_add(1);
        let random = Uuid::new_v4().as_u64_pair().1;
        Duration::from_millis(self.min_ms.saturating_add(random % span))
    }
}
