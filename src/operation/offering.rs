//! Which zone and which disk offering a new volume gets: what is asked for, else what is configured, else the only one
//! that fits.

use super::world::World;
use crate::api::VolumeCreate;
use crate::error::{Error, Kind, Result};
use crate::model::{DiskOffering, Zone, format_size, printable};

/// The zone of a new volume: the one asked for or configured, else the only one.
pub(super) async fn zone(world: &World, params: &VolumeCreate, notes: &mut Vec<String>) -> Result<Zone> {
    let zones = world.cloud.zones().await.map_err(|error| error.into_error("listing the zones; nothing was sent"))?;
    let given = params.zone.as_ref().or(world.config.cloudstack.zone.as_ref());
    let fits: Vec<&Zone> = zones
        .iter()
        .filter(|zone| given.is_none_or(|word| word.eq_ignore_ascii_case(&zone.id) || *word == zone.name))
        .collect();
    let names = |zones: &[&Zone]| zones.iter().map(|zone| printable(&zone.name)).collect::<Vec<_>>().join(", ");
    match (fits.as_slice(), given) {
        ([one], Some(_)) => Ok((*one).clone()),
        ([one], None) => {
            notes.push(format!("zone {}: the only one", printable(&one.name)));
            Ok((*one).clone())
        }
        ([], Some(word)) => Err(Error::new(Kind::NotFound, format!("there is no zone {}", printable(word)))
            .hint(format!("the zones: {}", names(&zones.iter().collect::<Vec<_>>())))),
        ([], None) => Err(Error::new(Kind::NotFound, "CloudStack shows this key no zone")),
        (many, _) => Err(Error::new(Kind::Ambiguous, format!("several zones fit: {}", names(many)))
            .hint("choose one with --zone, or set zone in [cloudstack]")),
    }
}

/// Its disk offering, chosen alike. With a size only an offering of custom size fits, without one only an offering of fixed size.
pub(super) async fn offering(
    world: &World,
    params: &VolumeCreate,
    zone: &Zone,
    notes: &mut Vec<String>,
) -> Result<DiskOffering> {
    let all = world
        .cloud
        .disk_offerings()
        .await
        .map_err(|error| error.into_error("listing the offerings; nothing was sent"))?;
    let usable: Vec<&DiskOffering> =
        all.iter().filter(|offering| offering.zone_ids.is_empty() || offering.zone_ids.contains(&zone.id)).collect();
    let describe = |offerings: &[&DiskOffering]| {
        let one = |offering: &&DiskOffering| match offering.custom_size {
            true => format!("{} ({}, custom size)", printable(&offering.name), offering.id),
            false => format!("{} ({}, {})", printable(&offering.name), offering.id, format_size(offering.size_bytes)),
        };
        offerings.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let given = params.offering.as_ref().or(world.config.cloudstack.disk_offering.as_ref());
    let Some(word) = given else {
        let fits: Vec<&DiskOffering> =
            usable.into_iter().filter(|o| o.custom_size == params.size_bytes.is_some()).collect();
        let kind = if params.size_bytes.is_some() { "custom" } else { "fixed" };
        return match fits.as_slice() {
            [one] => {
                notes.push(format!("offering {}: the only one of {kind} size", printable(&one.name)));
                Ok((*one).clone())
            }
            [] => Err(Error::new(
                Kind::NotFound,
                format!("no disk offering of {kind} size can be used in zone {}", printable(&zone.name)),
            )
            .hint(if params.size_bytes.is_some() {
                "leave --size away for one of fixed size"
            } else {
                "give a --size"
            })),
            many => Err(Error::new(
                Kind::Ambiguous,
                format!("several disk offerings of {kind} size fit: {}", describe(many)),
            )
            .hint("choose one with --offering, or set disk_offering in [cloudstack]")),
        };
    };
    let named: Vec<&DiskOffering> =
        usable.iter().copied().filter(|o| word.eq_ignore_ascii_case(&o.id) || *word == o.name).collect();
    match named.as_slice() {
        [one] => {
            fits_size(one, params.size_bytes)?;
            Ok((*one).clone())
        }
        [] => Err(Error::new(
            Kind::NotFound,
            format!("there is no disk offering {} in zone {}", printable(word), printable(&zone.name)),
        )
        .hint(format!("the offerings: {}", describe(&usable)))),
        many => Err(Error::new(
            Kind::Ambiguous,
            format!("{} fits {} disk offerings: {}", printable(word), many.len(), describe(many)),
        )
        .hint("name it by its id")),
    }
}

fn fits_size(offering: &DiskOffering, size: Option<u64>) -> Result<()> {
    let name = printable(&offering.name);
    match (offering.custom_size, size) {
        (true, None) => {
            Err(Error::new(Kind::Usage, format!("the offering {name} is of custom size: --size is needed")))
        }
        (false, Some(_)) => Err(Error::new(
            Kind::Usage,
            format!("the offering {name} has the fixed size {}: --size does not fit", format_size(offering.size_bytes)),
        )
        .hint("leave --size away, or choose an offering of custom size")),
        _ => Ok(()),
    }
}
