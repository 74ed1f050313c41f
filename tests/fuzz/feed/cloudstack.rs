//! Bytes as CloudStack's answer to each command: a value or an error that a person can read.

use volctl::cloudstack::{CallError, RawAnswer};
use volctl::error::Error;
use volctl::model::JobId;

/// The longest sentence, in bytes: 1000 characters of CloudStack's own, each escaped, and ours around them.
const LONGEST: usize = 12_000;

/// Reads the bytes as the body of a success and of a failure, by each command that the daemon looks with.
///
/// # Panics
/// If an error is not one bounded line without control characters.
pub fn cloudstack(bytes: &[u8]) {
    let job: JobId = "6f0a2d5e-8f1b-4d0c-9c39-2f2f5f0e7a11".parse().expect("a UUID");
    for status in [200, 431, 502] {
        let answer = RawAnswer::new(status, bytes.to_vec());
        readable(answer.volumes());
        readable(answer.vms());
        readable(answer.zones());
        readable(answer.disk_offerings());
        readable(answer.job(job));
    }
}

fn readable<T>(outcome: Result<T, CallError>) {
    let Err(error) = outcome else { return };
    let message = Error::from(error).message;
    assert!(message.len() <= LONGEST, "{} bytes", message.len());
    assert!(!message.contains(char::is_control), "control characters: {message:?}");
}
