//! Tags of a volume: added, never changed. CloudStack refuses a key that is there and then adds none at all (facts sheet,
//! 4.9), so what the volume has is looked at first.

use serde::{Deserialize, Serialize};

use super::dry_run;
use super::job::{End, Job, Sent};
use super::world::Cx;
use super::{Halt, Next};
use crate::cloudstack::Request;
use crate::error::{Error, Kind, Result};
use crate::model::{Tag, VolumeId, VolumeRecord, printable};

/// The longest key and the longest value, in UTF-16 units as CloudStack counts them (facts sheet, 1.2).
const LONGEST: usize = 255;

/// More than anybody types; each makes the request longer.
const MOST: usize = 50;

/// Refuses tags that CloudStack would not take, and a key with two values.
pub(super) fn check(tags: &[Tag]) -> Result<()> {
    let usage = |what: String| Err(Error::new(Kind::Usage, what));
    if tags.len() > MOST {
        return usage(format!("{} tags are too many: at most {MOST}", tags.len()));
    }
    for (at, tag) in tags.iter().enumerate() {
        for (what, text) in [("key", &tag.key), ("value", &tag.value)] {
            let characters = text.encode_utf16().count();
            if text.trim().is_empty() || characters > LONGEST || text.chars().any(char::is_control) {
                let shown = printable(&text.chars().take(60).collect::<String>());
                return usage(format!(
                    "a tag's {what} has 1 to {LONGEST} characters and no control characters: \"{shown}\" does not do"
                ));
            }
        }
        if tags[..at].iter().any(|other| other.key == tag.key) {
            return usage(format!("the tag {} is given twice", printable(&tag.key)));
        }
    }
    Ok(())
}

/// Refuses a volume that has another value for one of the keys.
pub(super) fn refuse_other_values(volume: &VolumeRecord, wanted: &[Tag]) -> Result<()> {
    let differs = |tag: &&Tag| wanted.iter().any(|wanted| wanted.key == tag.key && wanted.value != tag.value);
    match volume.tags.iter().find(differs) {
        None => Ok(()),
        Some(tag) => Err(Error::new(
            Kind::Conflict,
            format!(
                "volume {} has the tag {tag} already, and a tag's value is not changed; nothing was sent",
                volume.label()
            ),
        )),
    }
}

/// Those that the volume does not have.
pub(super) fn missing(volume: &VolumeRecord, wanted: &[Tag]) -> Vec<Tag> {
    wanted.iter().filter(|tag| !volume.tags.contains(tag)).cloned().collect()
}

/// The tagging of a volume that is ready otherwise, as the last steps of a story.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tagging {
    wanted: Vec<Tag>,
    /// Those that the volume did not have when it was last looked at before a send.
    missing: Vec<Tag>,
    job: Job,
    changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Look,
    Send,
    Await,
}

impl super::Step for Step {
    fn name(self) -> &'static str {
        match self {
            Step::Look => "tag_look",
            Step::Send => "tag_send",
            Step::Await => "tag_await",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Look => "looking at the volume's tags",
            Step::Send => "asking CloudStack to tag",
            Step::Await => "waiting for CloudStack to tag",
        }
    }
}

impl Tagging {
    pub fn of(wanted: Vec<Tag>) -> Self {
        Self { wanted, job: Job::completing(), ..Self::default() }
    }

    /// What is wanted.
    pub fn wanted(&self) -> &[Tag] {
        &self.wanted
    }

    /// Whether a tag was added.
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// For a dry run.
    pub fn plan(&self, volume: &VolumeRecord) -> Option<String> {
        let missing = missing(volume, &self.wanted);
        (!missing.is_empty()).then(|| dry_run::job(&Request::create_tags(volume.id, &missing)))
    }

    pub fn takes(&self, step: Step) -> bool {
        match step {
            Step::Look => !self.wanted.is_empty(),
            Step::Send | Step::Await => !self.missing.is_empty(),
        }
    }

    /// Does a step. `stands` says what was done before, and stays.
    pub async fn run(&mut self, step: Step, cx: &Cx, id: VolumeId, stands: &str) -> Result<Next<Step>, Halt> {
        match step {
            Step::Look => self.look(cx, id, stands).await,
            Step::Send => self.send(cx, id, stands).await,
            Step::Await => self.wait(cx, id, stands).await,
        }
    }

    async fn look(&mut self, cx: &Cx, id: VolumeId, stands: &str) -> Result<Next<Step>, Halt> {
        self.job.rest().await;
        let volume = found(cx, id, stands).await?;
        refuse_other_values(&volume, &self.wanted).map_err(|error| error.doing(stands))?;
        self.missing = missing(&volume, &self.wanted);
        if !self.missing.is_empty() {
            self.job.choose(cx);
        }
        Ok(Next::On)
    }

    async fn send(&mut self, cx: &Cx, id: VolumeId, stands: &str) -> Result<Next<Step>, Halt> {
        let tags = self.missing.clone();
        let sent = self
            .job
            .send(cx, stands, |intent| async move { cx.world.cloud.create_tags(&intent, id, &tags).await })
            .await?;
        match sent {
            Sent::Accepted(_) => Ok(Next::On),
            Sent::Refused(error) => Err(Halt::Fail(error.into_error(stands))),
            Sent::Never => Ok(Next::Back(Step::Look)),
            Sent::Forgotten => self.judge(cx, id, stands, None).await,
        }
    }

    async fn wait(&mut self, cx: &Cx, id: VolumeId, stands: &str) -> Result<Next<Step>, Halt> {
        match self.job.end(cx, stands).await {
            End::Succeeded(_) | End::Forgotten => self.judge(cx, id, stands, None).await,
            End::Failed(error) => self.judge(cx, id, stands, Some(error)).await,
        }
    }

    /// The job has ended or is forgotten: the volume itself says which tags it has.
    async fn judge(&mut self, cx: &Cx, id: VolumeId, stands: &str, error: Option<Error>) -> Result<Next<Step>, Halt> {
        let volume = found(cx, id, stands).await?;
        if missing(&volume, &self.missing).is_empty() {
            self.changed = true;
            self.missing.clear();
            return Ok(Next::On);
        }
        let found = || {
            let what = format!("{stands}: CloudStack's job has ended and the tags are not there");
            Error::new(Kind::CloudstackRefused, what)
        };
        Err(Halt::Fail(error.unwrap_or_else(found)))
    }
}

async fn found(cx: &Cx, id: VolumeId, stands: &str) -> Result<VolumeRecord, Halt> {
    let found = cx.persistently(|| cx.world.look_up(id)).await;
    found.ok_or_else(|| Halt::Fail(Error::new(Kind::NotFound, format!("{stands}: it is no longer there"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> Tag {
        Tag { key: key.into(), value: value.into() }
    }

    #[test]
    fn what_cloudstack_would_not_take_is_refused() {
        assert!(check(&[tag("a", "1"), tag("b", "1")]).is_ok());
        for tags in [[tag("a", "1"), tag("a", "2")], [tag("a", "1"), tag("", "2")], [tag("a", "1"), tag("b", "x\ny")]] {
            assert_eq!(check(&tags).unwrap_err().kind, Kind::Usage);
        }
        assert!(check(&[tag("a", &"x".repeat(256))]).is_err());
    }
}
