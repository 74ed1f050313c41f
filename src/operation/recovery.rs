//! What is to be done with the rows that an earlier daemon left: pure, so that it is tested without one.

use crate::api::Status;
use crate::store::OperationRow;

/// The rows to drive on, in the order in which they were accepted. What is stuck waits for its human.
pub(super) fn plan(unfinished: Vec<OperationRow>) -> Vec<OperationRow> {
    unfinished
        .into_iter()
        .filter(|row| matches!(row.status, Status::Queued | Status::Running | Status::Unwinding))
        .collect()
}
