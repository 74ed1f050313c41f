//! A command's parameters: what it declares, and what of it was sent (facts sheet, 1.2).

use std::collections::{BTreeMap, HashMap};

use crate::error::ApiError;
use crate::world::World;

/// The longest string, in UTF-16 code units, unless a parameter declares another length.
const MAX_LENGTH: usize = 255;

/// What an id must belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entity {
    /// A zone.
    Zone,
    /// A disk offering.
    DiskOffering,
    /// A project.
    Project,
    /// A project, or -1 for all of the caller's.
    AnyProject,
    /// A virtual machine, deleted ones included.
    Vm,
    /// A volume, deleted ones included.
    Volume,
    /// A volume snapshot.
    Snapshot,
    /// An asynchronous job.
    Job,
}

/// The type of a parameter.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Any text.
    Text,
    /// `true` in any case is true, all else is false.
    Boolean,
    /// A whole number.
    Integer,
    /// The id of something that exists or existed.
    Id(Entity),
    /// Such ids, with commas between.
    Ids(Entity),
    /// Texts with commas between.
    List,
    /// `name[0].key=...&name[0].value=...`
    Map,
}

/// A parameter that a command declares.
pub struct Spec {
    /// Its name, in lower case.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether the command needs it.
    pub required: bool,
}

impl Spec {
    /// An optional parameter.
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: false }
    }

    /// Makes it a required one.
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// The name of the type, as `listApis` gives it.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Text => "string",
            Kind::Boolean => "boolean",
            Kind::Integer => "long",
            Kind::Id(_) => "uuid",
            Kind::Ids(_) | Kind::List => "list",
            Kind::Map => "map",
        }
    }

    fn check(&self, value: &str, world: &World) -> Result<(), ApiError> {
        let too_long = value.encode_utf16().count() > MAX_LENGTH;
        match self.kind {
            Kind::Text if too_long => {
                Err(ApiError::invalid(format!("value of parameter {} is longer than {MAX_LENGTH}", self.name)))
            }
            Kind::Integer if value.parse::<i64>().is_err() => {
                Err(ApiError::invalid(format!("invalid value of parameter {}: not a number", self.name)))
            }
            Kind::Id(entity) => self.check_id(value, entity, world),
            Kind::Ids(entity) => value.split(',').try_for_each(|id| self.check_id(id.trim(), entity, world)),
            _ => Ok(()),
        }
    }

    fn check_id(&self, id: &str, entity: Entity, world: &World) -> Result<(), ApiError> {
        if world.ever_existed(entity, id) {
            return Ok(());
        }
        Err(ApiError::invalid(format!(
            "Invalid parameter {} value={id} due to incorrect long value format, or entity does not exist or due to \
             incorrect parameter annotation for the field in api cmd class.",
            self.name
        )))
    }
}

/// The parameters of one call.
pub struct Params {
    values: HashMap<String, String>,
    maps: HashMap<String, Vec<HashMap<String, String>>>,
}

impl Params {
    /// Lower-cases the names and unpacks maps; refuses control characters and malformed map names.
    pub fn unpack<'a>(sent: impl Iterator<Item = (&'a String, &'a String)>) -> Result<Self, ApiError> {
        let mut values = HashMap::new();
        let mut entries: HashMap<String, BTreeMap<i64, HashMap<String, String>>> = HashMap::new();
        for (name, value) in sent {
            if value.chars().any(|c| matches!(c, '\0'..='\u{1f}' | '\u{7f}') && !matches!(c, '\n' | '\r')) {
                return Err(ApiError::invalid(format!("Received value for parameter {name} has control characters")));
            }
            match map_entry(name)? {
                Some((map, index, field)) => {
                    let fields = entries.entry(map.to_lowercase()).or_default().entry(index).or_default();
                    fields.insert(field.to_owned(), value.clone());
                }
                None => drop(values.insert(name.to_lowercase(), value.clone())),
            }
        }
        let maps = entries.into_iter().map(|(name, entries)| (name, entries.into_values().collect())).collect();
        Ok(Self { values, maps })
    }

    /// Checks the values against what the command declares.
    pub fn check(&self, specs: &[Spec], world: &World) -> Result<(), ApiError> {
        for spec in specs {
            match self.values.get(spec.name) {
                Some(value) => spec.check(value, world)?,
                None if spec.required && !self.maps.contains_key(spec.name) => {
                    return Err(ApiError::invalid(format!(
                        "Unable to execute API command due to missing parameter {}",
                        spec.name
                    )));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// A parameter's value.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A parameter that the command requires and whose presence was checked.
    pub fn required(&self, name: &str) -> &str {
        self.text(name).unwrap_or_default()
    }

    /// A boolean, false if it was not sent.
    pub fn is_true(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A number whose form was checked.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(|value| value.parse().ok())
    }

    /// The items of a list.
    pub fn list(&self, name: &str) -> Option<Vec<&str>> {
        self.text(name).map(|value| value.split(',').map(str::trim).collect())
    }

    /// The `key` and `value` of each entry of a map.
    pub fn map(&self, name: &str) -> Vec<(&str, &str)> {
        let entries = self.maps.get(name).into_iter().flatten();
        entries.map(|fields| (field(fields, "key"), field(fields, "value"))).collect()
    }
}

fn field<'a>(fields: &'a HashMap<String, String>, name: &str) -> &'a str {
    fields.get(name).map(String::as_str).unwrap_or_default()
}

/// Takes `tags[0].key` apart; `None` for a plain name.
fn map_entry(name: &str) -> Result<Option<(&str, i64, &str)>, ApiError> {
    let Some((map, rest)) = name.split_once('[') else {
        return Ok(None);
    };
    rest.split_once("].")
        .and_then(|(index, field)| Some((map, index.parse().ok()?, field)))
        .filter(|(map, _, field)| !map.is_empty() && !field.is_empty())
        .map(Some)
        .ok_or_else(|| ApiError::new(430, format!("Malformed parameter name {name}")))
}
