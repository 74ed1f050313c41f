//! A dry run: what a change would do, found out as the change itself would, with nothing sent, changed or journaled.
//!
//! The story is asked for and its looking steps are walked as always, so that every refusal is made that the change would
//! meet before it acts. Where it would begin to act, it says what it would do instead.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::deadline::Deadline;
use super::engine::Shown;
use super::world::{Cx, World};
use super::{Engine, Halt, Next, Story, after};
use crate::api::{Changed, Status};
use crate::cloudstack::Request;
use crate::error::Result;
use crate::model::VolumeId;
use crate::store::{NewOperation, OperationRow};

/// A call whose job is ours to name.
pub(super) fn job(request: &Request) -> String {
    format!("ask CloudStack: {request} customjobid=(chosen then), and wait for its job")
}

/// A call without a job.
pub(super) fn call(request: &Request) -> String {
    format!("ask CloudStack: {request}, and look whether it is done")
}

impl Engine {
    /// What a story would do, with what is true now.
    pub(super) async fn dry_run<S: Story>(&self, mut story: S, new: NewOperation) -> Result<Changed> {
        let mut plan = Vec::new();
        if let Some(holder) = self.world().store.in_line_behind(&new)? {
            plan.push(format!(
                "wait in line behind operation {}; what then is to be done is looked at then",
                holder.id
            ));
        } else {
            let first =
                new.supersedes.as_ref().map(|(id, _)| format!("end operation {id}, which only waits for its device"));
            plan.extend(first);
            plan.extend(self.steps_of(&mut story, new.clone()).await?);
        }
        Ok(Changed { plan: Some(plan), notes: story.outcome().notes, ..self.world().untouched(new.volume_id)? })
    }

    /// Walks the looking steps, and asks what would come after them.
    async fn steps_of<S: Story>(&self, story: &mut S, new: NewOperation) -> Result<Vec<String>> {
        let row = not_journaled(new);
        let shown = Arc::new(watch::Sender::new(Shown::plain(row.clone())));
        let deadline = Deadline::at(row.deadline);
        let cx = Cx { world: self.world().clone(), row, deadline, resumed: false, shown, pass: None };
        let mut step = S::STEPS.first().copied();
        while let Some(looking) = step.filter(|step| S::LOOKING.contains(step)) {
            step = match story.run(looking, &cx).await {
                Ok(Next::On) => after(story, looking),
                Ok(Next::Back(earlier)) => Some(earlier),
                Ok(Next::Done) => None,
                Err(Halt::Fail(error) | Halt::Stuck(error)) => return Err(error),
            };
        }
        match step {
            Some(_) => story.plan(self.world()).await,
            None => Ok(Vec::new()),
        }
    }
}

impl World {
    /// What there is to say of a volume that no operation was done to.
    pub(super) fn untouched(&self, id: Option<VolumeId>) -> Result<Changed> {
        let volume = id.map(|id| self.volume_now(id)).transpose()?.flatten();
        let export = volume.as_ref().and_then(|volume| volume.export.clone());
        Ok(Changed {
            changed: Some(false),
            operation: None,
            volume,
            export,
            notes: Vec::new(),
            plan: None,
            snapshot: None,
            existed: None,
            departure: None,
            swapped_root: None,
        })
    }
}

fn not_journaled(new: NewOperation) -> OperationRow {
    let now = Timestamp::now();
    OperationRow {
        id: new.id,
        kind: new.kind,
        status: Status::Running,
        step: new.step.0,
        step_words: new.step.1,
        volume_id: new.volume_id,
        volume_name: new.volume_name,
        vm_id: new.vm_id,
        request: new.request,
        asker: new.asker,
        story: new.story,
        outcome: None,
        error: None,
        deadline: new.deadline,
        created_at: now,
        updated_at: now,
        finished_at: None,
        unreadable: None,
    }
}
