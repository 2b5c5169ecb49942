//! The services that gates use.

use super::{
    Uses,
    read::{Fields, Keys, Reader},
    yaml::Kind,
};

pub(super) const SERVICES: Keys = Keys {
    what: "`services` of a gate",
    known: &["fresh"],
    later: &[],
    foreign: &[("own", "fresh"), ("private", "fresh"), ("names", "fresh")],
};

/// `services` and `links` of `test` or of a gate.
pub(super) fn uses(reader: &mut Reader, fields: &Fields<'_>) -> Uses {
    let mut uses =
        Uses { links: fields.get("links").map(|node| reader.texts(node)).unwrap_or_default(), ..Uses::default() };
    match fields.get("services") {
        Some(node) if matches!(node.kind, Kind::Map(_)) => {
            let own = reader.fields(node, &SERVICES, "names of services, or a map such as `{fresh: [db]}`");
            uses.fresh = true;
            uses.services = own.and_then(|own| own.get("fresh").map(|node| reader.texts(node))).unwrap_or_default();
        }
        Some(node) => uses.services = reader.texts(node),
        None => {}
    }
    uses
}
