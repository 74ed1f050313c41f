//! How it stands between CloudStack and us, for `health` and for whoever waits.

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::CallError;
use crate::error::Error;

/// How it stands with CloudStack.
#[derive(Clone, Debug, Default)]
pub struct Contact {
    /// When CloudStack last answered anything, a refusal too.
    pub last_answer: Option<Timestamp>,
    /// Since when it has not answered, where the last call got no answer.
    pub trouble: Option<Trouble>,
    /// Since when it refuses our key, where it does.
    pub key_refused_since: Option<Timestamp>,
}

/// CloudStack is away.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The first call without an answer.
    pub since: Instant,
    /// What the latest one met.
    pub error: Error,
}

#[derive(Default)]
pub(super) struct ContactLog(watch::Sender<Contact>);

impl ContactLog {
    pub(super) fn now(&self) -> Contact {
        self.0.borrow().clone()
    }

    /// Changes when it stands otherwise than before, not with each call.
    pub(super) fn watch(&self) -> watch::Receiver<Contact> {
        self.0.subscribe()
    }

    /// Takes down how a call ended.
    pub(super) fn note(&self, failure: Option<&CallError>) {
        self.0.send_if_modified(|contact| {
            let before = contact.standing();
            contact.take(failure, Timestamp::now());
            contact.standing() != before
        });
    }
}

impl Contact {
    /// Since when it is away, and since when it refuses the key.
    fn standing(&self) -> (Option<Instant>, Option<Timestamp>) {
        (self.trouble.as_ref().map(|trouble| trouble.since), self.key_refused_since)
    }

    fn take(&mut self, failure: Option<&CallError>, now: Timestamp) {
        if let Some(error) = failure.filter(|error| error.is_away()) {
            let since = self.trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
            self.trouble = Some(Trouble { since, error: Error::from(error.clone()) });
            return;
        }
        self.last_answer = Some(now);
        self.trouble = None;
        match failure {
            // Where a clock is wrong, nothing was said about the key.
            Some(CallError::Auth { clock_skew: None, .. }) => {
                self.key_refused_since.get_or_insert(now);
            }
            Some(CallError::Auth { .. }) => {}
            Some(error) if answers_before_the_key_is_checked(error) => {}
            _ => self.key_refused_since = None,
        }
    }
}

/// Role and throttle are checked before the signature (facts sheet, 1.3), so these say nothing about the key.
fn answers_before_the_key_is_checked(error: &CallError) -> bool {
    matches!(error, CallError::Throttled { .. }) || error.is_refused(432)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::error::CloudStackFault;

    fn fault(code: i64) -> CloudStackFault {
        CloudStackFault { code, cserrorcode: None, text: None }
    }

    #[test]
    fn trouble_lasts_from_its_first_call_to_the_next_answer() {
        let log = ContactLog::default();
        let away = |why: &str| CallError::NotSent { why: why.to_owned(), hint: "" };
        log.note(Some(&away("first")));
        let first = log.now().trouble.unwrap();
        log.note(Some(&away("second")));
        let second = log.now().trouble.unwrap();
        assert_eq!(second.since, first.since);
        assert_eq!(second.error.message, "second");
        assert!(log.now().last_answer.is_none());
        log.note(Some(&CallError::Refused(fault(431))));
        assert!(log.now().trouble.is_none() && log.now().last_answer.is_some());
    }

    #[test]
    fn only_an_answer_that_needs_the_key_clears_its_refusal() {
        let log = ContactLog::default();
        log.note(Some(&CallError::Auth { fault: fault(401), clock_skew: None }));
        let since = log.now().key_refused_since;
        assert!(since.is_some());
        for failure in [CallError::Refused(fault(432)), CallError::NotSent { why: String::new(), hint: "" }] {
            log.note(Some(&failure));
            assert_eq!(log.now().key_refused_since, since);
        }
        log.note(None);
        assert!(log.now().key_refused_since.is_none());
    }
}
