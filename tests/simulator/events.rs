//! The cloud's own books of what was done, as `listEvents` tells them (facts sheet, 4.1): an entry when a job is
//! scheduled and one when it has ended, one for what is done at once, and one for what the admin did.

use jiff::Timestamp;
use serde::Serialize;

use crate::jobs::Instance;
use crate::world::World;
use crate::world::objects::random_id;

/// An entry.
#[derive(Serialize)]
pub struct Event {
    /// Its id.
    pub id: String,
    /// `VOLUME.ATTACH`, ...
    pub r#type: &'static str,
    /// `Scheduled` or `Completed`.
    pub state: &'static str,
    /// `INFO` or `ERROR`.
    pub level: &'static str,
    /// In words.
    pub description: String,
    /// Who did it.
    pub username: String,
    /// Whose it is.
    pub account: String,
    /// What it is about.
    pub resourcetype: &'static str,
    /// Its id.
    pub resourceid: String,
    /// When.
    pub created: Timestamp,
}

/// The type of the entries that a command makes; none for one that makes none about a volume.
fn event_type(command: &str) -> Option<&'static str> {
    Some(match command {
        "createVolume" => "VOLUME.CREATE",
        "attachVolume" => "VOLUME.ATTACH",
        "detachVolume" => "VOLUME.DETACH",
        "resizeVolume" => "VOLUME.RESIZE",
        "destroyVolume" => "VOLUME.DESTROY",
        "deleteVolume" => "VOLUME.DELETE",
        "recoverVolume" => "VOLUME.RECOVER",
        _ => return None,
    })
}

/// Enters what a command of the API's caller has come to.
pub fn enter(world: &mut World, command: &str, instance: Option<&Instance>, state: &'static str, error: Option<&str>) {
    let Some(volume) = instance.filter(|instance| instance.kind == "Volume") else { return };
    let Some(r#type) = event_type(command) else { return };
    let how = match (state, error) {
        ("Scheduled", _) => "Scheduled".to_owned(),
        (_, None) => "Successfully completed".to_owned(),
        (_, Some(error)) => format!("Error while: {error};"),
    };
    let level = if error.is_some() { "ERROR" } else { "INFO" };
    let (description, user) = (format!("{how} {command} of volume {}", volume.id), world.settings.account.clone());
    add(world, &volume.id, r#type, (state, level), description, user);
}

/// Enters what the admin did to a volume behind everybody's back.
pub fn enter_admins(world: &mut World, volume: &str, r#type: &'static str) {
    let description = format!("Successfully completed {} of volume {volume}", r#type.to_lowercase());
    add(world, volume, r#type, ("Completed", "INFO"), description, "admin".to_owned());
}

fn add(
    world: &mut World,
    volume: &str,
    r#type: &'static str,
    (state, level): (&'static str, &'static str),
    description: String,
    username: String,
) {
    let event = Event {
        id: random_id(),
        r#type,
        state,
        level,
        description,
        account: username.clone(),
        username,
        resourcetype: "Volume",
        resourceid: volume.to_owned(),
        created: world.now(),
    };
    world.events.push(event);
}
