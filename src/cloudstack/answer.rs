//! An answer as its bytes, read without a server (pure): where hostile ones are fed in.

use serde::de::DeserializeOwned;

use super::envelope;
use super::error::CallError;
use super::job::{JobAnswer, WireJob};
use super::lists::{Listing, Page};
use super::request::expiry;
use super::transport::Reply;
use super::wire::Record;
use crate::model::{DiskOffering, JobId, VmRecord, VolumeRecord, Zone};

/// What a server may have sent. Each command reads it as it reads its own answer.
pub struct RawAnswer(Reply);

impl RawAnswer {
    /// An answer of this HTTP status and body.
    pub fn new(status: u16, body: Vec<u8>) -> Self {
        Self(Reply { peer: "cloudstack".to_owned(), status, content_type: None, date: None, body })
    }

    /// As one page of `listVolumes`.
    ///
    /// # Errors
    /// As each call.
    pub fn volumes(&self) -> Result<Vec<VolumeRecord>, CallError> {
        self.page("listVolumes")
    }

    /// As one page of `listVirtualMachines`.
    ///
    /// # Errors
    /// As each call.
    pub fn vms(&self) -> Result<Vec<VmRecord>, CallError> {
        self.page("listVirtualMachines")
    }

    /// As one page of `listZones`.
    ///
    /// # Errors
    /// As each call.
    pub fn zones(&self) -> Result<Vec<Zone>, CallError> {
        self.page("listZones")
    }

    /// As one page of `listDiskOfferings`.
    ///
    /// # Errors
    /// As each call.
    pub fn disk_offerings(&self) -> Result<Vec<DiskOffering>, CallError> {
        self.page("listDiskOfferings")
    }

    /// As what `queryAsyncJobResult` says of a job.
    ///
    /// # Errors
    /// As each call; a job that CloudStack does not know is `Refused`.
    pub fn job(&self, job: JobId) -> Result<JobAnswer, CallError> {
        self.read::<WireJob>("queryAsyncJobResult")?.read(job)
    }

    fn page<R: Record>(&self, command: &str) -> Result<Vec<R>, CallError> {
        let listing: Listing<R::Wire> = self.read(command)?;
        Page::read(listing).map(|page| page.records)
    }

    fn read<T: DeserializeOwned>(&self, command: &str) -> Result<T, CallError> {
        envelope::read(&self.0, command, expiry())
    }
}
