//! Looks that several ask for at the same moment: one question answers all of them.
//!
//! Nobody gets an answer to a question that was sent before he asked: it might not know what he has just done. So whoever
//! comes while the same question is under way waits for it, and the first of those who wait asks for all of them. That
//! CloudStack does not answer is true for all who wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::error::CallError;
use super::request::Request;
use super::transport::Reply;

/// What a question came to, as far as it is the same for all.
type Answer = Result<Arc<Reply>, CallError>;

/// The last question of one kind: when it was sent, and its answer. Locked while it is under way.
type Line = Arc<tokio::sync::Mutex<Option<(Instant, Answer)>>>;

/// The questions that somebody waits for.
#[derive(Default)]
pub(super) struct Together(Mutex<HashMap<Request, Line>>);

impl Together {
    /// The answer to a question, `ask`ed now or by somebody who came later than this.
    pub async fn answer<F>(&self, request: &Request, ask: impl FnOnce() -> F) -> Answer
    where
        F: Future<Output = Answer>,
    {
        let came = Instant::now();
        let place = self.place(request);
        let mut last = place.line.lock().await;
        if let Some((sent, answer)) = &*last
            && (*sent >= came || answer.as_ref().is_err_and(is_no_answer))
        {
            return answer.clone();
        }
        let sent = Instant::now();
        let answer = ask().await;
        *last = Some((sent, answer.clone()));
        answer
    }

    fn place<'a>(&'a self, request: &'a Request) -> Place<'a> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry(request.clone()).or_default().clone();
        Place { together: self, request, line }
    }
}

fn is_no_answer(error: &CallError) -> bool {
    error.is_away() || matches!(error, CallError::Throttled { .. })
}

/// Somebody's place in a line, which is forgotten when the last one leaves it.
struct Place<'a> {
    together: &'a Together,
    request: &'a Request,
    line: Line,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut lines = self.together.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's own, and this one.
        if Arc::strong_count(&self.line) == 2 {
            lines.remove(self.request);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::testing::{Server, json};
    use crate::model::VmId;

    const NONE: &str = r#"{"listvirtualmachinesresponse":{}}"#;

    #[tokio::test]
    async fn what_many_ask_for_at_once_is_asked_for_twice_at_most() {
        let server = Server::start([json(200, NONE), json(200, NONE)]).await;
        let (client, id) = (server.client(), VmId::random());
        let ask = || async { client.vm(id).await.unwrap() };
        let answers = tokio::join!(ask(), ask(), ask(), ask());
        assert_eq!(answers, (None, None, None, None));
        assert_eq!(server.forms().len(), 2, "who comes while a question is under way shares the next one");
        assert!(client.shared.together.0.lock().unwrap().is_empty(), "nothing is kept of it");
    }

    #[tokio::test]
    async fn who_asks_again_is_answered_anew() {
        let server = Server::start([json(200, NONE), json(200, NONE)]).await;
        let (client, id) = (server.client(), VmId::random());
        for _ in 0..2 {
            assert_eq!(client.vm(id).await.unwrap(), None);
        }
        assert_eq!(server.forms().len(), 2);
    }
}
