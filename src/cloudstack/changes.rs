//! What changes something: each asynchronous command under a job id that the caller has chosen and saved before
//! (facts sheet, 4.1 to 4.5).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::CloudStack;
use super::error::CallError;
use super::request::Request;
use super::wire::{Scalar, id, optional_id};
use crate::error::CloudStackFault;
use crate::model::{JobId, SnapshotId, Tag, VmId, VolumeId};

/// A change that is about to be sent: saved by the caller before the send, so that its fate can be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The id that CloudStack gives the job (`customjobid`).
    pub job_id: JobId,
    /// After this moment, on CloudStack's clock, it no longer accepts the request; whole seconds.
    pub expires: Timestamp,
}

/// The volume to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewVolume {
    /// Its name, at most 255 characters.
    pub name: String,
    /// Its size in GiB: needed with an offering of custom size, forbidden with any other.
    pub size_gib: Option<u64>,
    /// Its disk offering.
    pub offering_id: String,
    /// Its zone.
    pub zone_id: String,
}

/// The snapshot to be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSnapshot {
    /// Of this volume.
    pub volume_id: VolumeId,
    /// Its name, at most 255 characters.
    pub name: String,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// CloudStack took a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The job as CloudStack names it. Anything but the intent's means that `customjobid` was not honoured.
    pub job_id: Option<JobId>,
    /// The volume, where the command made one: it exists from now on.
    pub volume_id: Option<VolumeId>,
    /// The snapshot, where the command made one.
    pub snapshot_id: Option<SnapshotId>,
}

#[derive(Deserialize)]
struct Submitted {
    id: Option<Scalar>,
    jobid: Option<Scalar>,
}

#[derive(Deserialize)]
struct Done {
    success: Option<Scalar>,
}

/// What `recoverVolume` answers is the volume; that it answers is enough.
#[derive(Deserialize)]
struct Recovered {}

impl Request {
    /// `createVolume`; CloudStack makes whole GiB.
    pub fn create_volume(new: &NewVolume) -> Self {
        let request = Self::new("createVolume")
            .with("name", &new.name)
            .with("diskofferingid", &new.offering_id)
            .with("zoneid", &new.zone_id);
        match new.size_gib {
            Some(gib) => request.with("size", gib),
            None => request,
        }
    }

    /// `attachVolume`; 0 is the place of the root disk, and where none is named CloudStack chooses one.
    pub fn attach_volume(volume: impl ToString, vm: VmId, device_id: Option<u32>) -> Self {
        let request = Self::new("attachVolume").with("id", volume).with("virtualmachineid", vm);
        match device_id {
            Some(place) => request.with("deviceid", place),
            None => request,
        }
    }

    /// `detachVolume`, from whatever VM it is attached to; by the volume's id alone, as the other form is broken.
    pub fn detach_volume(volume: VolumeId) -> Self {
        Self::new("detachVolume").with("id", volume)
    }

    /// `resizeVolume` to so many GiB, without leave to shrink.
    pub fn resize_volume(volume: VolumeId, size_gib: u64) -> Self {
        Self::new("resizeVolume").with("id", volume).with("size", size_gib)
    }

    /// `createSnapshot`, copied to secondary storage within the job.
    pub fn create_snapshot(new: &NewSnapshot) -> Self {
        Self::new("createSnapshot").with("volumeid", new.volume_id).with("name", &new.name).with_tags(&new.tags)
    }

    /// `revertSnapshot`
    pub fn revert_snapshot(snapshot: SnapshotId) -> Self {
        Self::new("revertSnapshot").with("id", snapshot)
    }

    /// `deleteSnapshot`
    pub fn delete_snapshot(snapshot: SnapshotId) -> Self {
        Self::new("deleteSnapshot").with("id", snapshot)
    }

    /// `createTags` on a volume; all or none, and none where it has one of the keys.
    pub fn create_tags(volume: impl ToString, tags: &[Tag]) -> Self {
        Self::new("createTags").with("resourceids", volume).with("resourcetype", "Volume").with_tags(tags)
    }

    fn with_tags(self, tags: &[Tag]) -> Self {
        tags.iter().enumerate().fold(self, |request, (at, tag)| {
            request.with(format!("tags[{at}].key"), &tag.key).with(format!("tags[{at}].value"), &tag.value)
        })
    }

    /// `destroyVolume`: recoverable, or for ever with `expunge`. CloudStack refuses it for a volume that was never
    /// created on storage: that takes [`Request::delete_volume`].
    pub fn destroy_volume(volume: VolumeId, expunge: bool) -> Self {
        Self::new("destroyVolume").with("id", volume).with("expunge", expunge)
    }

    /// `deleteVolume`, for ever.
    pub fn delete_volume(volume: VolumeId) -> Self {
        Self::new("deleteVolume").with("id", volume)
    }

    /// `stopVirtualMachine`; `forced` marks it as stopped even where its host does not answer.
    pub fn stop_vm(vm: VmId, forced: bool) -> Self {
        Self::new("stopVirtualMachine").with("id", vm).with("forced", forced)
    }

    /// `destroyVirtualMachine`, recoverable until CloudStack expunges it; its data disks are detached, not deleted.
    pub fn destroy_vm(vm: VmId) -> Self {
        Self::new("destroyVirtualMachine").with("id", vm)
    }

    /// `recoverVolume`: takes back a `destroyVolume` without `expunge`.
    pub fn recover_volume(volume: VolumeId) -> Self {
        Self::new("recoverVolume").with("id", volume)
    }
}

impl CloudStack {
    /// A new job id, and 60 seconds to arrive.
    pub fn intend(&self) -> Intent {
        Intent { job_id: JobId::random(), expires: self.expiry() }
    }

    /// [`Request::create_volume`], in the configured project; the volume is there, in state `Allocated`, when the command
    /// is accepted.
    ///
    /// # Errors
    /// As each call; an answer without the volume's id is `NoAnswer`.
    pub async fn create_volume(&self, intent: &Intent, new: &NewVolume) -> Result<Accepted, CallError> {
        let submitted = self.submit(intent, self.in_project(Request::create_volume(new)).await?).await?;
        let volume_id = Some(id("the new volume's id", submitted.id)?);
        Ok(Accepted { volume_id, snapshot_id: None, job_id: job_id(submitted.jobid)? })
    }

    /// [`Request::attach_volume`]
    ///
    /// # Errors
    /// As each call.
    pub async fn attach_volume(
        &self,
        intent: &Intent,
        volume: VolumeId,
        vm: VmId,
        device_id: Option<u32>,
    ) -> Result<Accepted, CallError> {
        self.change(intent, Request::attach_volume(volume, vm, device_id)).await
    }

    /// [`Request::detach_volume`]
    ///
    /// # Errors
    /// As each call.
    pub async fn detach_volume(&self, intent: &Intent, volume: VolumeId) -> Result<Accepted, CallError> {
        self.change(intent, Request::detach_volume(volume)).await
    }

    /// [`Request::resize_volume`]; what cannot be is told in the job (facts sheet, 4.6).
    ///
    /// # Errors
    /// As each call.
    pub async fn resize_volume(&self, intent: &Intent, volume: VolumeId, size_gib: u64) -> Result<Accepted, CallError> {
        self.change(intent, Request::resize_volume(volume, size_gib)).await
    }

    /// [`Request::create_snapshot`]; the snapshot is there when the command is accepted.
    ///
    /// # Errors
    /// As each call; an answer without the snapshot's id is `NoAnswer`.
    pub async fn create_snapshot(&self, intent: &Intent, new: &NewSnapshot) -> Result<Accepted, CallError> {
        let submitted = self.submit(intent, Request::create_snapshot(new)).await?;
        let snapshot_id = Some(id("the new snapshot's id", submitted.id)?);
        Ok(Accepted { volume_id: None, snapshot_id, job_id: job_id(submitted.jobid)? })
    }

    /// [`Request::revert_snapshot`]
    ///
    /// # Errors
    /// As each call.
    pub async fn revert_snapshot(&self, intent: &Intent, snapshot: SnapshotId) -> Result<Accepted, CallError> {
        self.change(intent, Request::revert_snapshot(snapshot)).await
    }

    /// [`Request::delete_snapshot`]
    ///
    /// # Errors
    /// As each call.
    pub async fn delete_snapshot(&self, intent: &Intent, snapshot: SnapshotId) -> Result<Accepted, CallError> {
        self.change(intent, Request::delete_snapshot(snapshot)).await
    }

    /// [`Request::create_tags`]
    ///
    /// # Errors
    /// As each call.
    pub async fn create_tags(&self, intent: &Intent, volume: VolumeId, tags: &[Tag]) -> Result<Accepted, CallError> {
        self.change(intent, Request::create_tags(volume, tags)).await
    }

    /// [`Request::destroy_volume`]
    ///
    /// # Errors
    /// As each call.
    pub async fn destroy_volume(
        &self,
        intent: &Intent,
        volume: VolumeId,
        expunge: bool,
    ) -> Result<Accepted, CallError> {
        self.change(intent, Request::destroy_volume(volume, expunge)).await
    }

    /// [`Request::stop_vm`]
    ///
    /// # Errors
    /// As each call.
    pub async fn stop_vm(&self, intent: &Intent, vm: VmId, forced: bool) -> Result<Accepted, CallError> {
        self.change(intent, Request::stop_vm(vm, forced)).await
    }

    /// [`Request::destroy_vm`]
    ///
    /// # Errors
    /// As each call.
    pub async fn destroy_vm(&self, intent: &Intent, vm: VmId) -> Result<Accepted, CallError> {
        self.change(intent, Request::destroy_vm(vm)).await
    }

    /// [`Request::delete_volume`], without a job: after `NoAnswer` only the volume can tell.
    ///
    /// # Errors
    /// As each call.
    pub async fn delete_volume(&self, volume: VolumeId) -> Result<(), CallError> {
        let done: Done = self.call(&Request::delete_volume(volume)).await?;
        match done.success.and_then(Scalar::flag) {
            Some(true) => Ok(()),
            _ => Err(CallError::unusable("deleteVolume did not say that it succeeded")),
        }
    }

    /// [`Request::recover_volume`], without a job.
    ///
    /// # Errors
    /// As each call.
    pub async fn recover_volume(&self, volume: VolumeId) -> Result<(), CallError> {
        let Recovered {} = self.call(&Request::recover_volume(volume)).await?;
        Ok(())
    }

    async fn change(&self, intent: &Intent, request: Request) -> Result<Accepted, CallError> {
        let submitted = self.submit(intent, request).await?;
        Ok(Accepted { volume_id: None, snapshot_id: None, job_id: job_id(submitted.jobid)? })
    }

    async fn submit(&self, intent: &Intent, request: Request) -> Result<Submitted, CallError> {
        let command = request.command();
        if intent.expires <= self.now() {
            return Err(out_of_time(command));
        }
        let outcome = self.ask(&request.with("customjobid", intent.job_id), intent.expires).await;
        match outcome {
            // Its clock was set, and its answer tells: it took nothing.
            Err(CallError::Auth { .. }) if intent.expires <= self.now() => Err(out_of_time(command)),
            Err(CallError::Auth { fault, .. }) if self.ping().await.is_ok() => Err(not_offered(command, fault)),
            outcome => outcome,
        }
    }
}

fn job_id(answered: Option<Scalar>) -> Result<Option<JobId>, CallError> {
    optional_id("the job's id", answered)
}

fn out_of_time(command: &str) -> CallError {
    CallError::NotSent {
        why: format!("{command} was not sent, as its time had run out before"),
        hint: "this machine was busy or asleep for a minute, or a clock was set: try again",
    }
}

/// A command that CloudStack does not have answers like a wrong key (facts sheet, 3.3): where the key is right, that is it.
fn not_offered(command: &str, fault: CloudStackFault) -> CallError {
    let text = format!("{command} is not offered: this CloudStack is too old for it, or the key's role lacks it");
    CallError::Refused(CloudStackFault { text: Some(text), ..fault })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use jiff::SignedDuration;

    use super::super::testing::{Server, json};
    use super::*;
    use crate::error::Kind;

    const VOLUME: &str = "5f0c8a52-1b2c-4d3e-9f40-a1b2c3d4e5f6";
    const VM: &str = "77000000-0000-4000-8000-000000000001";

    fn new_volume(size_gib: Option<u64>) -> NewVolume {
        NewVolume { name: "Jörg's disk".to_owned(), size_gib, offering_id: "o".to_owned(), zone_id: "z".to_owned() }
    }

    #[tokio::test]
    async fn a_change_carries_the_job_id_and_the_expiry_that_were_saved() {
        let intent = Intent { job_id: JobId::random(), expires: "2031-10-10T12:00:00Z".parse().unwrap() };
        let body = format!(r#"{{"createvolumeresponse":{{"id":"{VOLUME}","jobid":"{}"}}}}"#, intent.job_id);
        let server = Server::start([json(200, &body)]).await;
        let accepted = server.client().create_volume(&intent, &new_volume(Some(7))).await.unwrap();
        assert_eq!(accepted.job_id, Some(intent.job_id));
        assert_eq!(accepted.volume_id, Some(VOLUME.parse().unwrap()));
        let form = &server.forms()[0];
        assert_eq!(form["customjobid"], intent.job_id.to_string());
        assert_eq!(form["expires"], intent.expires.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string());
        assert_eq!((form["name"].as_str(), form["size"].as_str()), ("Jörg's disk", "7"));
        assert_eq!((form["signatureversion"].as_str(), form["response"].as_str()), ("3", "json"));
    }

    #[tokio::test]
    async fn a_fixed_offering_gets_no_size() {
        let server = Server::start([json(200, &format!(r#"{{"createvolumeresponse":{{"id":"{VOLUME}"}}}}"#))]).await;
        let client = server.client();
        let accepted = client.create_volume(&client.intend(), &new_volume(None)).await.unwrap();
        assert_eq!(accepted.job_id, None, "what CloudStack did not say is not made up");
        assert!(!server.forms()[0].contains_key("size"));
    }

    #[tokio::test]
    async fn attach_detach_and_destroy_name_what_they_change() {
        let other = JobId::random();
        let reply = |key: &str| json(200, &format!(r#"{{"{key}":{{"jobid":"{other}"}}}}"#));
        let answers = ["attachvolumeresponse", "attachvolumeresponse", "detachvolumeresponse", "destroyvolumeresponse"];
        let replies = answers.map(reply);
        let server = Server::start(replies).await;
        let (client, volume, vm) = (server.client(), VOLUME.parse().unwrap(), VM.parse().unwrap());
        let accepted = Accepted { job_id: Some(other), volume_id: None, snapshot_id: None };
        assert_eq!(client.attach_volume(&client.intend(), volume, vm, None).await.unwrap(), accepted);
        assert_eq!(client.attach_volume(&client.intend(), volume, vm, Some(0)).await.unwrap(), accepted);
        assert_eq!(client.detach_volume(&client.intend(), volume).await.unwrap(), accepted);
        assert_eq!(client.destroy_volume(&client.intend(), volume, true).await.unwrap(), accepted);
        let forms = server.forms();
        assert!(forms.iter().all(|form| form["id"] == VOLUME));
        assert_eq!(forms[0]["virtualmachineid"], VM);
        assert!(!forms[0].contains_key("deviceid"));
        assert_eq!(forms[1]["deviceid"], "0");
        assert!(!forms[2].contains_key("virtualmachineid"));
        assert_eq!(forms[3]["expunge"], "true");
    }

    #[tokio::test]
    async fn an_expired_intent_is_not_sent() {
        let server = Server::start([]).await;
        let expires = Timestamp::now() - SignedDuration::from_secs(1);
        let late = Intent { job_id: JobId::random(), expires };
        let error = server.client().detach_volume(&late, VOLUME.parse().unwrap()).await.unwrap_err();
        assert!(error.nothing_sent());
        assert_eq!(server.forms().len(), 0);
        assert_eq!(error.into_error("detaching data1").kind, Kind::CloudstackUnreachable);
    }

    #[tokio::test]
    async fn an_id_that_is_none_leaves_the_change_open() {
        let bad = [
            json(200, r#"{"createvolumeresponse":{"id":"17"}}"#),
            json(200, r#"{"createvolumeresponse":{}}"#),
            json(200, &format!(r#"{{"createvolumeresponse":{{"id":"{VOLUME}","jobid":"x"}}}}"#)),
        ];
        let server = Server::start(bad).await;
        let client = server.client();
        for _ in 0..3 {
            assert!(client.create_volume(&client.intend(), &new_volume(None)).await.unwrap_err().accepted_unknown());
        }
    }

    #[tokio::test]
    async fn delete_must_say_that_it_succeeded() {
        let script = [
            json(200, r#"{"deletevolumeresponse":{"success":"true"}}"#),
            json(200, r#"{"deletevolumeresponse":{"success":true,"displaytext":"done"}}"#),
            json(200, r#"{"deletevolumeresponse":{"success":false}}"#),
            json(431, r#"{"deletevolumeresponse":{"errorcode":431,"errortext":"attached"}}"#),
            json(200, r#"{"recovervolumeresponse":{"volume":{"id":"x"}}}"#),
        ];
        let server = Server::start(script).await;
        let (client, volume) = (server.client(), VOLUME.parse().unwrap());
        client.delete_volume(volume).await.unwrap();
        client.delete_volume(volume).await.unwrap();
        assert!(client.delete_volume(volume).await.unwrap_err().accepted_unknown());
        assert!(client.delete_volume(volume).await.unwrap_err().is_refused(431));
        client.recover_volume(volume).await.unwrap();
        assert!(server.forms().iter().all(|form| !form.contains_key("customjobid")));
    }
}
