//! A call without a job (`deleteVolume`, `recoverVolume`): the volume itself says whether it was carried out, and asking
//! again is safe.

use jiff::{SignedDuration, Timestamp};

use super::Halt;
use super::world::{Backoff, Cx};
use crate::cloudstack::CallError;
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, VolumeRecord};

/// For so long a request whose answer was lost can still be carried out: its `expires`, and a margin for the clocks.
const IN_FLIGHT: SignedDuration = SignedDuration::from_secs(70);

/// Calls until the volume shows that it is done.
///
/// A refusal or the deadline is the end only once nothing is under way any more: a request whose answer was lost, or
/// that an earlier daemon may have sent.
pub(super) async fn until_done<F>(
    cx: &Cx,
    volume: VolumeId,
    doing: &str,
    is_done: impl Fn(Option<&VolumeRecord>) -> Result<bool>,
    call: impl Fn() -> F,
) -> Result<(), Halt>
where
    F: Future<Output = Result<(), CallError>>,
{
    let mut backoff = Backoff::default();
    // An earlier daemon sent nothing after the deadline either.
    let mut in_flight = cx.resumed.then(|| Timestamp::now().min(cx.row.deadline) + IN_FLIGHT);
    loop {
        let found = cx.persistently(|| cx.world.look_up(volume)).await;
        if is_done(found.as_ref())? {
            return Ok(());
        }
        let open = in_flight.is_some_and(|until| Timestamp::now() < until);
        if cx.past_deadline() {
            if !open {
                return Err(Halt::Fail(too_late(cx, doing, in_flight.is_some())));
            }
            backoff.wait(None).await;
            continue;
        }
        cx.prove_this_vm(false).await?;
        let retry_after = match call().await {
            Ok(()) => {
                cx.called(None, "CloudStack did it at once, without a job");
                None
            }
            Err(error) => {
                cx.called(None, format!("CloudStack did not say that it was done: {error}"));
                if error.accepted_unknown() {
                    in_flight = Some(Timestamp::now() + IN_FLIGHT);
                } else if !open && error.retry_after().is_none() {
                    return Err(Halt::Fail(error.into_error(doing)));
                }
                cx.trouble(&error);
                error.retry_after()
            }
        };
        backoff.wait(retry_after).await;
    }
}

fn too_late(cx: &Cx, doing: &str, was_sent: bool) -> Error {
    if !was_sent {
        return cx.nothing_was_sent("its time had passed before CloudStack could be asked");
    }
    Error::new(Kind::CloudstackUnreachable, format!("{doing}: CloudStack has not done it, and its time has passed"))
        .hint("ask again if it is still wanted")
}
