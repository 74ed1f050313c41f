//! Looks at single volumes that several ask for at the same moment: one list of them answers all.
//!
//! As in [`super::together`] nobody gets an answer to a question that was sent before he asked.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::CloudStack;
use super::error::CallError;
use crate::model::{VolumeId, VolumeRecord};

/// How many such questions are under way at a time: who comes meanwhile waits, and shares the next one.
const QUESTIONS: usize = 2;
/// How many volumes one of them asks for.
const VOLUMES: usize = 100;

/// The volumes that somebody is about to ask for.
pub(super) struct Gathered {
    next: Mutex<Arc<Question>>,
    turns: Semaphore,
}

impl Default for Gathered {
    fn default() -> Self {
        Self { next: Mutex::default(), turns: Semaphore::new(QUESTIONS) }
    }
}

/// One question: about which volumes, and its answer. Locked while it is under way.
#[derive(Default)]
struct Question {
    volumes: Mutex<BTreeSet<VolumeId>>,
    answer: tokio::sync::Mutex<Option<Answer>>,
}

/// What it came to; none where CloudStack does not answer it, and each has to be asked for by itself.
type Answer = Result<Option<HashMap<VolumeId, VolumeRecord>>, CallError>;

impl Question {
    fn volumes(&self) -> MutexGuard<'_, BTreeSet<VolumeId>> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered {
    /// The question that is asked next, and asks for this volume too.
    fn join(&self, id: VolumeId) -> Arc<Question> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.volumes().len() >= VOLUMES {
            *next = Arc::default();
        }
        next.volumes().insert(id);
        next.clone()
    }

    /// Nobody joins it any more: which volumes it asks for.
    fn close(&self, question: &Arc<Question>) -> Vec<VolumeId> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&next, question) {
            *next = Arc::default();
        }
        question.volumes().iter().copied().collect()
    }
}

impl CloudStack {
    /// One volume; none where CloudStack does not know the id, or no longer.
    ///
    /// # Errors
    /// As each call.
    pub async fn volume(&self, id: VolumeId) -> Result<Option<VolumeRecord>, CallError> {
        let question = self.shared.gathered.join(id);
        let mut answer = question.answer.lock().await;
        if answer.is_none() {
            // The semaphore is never closed.
            let _turn = self.shared.gathered.turns.acquire().await;
            let volumes = self.shared.gathered.close(&question);
            *answer = Some(self.each_of(&volumes).await);
        }
        let told = match &*answer {
            Some(Ok(Some(found))) => Some(Ok(found.get(&id).cloned())),
            Some(Err(error)) => Some(Err(error.clone())),
            Some(Ok(None)) | None => None,
        };
        drop(answer);
        match told {
            Some(told) => told,
            None => self.volume_alone(id).await,
        }
    }

    /// Those of several volumes that CloudStack knows.
    async fn each_of(&self, ids: &[VolumeId]) -> Answer {
        if let [one] = ids {
            return Ok(Some(self.volume_alone(*one).await?.into_iter().map(|volume| (volume.id, volume)).collect()));
        }
        let found = self.volumes_of_ids(ids).await?;
        Ok(found.map(|found| found.into_iter().map(|volume| (volume.id, volume)).collect()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::super::testing::{Answer, Server, json as answer};
    use super::*;

    fn listed(ids: &[VolumeId]) -> Answer {
        let volume =
            |id| json!({"id": id, "name": "v", "type": "DATADISK", "state": "Ready", "size": 1, "zoneid": "z"});
        let volumes: Vec<_> = ids.iter().map(volume).collect();
        answer(200, &json!({"listvolumesresponse": {"count": volumes.len(), "volume": volumes}}).to_string())
    }

    /// Asks for four volumes while others are asked for; gives who was found, and how many each call asked for.
    async fn asked_at_once(ids: [VolumeId; 4], script: Vec<Answer>) -> ([Option<VolumeId>; 4], Vec<usize>) {
        let server = Server::start(script).await;
        let client = &server.client();
        let busy = client.shared.gathered.turns.acquire_many(QUESTIONS as u32).await.unwrap();
        let ask = |id| async move { client.volume(id).await.unwrap().map(|volume| volume.id) };
        let free = async {
            tokio::task::yield_now().await;
            drop(busy);
        };
        let (one, two, three, four, ()) = tokio::join!(ask(ids[0]), ask(ids[1]), ask(ids[2]), ask(ids[3]), free);
        let asked = |form: &BTreeMap<String, String>| form.get("id").or(form.get("ids")).unwrap().split(',').count();
        ([one, two, three, four], server.forms().iter().map(asked).collect())
    }

    #[tokio::test]
    async fn who_comes_while_others_are_asked_for_shares_one_question() {
        let ids = [(); 4].map(|()| VolumeId::random());
        let (found, asked) = asked_at_once(ids, vec![listed(&ids[..3])]).await;
        assert_eq!(found, [Some(ids[0]), Some(ids[1]), Some(ids[2]), None], "the last one is gone");
        assert_eq!(asked, [4]);
    }

    #[tokio::test]
    async fn where_the_server_does_not_answer_it_each_is_asked_for() {
        let refused = r#"{"listvolumesresponse":{"errorcode":431,"errortext":"entity does not exist"}}"#;
        let nonsense = r#"{"listvolumesresponse":{"count":1,"volume":[{"id":"no id at all"}]}}"#;
        for useless in [answer(431, refused), listed(&[VolumeId::random()]), answer(200, nonsense)] {
            let ids = [(); 4].map(|()| VolumeId::random());
            let script = [useless].into_iter().chain(ids.map(|_| listed(&[])));
            let (found, asked) = asked_at_once(ids, script.collect()).await;
            assert_eq!((found, asked.as_slice()), ([None; 4], [4, 1, 1, 1, 1].as_slice()));
        }
    }
}
