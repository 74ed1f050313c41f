//! What only looks: volumes, VMs, zones, offerings, capabilities (facts sheet, 4.7 and 4.10).

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

use super::CloudStack;
use super::error::CallError;
use super::pace::Limit;
use super::request::Request;
use super::wire::{Project, Record, Scalar, VmSnapshot};
use crate::model::{DiskOffering, SnapshotId, SnapshotRecord, VmId, VmRecord, VolumeId, VolumeRecord, Zone, printable};

/// The server's default limit, `default.page.size` (facts sheet, 3.3).
pub(super) const PAGE_SIZE: usize = 500;
/// How much is listed before we take it for a fault.
const MAX_PAGES: usize = 1000;
const MAX_RECORDS: usize = 100_000;
/// How often a list is read that changes while it is read.
const READS: u32 = 3;

/// The server's code for a parameter it cannot use, an id that never existed among them.
const PARAM_ERROR: i64 = 431;

/// One page of any list. An empty one has no array, and may have no count.
#[derive(Deserialize)]
struct Listing<W> {
    count: Option<Scalar>,
    #[serde(
        alias = "volume",
        alias = "virtualmachine",
        alias = "zone",
        alias = "diskoffering",
        alias = "project",
        alias = "vmSnapshot",
        alias = "vmsnapshot",
        alias = "snapshot"
    )]
    objects: Option<Objects<W>>,
}

/// The objects of one page. More than a page can hold are refused before they take memory.
struct Objects<W>(Vec<W>);

impl<'de, W: Deserialize<'de>> Deserialize<'de> for Objects<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ObjectsVisitor(PhantomData))
    }
}

struct ObjectsVisitor<W>(PhantomData<W>);

impl<'de, W: Deserialize<'de>> Visitor<'de> for ObjectsVisitor<W> {
    type Value = Objects<W>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Objects<W>, A::Error> {
        let mut objects = Vec::new();
        while let Some(object) = seq.next_element()? {
            if objects.len() == PAGE_SIZE {
                return Err(A::Error::custom(format_args!("more than {PAGE_SIZE} objects on one page")));
            }
            objects.push(object);
        }
        Ok(Objects(objects))
    }
}

struct Page<R> {
    /// Matches over all pages.
    count: Option<usize>,
    records: Vec<R>,
}

/// A list, read to its end.
struct Reading<R: Record> {
    /// Each once, although one can move to the next page meanwhile.
    records: Vec<R>,
    ids: HashSet<R::Id>,
    /// The number of matches did not change on the way, and so many came: none can have moved past us.
    whole: bool,
}

#[derive(Deserialize)]
pub(super) struct Capabilities {
    capability: Capability,
}

#[derive(Deserialize)]
struct Capability {
    cloudstackversion: Option<Scalar>,
    /// Both only where calls are limited; the interval in seconds.
    apilimitmax: Option<Scalar>,
    apilimitinterval: Option<Scalar>,
}

impl Capability {
    fn limit(&mut self) -> Option<Limit> {
        let (calls, seconds) = (self.apilimitmax.take()?.number()?, self.apilimitinterval.take()?.number()?);
        Some(Limit { calls, interval: Duration::from_secs(seconds) })
    }
}

impl CloudStack {
    /// Every volume that the key can see, in the configured project where there is one; newest first.
    ///
    /// # Errors
    /// As each call; `NoAnswer` too for a list that will not end or hold still.
    pub async fn volumes(&self) -> Result<Vec<VolumeRecord>, CallError> {
        self.list(&self.volume_request().await?).await
    }

    /// One volume, asked for by itself.
    pub(super) async fn volume_alone(&self, id: VolumeId) -> Result<Option<VolumeRecord>, CallError> {
        self.one::<VolumeRecord>(self.volume_request().await?, id).await
    }

    /// Those of several volumes that CloudStack knows; none where it does not answer that question: one that never existed
    /// fails the whole call, and a server that does not know the parameter lists everything.
    pub(super) async fn volumes_of_ids(&self, ids: &[VolumeId]) -> Result<Option<Vec<VolumeRecord>>, CallError> {
        let words: Vec<String> = ids.iter().map(VolumeId::to_string).collect();
        let listing = match self.call(&self.volume_request().await?.with("ids", words.join(","))).await {
            Err(error) if error.is_refused(PARAM_ERROR) => return Ok(None),
            listing => listing?,
        };
        // One record that makes no sense says nothing of the others.
        let Ok(page) = Page::<VolumeRecord>::read(listing) else { return Ok(None) };
        let is_whole = page.count.is_none_or(|count| count == page.records.len());
        let only_these = page.records.iter().all(|volume| ids.contains(&volume.id));
        Ok((is_whole && only_these).then_some(page.records))
    }

    /// The volumes of exactly this name; several can have one name.
    ///
    /// # Errors
    /// As each call.
    pub async fn volumes_named(&self, name: &str) -> Result<Vec<VolumeRecord>, CallError> {
        let every = self.volume_request().await?;
        let mut volumes: Vec<VolumeRecord> = self.list_named(every, name).await?;
        volumes.retain(|volume| volume.name == name);
        Ok(volumes)
    }

    /// The volumes that are attached to a VM, its root volume included.
    ///
    /// # Errors
    /// As each call; a VM that never existed is `Refused`.
    pub async fn volumes_of_vm(&self, vm: VmId) -> Result<Vec<VolumeRecord>, CallError> {
        let request = self.volume_request().await?.with("virtualmachineid", vm);
        let mut volumes: Vec<VolumeRecord> = self.list(&request).await?;
        volumes.retain(|volume| volume.vm_id == Some(vm));
        Ok(volumes)
    }

    /// One VM; none where CloudStack does not know the id, or no longer.
    ///
    /// # Errors
    /// As each call.
    pub async fn vm(&self, id: VmId) -> Result<Option<VmRecord>, CallError> {
        self.one::<VmRecord>(self.vm_request().await?, id).await
    }

    /// Every VM that the key can see, in the configured project where there is one.
    ///
    /// # Errors
    /// As each call; `NoAnswer` too for a list that will not end or hold still.
    pub async fn vms(&self) -> Result<Vec<VmRecord>, CallError> {
        self.list(&self.vm_request().await?).await
    }

    /// The VMs of exactly this name.
    ///
    /// # Errors
    /// As each call.
    pub async fn vms_named(&self, name: &str) -> Result<Vec<VmRecord>, CallError> {
        let every = self.vm_request().await?;
        let mut vms: Vec<VmRecord> = self.list_named(every, name).await?;
        vms.retain(|vm| vm.name == name);
        Ok(vms)
    }

    /// The snapshots of a VM as a whole; none too where the key may not look at them.
    ///
    /// # Errors
    /// As each call, but for a refusal.
    pub async fn vm_snapshots(&self, vm: VmId) -> Result<Vec<VmSnapshot>, CallError> {
        let request = self.in_project(Request::new("listVMSnapshot").with("listall", true)).await?;
        match self.list(&request.with("virtualmachineid", vm)).await {
            Err(CallError::Refused(_)) => Ok(Vec::new()),
            // A command that is not offered answers like a wrong key (facts sheet, 3.3).
            Err(CallError::Auth { .. }) if self.ping().await.is_ok() => Ok(Vec::new()),
            snapshots => snapshots,
        }
    }

    /// The snapshots of a volume, or of all; newest first.
    ///
    /// # Errors
    /// As each call.
    pub async fn snapshots(&self, volume: Option<VolumeId>) -> Result<Vec<SnapshotRecord>, CallError> {
        let request = self.snapshot_request().await?;
        let Some(volume) = volume else { return self.list(&request).await };
        let mut snapshots: Vec<SnapshotRecord> = self.list(&request.with("volumeid", volume)).await?;
        snapshots.retain(|snapshot| snapshot.volume_id == Some(volume));
        Ok(snapshots)
    }

    /// One snapshot; none where CloudStack does not know the id, or no longer.
    ///
    /// # Errors
    /// As each call.
    pub async fn snapshot(&self, id: SnapshotId) -> Result<Option<SnapshotRecord>, CallError> {
        self.one::<SnapshotRecord>(self.snapshot_request().await?, id).await
    }

    async fn snapshot_request(&self) -> Result<Request, CallError> {
        self.in_project(Request::new("listSnapshots").with("listall", true)).await
    }

    /// The zones.
    ///
    /// # Errors
    /// As each call.
    pub async fn zones(&self) -> Result<Vec<Zone>, CallError> {
        self.list(&Request::new("listZones")).await
    }

    /// The disk offerings.
    ///
    /// # Errors
    /// As each call.
    pub async fn disk_offerings(&self) -> Result<Vec<DiskOffering>, CallError> {
        self.list(&Request::new("listDiskOfferings")).await
    }

    /// Proves endpoint, key and clock; answers CloudStack's version where it tells.
    ///
    /// # Errors
    /// As each call.
    pub async fn ping(&self) -> Result<Option<String>, CallError> {
        let mut answer: Capabilities = self.call(&Request::new("listCapabilities")).await?;
        self.shared.pace.told(answer.capability.limit());
        Ok(answer.capability.cloudstackversion.and_then(Scalar::text))
    }

    /// A request with the configured project, where there is one.
    pub async fn in_project(&self, request: Request) -> Result<Request, CallError> {
        Ok(match self.project_id().await? {
            Some(id) => request.with("projectid", id),
            None => request,
        })
    }

    /// The id of the configured project, where there is one; asked for once.
    ///
    /// # Errors
    /// As each call; `Project` where there is no such project.
    pub async fn project_id(&self) -> Result<Option<&str>, CallError> {
        let Some(configured) = &self.shared.project else { return Ok(None) };
        let id = self.shared.project_id.get_or_try_init(|| self.find_project(configured)).await?;
        Ok(Some(id))
    }

    async fn find_project(&self, configured: &str) -> Result<String, CallError> {
        let mut projects: Vec<Project> = self.list(&Request::new("listProjects").with("listall", true)).await?;
        projects.retain(|project| project.id.eq_ignore_ascii_case(configured) || project.name == configured);
        let configured = printable(configured);
        match &projects[..] {
            [project] => Ok(project.id.clone()),
            [] => {
                Err(CallError::Project(format!("no project that this key can see has the id or name \"{configured}\"")))
            }
            _ => Err(CallError::Project(format!(
                "the project \"{configured}\" is ambiguous: {}",
                projects.iter().map(|project| printable(&project.id)).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    async fn volume_request(&self) -> Result<Request, CallError> {
        self.in_project(Request::new("listVolumes").with("listall", true)).await
    }

    async fn vm_request(&self) -> Result<Request, CallError> {
        self.in_project(Request::new("listVirtualMachines").with("listall", true).with("details", "min")).await
    }

    async fn one<R: Record<Id: Copy + ToString>>(&self, every: Request, id: R::Id) -> Result<Option<R>, CallError> {
        let page = match self.page::<R>(&every.with("id", id)).await {
            Err(error) if error.is_refused(PARAM_ERROR) => return Ok(None),
            page => page?,
        };
        let mut records = page.records.into_iter();
        match (records.next(), records.next()) {
            (None, _) if page.count.unwrap_or(0) == 0 => Ok(None),
            (Some(record), None) if record.id() == id => Ok(Some(record)),
            _ => Err(CallError::unusable(format_args!("asked for {}, it lists something else", id.to_string()))),
        }
    }

    /// At least all that has the name. A name that the server refuses as a parameter (facts sheet, 1.2) can still exist,
    /// so then it is everything.
    async fn list_named<R: Record>(&self, every: Request, name: &str) -> Result<Vec<R>, CallError> {
        match self.list(&every.clone().with("name", name)).await {
            Err(error) if error.is_refused(PARAM_ERROR) => self.list(&every).await,
            records => records,
        }
    }

    /// All pages of a list. One that was not whole is read again, and taken when it comes out the same twice: then it is
    /// CloudStack's count that is off.
    async fn list<R: Record>(&self, request: &Request) -> Result<Vec<R>, CallError> {
        let mut before = None;
        for _ in 0..READS {
            let reading = self.read_through(request).await?;
            let same_again = !reading.ids.is_empty() && before.as_ref() == Some(&reading.ids);
            if reading.whole || same_again {
                return Ok(reading.records);
            }
            before = Some(reading.ids);
        }
        Err(CallError::NoAnswer {
            found: format!(
                "CloudStack's answer to {} was different each time it was read to the end",
                request.command()
            ),
            hint: "try again when less is being created and deleted",
        })
    }

    async fn read_through<R: Record>(&self, request: &Request) -> Result<Reading<R>, CallError> {
        let (mut page, page_size) = self.first_page::<R>(request).await?;
        let mut reading = Reading { records: Vec::new(), ids: HashSet::new(), whole: true };
        let (count, mut listed) = (page.count, 0);
        for number in 2..=MAX_PAGES {
            let length = page.records.len();
            listed += length;
            reading.whole &= page.count == count;
            reading.records.extend(page.records.into_iter().filter(|record| reading.ids.insert(record.id())));
            if length == 0 || count.map_or(length < page_size, |count| listed >= count) {
                reading.whole &= count.is_none_or(|count| reading.ids.len() >= count);
                return Ok(reading);
            }
            if listed > MAX_RECORDS {
                break;
            }
            page = self.page(&paged(request, number, page_size)).await?;
        }
        Err(CallError::unusable(format_args!("{} does not end", request.command())))
    }

    /// The first page and the size of a page. A server that allows fewer per page refuses ours, and cuts a list that is
    /// not paged at its own limit (facts sheet, 3.3).
    async fn first_page<R: Record>(&self, request: &Request) -> Result<(Page<R>, usize), CallError> {
        let page_size = self.shared.page_size.load(Ordering::Relaxed);
        let refusal = match self.page(&paged(request, 1, page_size)).await {
            Err(error) if error.is_refused(PARAM_ERROR) => error,
            page => return page.map(|page| (page, page_size)),
        };
        let page = self.page::<R>(request).await?;
        let cut = page.records.len();
        if page.count.is_none_or(|count| count <= cut) {
            return Ok((page, page_size));
        }
        if cut == 0 {
            return Err(refusal);
        }
        self.shared.page_size.store(cut, Ordering::Relaxed);
        Ok((page, cut))
    }

    async fn page<R: Record>(&self, request: &Request) -> Result<Page<R>, CallError> {
        Page::read(self.call(request).await?)
    }
}

impl<R: Record> Page<R> {
    fn read(listing: Listing<R::Wire>) -> Result<Self, CallError> {
        let objects = listing.objects.map_or_else(Vec::new, |objects| objects.0);
        let records = objects.into_iter().map(R::read).collect::<Result<_, _>>()?;
        Ok(Self { count: listing.count.and_then(Scalar::number), records })
    }
}

fn paged(request: &Request, page: usize, page_size: usize) -> Request {
    request.clone().with("page", page).with("pagesize", page_size)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{Answer, Server, json as answer};

    fn volume_id(number: usize) -> String {
        format!("00000000-0000-4000-8000-{number:012}")
    }

    fn volume(number: usize) -> Value {
        json!({"id": volume_id(number), "name": format!("v{number}"), "type": "DATADISK", "state": "Ready", "size": 1,
               "zoneid": "z"})
    }

    fn page(count: usize, numbers: impl IntoIterator<Item = usize>) -> Answer {
        let volumes: Vec<Value> = numbers.into_iter().map(volume).collect();
        answer(200, &json!({"listvolumesresponse": {"count": count, "volume": volumes}}).to_string())
    }

    fn refusal(code: u16) -> Answer {
        answer(code, &json!({"listvolumesresponse": {"errorcode": code, "errortext": "no"}}).to_string())
    }

    fn empty() -> Answer {
        answer(200, r#"{"listvolumesresponse":{}}"#)
    }

    fn asked(server: &Server, name: &str) -> Vec<String> {
        server.forms().iter().map(|form| form.get(name).cloned().unwrap_or_default()).collect()
    }

    #[tokio::test]
    async fn all_pages_are_read() {
        let server = Server::start([page(1001, 0..500), page(1001, 500..1000), page(1001, 1000..1001)]).await;
        assert_eq!(server.client().volumes().await.unwrap().len(), 1001);
        assert_eq!(asked(&server, "page"), ["1", "2", "3"]);
        assert_eq!(asked(&server, "pagesize"), ["500"; 3]);
        assert_eq!(asked(&server, "listall"), ["true"; 3]);
    }

    #[tokio::test]
    async fn a_full_last_page_needs_no_further_one() {
        let server = Server::start([page(500, 0..500)]).await;
        assert_eq!(server.client().volumes().await.unwrap().len(), 500);
    }

    #[tokio::test]
    async fn a_server_with_smaller_pages_is_read_in_its_own_and_remembered() {
        let script = [refusal(431), page(5, 0..2), page(5, 2..4), page(5, 4..5), page(2, 0..2)];
        let server = Server::start(script).await;
        let client = server.client();
        assert_eq!(client.volumes().await.unwrap().len(), 5);
        assert_eq!(client.volumes().await.unwrap().len(), 2);
        assert_eq!(asked(&server, "pagesize"), ["500", "", "2", "2", "2"]);
        assert_eq!(asked(&server, "page"), ["1", "", "2", "3", "1"]);
    }

    #[tokio::test]
    async fn a_list_that_changes_between_pages_is_read_again() {
        let moved = [page(501, 0..500), page(500, []), page(500, 1..501)];
        let server = Server::start(moved).await;
        let volumes = server.client().volumes().await.unwrap();
        assert_eq!(volumes.last().unwrap().name, "v500");
        assert_eq!(volumes.len(), 500);
    }

    #[tokio::test]
    async fn a_volume_on_two_pages_is_listed_once() {
        let twice = [page(501, 0..500), page(501, [499]), page(501, 0..500), page(501, [500])];
        let server = Server::start(twice).await;
        assert_eq!(server.client().volumes().await.unwrap().len(), 501);
    }

    #[tokio::test]
    async fn a_count_that_is_off_is_believed_less_than_two_equal_readings() {
        let server = Server::start([page(3, 0..2), page(3, []), page(3, 0..2), page(3, [])]).await;
        assert_eq!(server.client().volumes().await.unwrap().len(), 2);
        let server = Server::start((0..3).map(|_| page(3, []))).await;
        assert!(server.client().volumes().await.unwrap_err().accepted_unknown());
    }

    #[tokio::test]
    async fn a_page_holds_no_more_than_a_page() {
        let server = Server::start([page(501, 0..501)]).await;
        let error = server.client().volumes().await.unwrap_err();
        assert!(error.to_string().contains("more than 500 objects on one page"), "{error}");
    }

    #[tokio::test]
    async fn an_empty_list_has_no_array() {
        let server = Server::start([empty()]).await;
        assert_eq!(server.client().volumes().await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_volume_is_there_gone_or_was_never() {
        let script = [page(1, [7]), empty(), refusal(431), refusal(530), page(1, []), page(1, [8])];
        let server = Server::start(script).await;
        let client = server.client();
        let id = volume_id(7).parse().unwrap();
        assert_eq!(client.volume(id).await.unwrap().unwrap().name, "v7");
        assert_eq!(client.volume(id).await.unwrap(), None);
        assert_eq!(client.volume(id).await.unwrap(), None);
        assert!(client.volume(id).await.unwrap_err().is_refused(530));
        assert!(client.volume(id).await.unwrap_err().accepted_unknown(), "a count without the volume");
        assert!(client.volume(id).await.unwrap_err().accepted_unknown(), "another volume");
        assert_eq!(asked(&server, "id"), vec![volume_id(7); 6]);
    }

    #[tokio::test]
    async fn names_are_compared_here_and_what_the_server_cannot_take_is_found_all_the_same() {
        let server = Server::start([page(2, [1, 2]), refusal(431), refusal(431), page(2, [1, 2])]).await;
        let client = server.client();
        assert_eq!(client.volumes_named("v2").await.unwrap().len(), 1);
        assert_eq!(client.volumes_named("v1").await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_bad_id_in_a_list_is_an_error_that_names_it() {
        let server =
            Server::start([answer(200, r#"{"listvolumesresponse":{"count":1,"volume":[{"id":"17","type":"ROOT"}]}}"#)])
                .await;
        let error = server.client().volumes().await.unwrap_err();
        assert!(error.to_string().contains("a volume's id is \"17\", not a UUID"), "{error}");
    }

    #[tokio::test]
    async fn a_project_is_looked_up_once_and_sent_with_each_list() {
        let projects = json!({"listprojectsresponse": {"count": 2, "project": [
            {"id": "p-1", "name": "alpha"}, {"id": "p-2", "name": "beta"}]}});
        let mut server = Server::start([answer(200, &projects.to_string()), empty(), empty()]).await;
        server.config.project = Some("beta".to_owned());
        let client = server.client();
        client.volumes().await.unwrap();
        client.volumes().await.unwrap();
        assert_eq!(asked(&server, "command"), ["listProjects", "listVolumes", "listVolumes"]);
        assert_eq!(asked(&server, "projectid"), ["", "p-2", "p-2"]);
    }

    #[tokio::test]
    async fn an_unknown_project_is_a_matter_of_the_configuration() {
        let mut server = Server::start([answer(200, r#"{"listprojectsresponse":{}}"#)]).await;
        server.config.project = Some("gamma".to_owned());
        let error = server.client().volumes().await.unwrap_err();
        assert!(error.nothing_sent());
        let error = error.into_error("listing volumes");
        assert_eq!(error.kind, crate::error::Kind::Config);
        assert!(error.message.contains("\"gamma\""), "{error}");
    }

    #[tokio::test]
    async fn the_version_is_told_or_not() {
        let told = r#"{"listcapabilitiesresponse":{"capability":{"cloudstackversion":"4.22.0.0"}}}"#;
        let silent = r#"{"listcapabilitiesresponse":{"capability":{}}}"#;
        let server = Server::start([answer(200, told), answer(200, silent)]).await;
        let client = server.client();
        assert_eq!(client.ping().await.unwrap().as_deref(), Some("4.22.0.0"));
        assert_eq!(client.ping().await.unwrap(), None);
    }
}
