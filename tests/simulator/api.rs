//! One call of the API, from the decoded request to the enveloped answer (facts sheet, 1.1, 1.3 and 3).

use std::sync::Arc;

use crate::commands::{self, Command};
use crate::error::ApiError;
use crate::faults::{self, Delivery};
use crate::jobs::{self, Fate};
use crate::reply::Reply;
use crate::request::ApiRequest;
use crate::signature;
use crate::simulator::Simulator;
use crate::world::World;

/// The sentence that hides internal errors from ordinary accounts.
const INTERNAL_SENTENCE: &str = "There was an internal error executing the command, contact your system administrator.";

/// Answers a call, met by the fault that waits for it, if one does.
pub async fn answer(simulator: Arc<Simulator>, request: ApiRequest) -> Delivery {
    let fault = simulator.change(|world| {
        jobs::expire(world);
        let fault = world.faults.take(request.command().unwrap_or_default());
        world.journal.note(&request, fault.as_ref().and_then(faults::Mode::name));
        fault
    });
    match fault {
        Some(mode) => faults::meet(mode, &simulator, &request).await,
        None => Delivery::Whole(process(&simulator, &request, Fate::Normal).await),
    }
}

/// Checks a call, carries it out, and makes its answer.
pub async fn process(simulator: &Arc<Simulator>, request: &ApiRequest, fate: Fate) -> Reply {
    let command = match simulator.change(|world| authenticate(request, world)) {
        Ok(command) => command,
        Err(error) => return refusal(request, &error),
    };
    if !command.is_async {
        let latency = simulator.world().settings.call_latency(command.name);
        tokio::time::sleep(latency).await;
    }
    match simulator.change(|world| commands::execute(simulator, world, command, request, fate)) {
        Ok(content) => Reply::success(request.format(), command.name, content),
        Err(error) => refusal(request, &masked(error, &simulator.world())),
    }
}

/// An error in the envelope that the command has.
pub fn refusal(request: &ApiRequest, error: &ApiError) -> Reply {
    let is_known = request.command().is_some_and(|name| commands::find(name).is_some());
    Reply::error(request.format(), request.command(), is_known, error)
}

/// The server's checks, in its order.
fn authenticate(request: &ApiRequest, world: &mut World) -> Result<&'static Command, ApiError> {
    let name = request.command().ok_or_else(ApiError::unauthorized)?;
    let enforced = world.settings.enforce_post_requests_and_timestamps;
    if enforced && !request.is_post && commands::changes_state(name) {
        return Err(ApiError::new(400, format!("State changing command {name} needs to be sent using POST request")));
    }
    let command = commands::find(name).ok_or_else(ApiError::unauthorized)?;
    check_expiry(request, world, enforced)?;
    if request.any_case("apikey").is_none() || request.any_case("apikey") != world.settings.api_key.as_deref() {
        return Err(ApiError::unauthorized());
    }
    if world.settings.denied_commands.iter().any(|denied| denied == name) {
        return Err(ApiError::new(
            432,
            format!("The given command '{name}' either does not exist, is not available for user."),
        ));
    }
    world.throttle().map_err(throttled)?;
    let secret = world.settings.secret_key.as_deref().unwrap_or_default();
    match request.any_case("signature") {
        Some(sent) if signature::is_valid(secret, &request.sent, sent) => Ok(command),
        _ => Err(ApiError::unauthorized()),
    }
}

/// `expires` is read in version 3 only, which enforcement makes necessary.
fn check_expiry(request: &ApiRequest, world: &World, enforced: bool) -> Result<(), ApiError> {
    let is_fresh = match (request.any_case("signatureversion"), request.any_case("expires")) {
        (Some("3"), Some(expires)) => signature::is_fresh(expires, world.now(), enforced),
        (Some("3"), None) => false,
        _ => !enforced,
    };
    if is_fresh { Ok(()) } else { Err(ApiError::unauthorized()) }
}

/// 429, with the wait in the text.
pub fn throttled(wait_ms: u128) -> ApiError {
    ApiError::new(
        429,
        format!("The given user has reached his/her account api limit, please retry after [{wait_ms}] ms."),
    )
}

/// 503, to jobs only.
pub fn in_maintenance() -> ApiError {
    ApiError::new(503, "Maintenance or Shutdown has been initiated on this management server. Can not accept new jobs")
}

fn masked(error: ApiError, world: &World) -> ApiError {
    if matches!(error.code, 530 | 533 | 534) && !world.settings.is_admin() {
        ApiError::new(error.code, INTERNAL_SENTENCE)
    } else {
        error
    }
}
