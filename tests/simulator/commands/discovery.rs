//! `listApis` and `listCapabilities` (facts sheet, 4.10).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{COMMANDS, Command, Outcome};
use crate::error::ApiError;
use crate::params::Kind::Text;
use crate::params::{Params, Spec};
use crate::simulator::Simulator;
use crate::view;
use crate::world::World;

/// `listApis`
pub const LIST_APIS: Command = Command {
    name: "listApis",
    class: "discovery.ListApisCmd",
    is_async: false,
    params: &[Spec::new("name", Text)],
    run: list_apis,
};

/// `listCapabilities`
pub const LIST_CAPABILITIES: Command = Command {
    name: "listCapabilities",
    class: "config.ListCapabilitiesCmd",
    is_async: false,
    params: &[],
    run: list_capabilities,
};

fn list_apis(_: &Arc<Simulator>, world: &mut World, params: &Params) -> Result<Outcome, ApiError> {
    let is_allowed = |command: &Command| !world.settings.denied_commands.iter().any(|denied| denied == command.name);
    let named = |command: &Command| params.text("name").is_none_or(|name| name == command.name);
    let apis: Vec<_> =
        COMMANDS.into_iter().filter(|command| is_allowed(command) && named(command)).map(describe).collect();
    if apis.is_empty() {
        return Err(ApiError::internal("The api name is not available for the user"));
    }
    Ok(Outcome::Done(json!({"count": apis.len(), "api": apis})))
}

fn describe(command: &Command) -> Value {
    let params = command.params.iter();
    let params: Vec<_> = params
        .map(|param| {
            json!({
                "name": param.name, "description": param.name, "type": param.type_name(), "length": 255,
                "required": param.required,
            })
        })
        .collect();
    json!({
        "name": command.name, "description": command.name, "isasync": command.is_async, "related": "",
        "params": params, "response": [],
    })
}

fn list_capabilities(_: &Arc<Simulator>, world: &mut World, _: &Params) -> Result<Outcome, ApiError> {
    let settings = &world.settings;
    let mut capability = json!({
        "securitygroupsenabled": false, "dynamicrolesenabled": true, "cloudstackversion": view::VERSION,
        "userpublictemplateenabled": true, "supportELB": "false", "projectinviterequired": false,
        "allowusercreateprojects": true, "customdiskofferingminsize": super::create_volume::MIN_CUSTOM_GIB,
        "customdiskofferingmaxsize": super::create_volume::MAX_CUSTOM_GIB, "regionsecondaryenabled": false,
        "kvmsnapshotenabled": false, "allowuserviewdestroyedvm": false, "allowuserexpungerecovervm": false,
        "allowuserexpungerecovervolume": settings.allow_user_expunge_recover_volume,
        "defaultuipagesize": 20,
    });
    if let Some(throttle) = &settings.throttle {
        capability["apilimitinterval"] = json!(throttle.interval_ms / 1000);
        capability["apilimitmax"] = json!(throttle.max);
    }
    Ok(Outcome::Done(json!({"capability": capability})))
}
