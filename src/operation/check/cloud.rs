//! What CloudStack says: whether it is there, takes the key, allows what is needed, and knows this VM.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::super::this_vm::Known;
use super::report::Report;
use crate::cloudstack::{COMMANDS, CallError, CloudStack};
use crate::config::{self, Config};
use crate::device::Devices;
use crate::error::{Error, Kind, Result};
use crate::model::{VmId, VolumeType, printable};

/// No call takes longer, whatever is configured, so that one that hangs leaves time for its report.
const LONGEST_CALL: Duration = Duration::from_secs(20);
/// CloudStack refuses a request 60 s after it was signed; from half of that on, a clock that is off is told.
const SKEW: SignedDuration = SignedDuration::from_secs(30);
/// `Date` has whole seconds, and an answer is under way for a while.
const EXACT: SignedDuration = SignedDuration::from_secs(2);
/// The role does not allow the command (facts sheet, 3.2).
const NOT_ALLOWED: i64 = 432;

/// The checks, in order.
const ORDER: [&str; 9] = ["endpoint", "tls", "clock", "key", "rights", "project", "this_vm", "slots", "vm_snapshots"];

/// Looks at all that CloudStack can tell.
pub(super) async fn look(mut config: Config, until: Instant) -> Report {
    config.cloudstack.timeout = config.cloudstack.timeout.min(LONGEST_CALL);
    let mut looker = Looker { report: Report::of(ORDER[0]), config, until };
    if let Some(cloud) = looker.contact().await {
        looker.account(&cloud).await;
    }
    looker.report
}

struct Looker {
    report: Report,
    config: Config,
    until: Instant,
}

impl Looker {
    /// Endpoint, TLS, clock and key; the client where all are right.
    async fn contact(&mut self) -> Option<CloudStack> {
        let place = match self.within(reach(&self.config.cloudstack)).await {
            Ok(place) => place,
            Err(error) => return self.give_up("endpoint", error),
        };
        let cloud = match CloudStack::new(&self.config.cloudstack) {
            Ok(cloud) => cloud,
            Err(error) => {
                self.report.ok(format!("{place} takes connections"));
                return self.give_up("tls", error);
            }
        };
        match timeout_at(self.until, first_answer(&cloud)).await.unwrap_or_else(|_| Err(too_late())) {
            Err(error @ CallError::NotSent { .. }) if self.is_https() => {
                self.report.ok(format!("{place} takes connections"));
                self.give_up("tls", error.into())
            }
            Err(error @ (CallError::NotSent { .. } | CallError::NoAnswer { .. })) => {
                self.give_up("endpoint", error.into())
            }
            answer => self.judge(&cloud, &place, answer),
        }
    }

    /// CloudStack has answered: what that says of clock and key.
    fn judge(
        &mut self,
        cloud: &CloudStack,
        place: &str,
        answer: Result<Option<String>, CallError>,
    ) -> Option<CloudStack> {
        let version = answer.as_ref().ok().cloned().flatten();
        let version = version.map(|version| format!(", version {}", printable(&version))).unwrap_or_default();
        self.report.ok(format!("CloudStack answers at {place}{version}"));
        self.report.begin("tls");
        self.report.ok(match self.is_https() {
            true => "the certificate is trusted, and is for this name",
            false => "not used: the endpoint is plain http, which the configuration allows",
        });
        self.report.begin("clock");
        match (&answer, cloud.clock_skew()) {
            (Err(CallError::Auth { clock_skew: Some(_), .. }), _) => {
                return self.give_up("clock", answer.err()?.into());
            }
            (Err(CallError::Auth { .. }), None) => self.report.skip(
                "CloudStack's answers tell no time, and it takes a wrong clock for a wrong key",
                "compare `date -u` here with the management server's",
            ),
            (_, skew) => self.clock(skew),
        }
        self.report.begin("key");
        match answer {
            Ok(_) => self.report.ok("CloudStack takes the API key and the secret key"),
            Err(error) => return self.give_up("key", error.into()),
        }
        Some(cloud.clone())
    }

    fn clock(&mut self, skew: Option<SignedDuration>) {
        let Some(skew) = skew else {
            return self.report.ok("CloudStack's answers tell no time, but it did not call the request too old");
        };
        let (off, side) = (skew.abs(), if skew.is_positive() { "behind" } else { "ahead of" });
        let off = SignedDuration::from_secs(off.as_secs());
        match off {
            off if off <= EXACT => self.report.ok("this machine's clock is that of CloudStack"),
            off if off < SKEW => self.report.ok(format!("this machine's clock is {off:#} {side} CloudStack's")),
            off => self.report.bad(
                format!(
                    "this machine's clock is {off:#} {side} CloudStack's, which refuses requests that are a minute old"
                ),
                "set this machine's clock (timedatectl set-ntp true)",
            ),
        }
    }

    /// What the key's account may do, and what it has.
    async fn account(&mut self, cloud: &CloudStack) {
        self.report.begin("rights");
        let allowed = self.within(cloud.allowed_commands()).await;
        let lacking = self.rights(allowed);
        self.report.begin("project");
        let project = match self.config.cloudstack.project.is_some() && self.lacks(&lacking, &["listProjects"]) {
            true => None,
            false => self.project(cloud).await,
        };
        if project.is_none() {
            return self.skip_after("project");
        }
        self.report.begin("this_vm");
        let this_vm = match self.lacks(&lacking, &["listVirtualMachines", "listVolumes"]) {
            true => None,
            false => self.this_vm(cloud).await,
        };
        let Some(this_vm) = this_vm else { return self.skip_after("this_vm") };
        self.report.begin("slots");
        self.slots(cloud, this_vm).await;
        self.report.begin("vm_snapshots");
        if !self.lacks(&lacking, &["listVMSnapshot"]) {
            self.vm_snapshots(cloud, this_vm).await;
        }
    }

    /// Tells each command that the role lacks, and answers them; none where that is not known.
    fn rights(&mut self, allowed: Result<HashSet<String>>) -> Vec<&'static str> {
        let allowed = match allowed {
            Ok(allowed) => allowed,
            Err(error) => {
                self.report.error(error.doing("which commands the role of this account allows cannot be asked"));
                return Vec::new();
            }
        };
        let is_needed = |command: &str| command != "listProjects" || self.config.cloudstack.project.is_some();
        let lacking = COMMANDS.iter().filter(|(command, _)| is_needed(command) && !allowed.contains(*command));
        let lacking: Vec<&(&str, &str)> = lacking.collect();
        if lacking.is_empty() {
            self.report.ok("the role of this account allows every command that volctld sends");
        }
        for (command, effect) in &lacking {
            self.report.bad(
                format!("the role of this account lacks {command}: {effect}"),
                format!("ask the cloud's administrator to allow {command} in that role"),
            );
        }
        lacking.into_iter().map(|(command, _)| *command).collect()
    }

    /// Whether one of the commands that a check needs is not allowed, so that it cannot be made.
    fn lacks(&mut self, lacking: &[&str], needed: &[&str]) -> bool {
        let Some(command) = needed.iter().find(|command| lacking.contains(command)) else { return false };
        self.report.skip(
            format_args!("the role of this account lacks {command}"),
            format!("have {command} allowed, then check again"),
        );
        true
    }

    async fn project(&mut self, cloud: &CloudStack) -> Option<()> {
        match self.within(cloud.project_id()).await {
            Ok(Some(id)) => self.report.ok(format!("the configured project is {}", printable(id))),
            Ok(None) => self.report.ok("none is configured: the account's own volumes are used"),
            Err(error) => {
                self.report.error(error);
                return None;
            }
        }
        Some(())
    }

    async fn this_vm(&mut self, cloud: &CloudStack) -> Option<VmId> {
        let config = &self.config;
        let proof = async {
            let devices = Devices::start(&config.device)?;
            Known::prove(cloud, &devices, config.cloudstack.vm_id).await
        };
        match self.within(proof).await {
            Ok(known) => {
                self.report.ok(format!("this is VM {}, {}", known.id, known.by));
                Some(known.id)
            }
            Err(error) => {
                self.report.error(error);
                None
            }
        }
    }

    async fn slots(&mut self, cloud: &CloudStack, this_vm: VmId) {
        let max = self.config.device.max_disks as usize;
        match self.within(cloud.volumes_of_vm(this_vm)).await {
            Ok(disks) => {
                let used = disks.iter().filter(|disk| disk.volume_type == VolumeType::DataDisk).count();
                match max.saturating_sub(used) {
                    0 => self.report.bad(
                        format!("no slot is free: {used} of {max} data disks are attached to this VM"),
                        "detach one, or correct [device] max_disks if the hypervisor takes more",
                    ),
                    free => self.report.ok(format!("{free} of {max} are free for data disks")),
                }
            }
            Err(error) => self.report.error(error.doing("the volumes of this VM cannot be listed")),
        }
    }

    async fn vm_snapshots(&mut self, cloud: &CloudStack, this_vm: VmId) {
        match self.within(cloud.vm_snapshots(this_vm)).await {
            Ok(snapshots) if snapshots.is_empty() => self.report.ok("none, which would forbid to attach and to detach"),
            Ok(snapshots) => {
                let names: Vec<String> = snapshots.iter().take(10).map(|snapshot| printable(&snapshot.name)).collect();
                self.report.bad(
                    format!(
                        "this VM has VM snapshots ({}), with which CloudStack attaches and detaches nothing",
                        names.join(", ")
                    ),
                    "delete them in CloudStack",
                );
            }
            Err(error) => self.report.error(error.doing("the VM snapshots of this VM cannot be listed")),
        }
    }

    /// Tells why a check failed, and that those after it could not be made.
    fn give_up(&mut self, check: &'static str, error: Error) -> Option<CloudStack> {
        self.report.begin(check);
        self.report.error(error);
        self.skip_after(check);
        None
    }

    fn skip_after(&mut self, check: &str) {
        let others = ORDER.iter().skip_while(|name| **name != check).skip(1);
        self.report.skip_others(others);
    }

    fn is_https(&self) -> bool {
        self.config.cloudstack.endpoint.starts_with("https:")
    }

    /// What comes of it in time.
    async fn within<T, E: Into<Error>>(&self, looked: impl Future<Output = Result<T, E>>) -> Result<T> {
        timeout_at(self.until, looked)
            .await
            .map_err(|_| too_late().into())
            .and_then(|looked| looked.map_err(Into::into))
    }
}

fn too_late() -> CallError {
    CallError::NoAnswer {
        found: "CloudStack took so long to answer that the check was ended".to_owned(),
        hint: "see whether the management server, or a proxy before it, is in trouble",
    }
}

/// Connects to the endpoint once, which tells a name that is wrong from a certificate that is.
async fn reach(config: &config::CloudStack) -> Result<String> {
    let unreachable = |place: &str, cause: &dyn fmt::Display| {
        Error::new(Kind::CloudstackUnreachable, format_args!("CloudStack at {place} cannot be reached: {cause}"))
            .hint("see whether it is up, and check [cloudstack] endpoint")
    };
    let url = Url::parse(&config.endpoint).map_err(|error| unreachable("that endpoint", &error))?;
    let host = url.host_str().unwrap_or_default();
    let place = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
    let connecting = async {
        let addresses: Vec<_> = match lookup_host(&place).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                let cause = format!("its name cannot be resolved ({})", printable(&error.to_string()));
                let hint = "check the host in [cloudstack] endpoint, and this machine's DNS";
                return Err(unreachable(&place, &cause).hint(hint));
            }
        };
        TcpStream::connect(&addresses[..]).await.map_err(|error| unreachable(&place, &error))
    };
    let in_time = timeout(config.timeout, connecting).await;
    in_time.unwrap_or_else(|_| Err(unreachable(&place, &"no connection in time"))).map(|_| place)
}

/// CloudStack's version where it tells. A role that may not ask for it says nothing of the key, so then something else
/// is asked.
async fn first_answer(cloud: &CloudStack) -> Result<Option<String>, CallError> {
    match cloud.ping().await {
        Err(CallError::Refused(fault)) if fault.code == NOT_ALLOWED => cloud.allowed_commands().await.map(|_| None),
        answer => answer,
    }
}
