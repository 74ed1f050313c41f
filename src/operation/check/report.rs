//! What was found so far, in order.

use crate::api::{Finding, Verdict};
use crate::error::Error;

/// The findings of some checks. Each is told under the name that was last [`begun`](Self::begin).
pub(super) struct Report {
    name: &'static str,
    findings: Vec<Finding>,
}

impl Report {
    /// With nothing found yet.
    pub fn of(name: &'static str) -> Self {
        Self { name, findings: Vec::new() }
    }

    /// What is found from now on is of this check.
    pub fn begin(&mut self, name: &'static str) {
        self.name = name;
    }

    /// As it should be.
    pub fn ok(&mut self, message: impl Into<String>) {
        self.add(Verdict::Ok, message.into(), None);
    }

    /// Something is wrong.
    pub fn bad(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Verdict::Bad, message.into(), Some(hint.into()));
    }

    /// Something is wrong, as an error says it.
    pub fn error(&mut self, error: Error) {
        self.add(Verdict::Bad, error.message, error.hint);
    }

    /// The check could not be made.
    pub fn skip(&mut self, why: impl std::fmt::Display, hint: impl Into<String>) {
        self.add(Verdict::Skipped, format!("not checked: {why}"), Some(hint.into()));
    }

    /// These checks could not be made, because that of the present name failed.
    pub fn skip_others<'a>(&mut self, others: impl Iterator<Item = &'a &'static str>) {
        let cause = self.name;
        for other in others {
            self.begin(other);
            self.skip(format_args!("the check of {cause} failed"), format!("put {cause} right, then check again"));
        }
    }

    /// All that was found.
    pub fn end(self) -> Vec<Finding> {
        self.findings
    }

    fn add(&mut self, state: Verdict, message: String, hint: Option<String>) {
        self.findings.push(Finding { name: self.name.to_owned(), state, message, hint });
    }
}
