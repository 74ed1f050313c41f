//! A call without a job (`deleteVolume`, `recoverVolume`): the volume itself says whether it was carried out, and asking
//! again is safe.

use super::Halt;
use super::job::EXPIRY_MARGIN;
use super::world::{Backoff, Cx};
use crate::cloudstack::CallError;
use crate::error::{Error, Kind, Result};
use crate::model::{VolumeId, VolumeRecord};

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
    let (mut backoff, cloud) = (Backoff::default(), &cx.world.cloud);
    // On CloudStack's clock, from when on what was sent before is dead.
    let dead = || cloud.expiry() + EXPIRY_MARGIN;
    let mut in_flight = cx.resumed.then(dead);
    loop {
        // Before the look: what is carried out at the last moment is seen by it.
        let open = match in_flight {
            Some(dead) => !cx.persistently(|| cloud.has_passed(dead)).await,
            None => false,
        };
        let found = cx.persistently(|| cx.world.look_up(volume)).await;
        if is_done(found.as_ref())? {
            return Ok(());
        }
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
                    in_flight = Some(dead());
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
