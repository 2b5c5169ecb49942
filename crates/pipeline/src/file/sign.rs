//! `publish.sign`: who signs what is said of a published image.

use super::{
    SbomFormat, Sign,
    read::{Keys, Reader, shorten},
    sections::required_text,
    yaml::{Kind, Node},
};
use crate::codes;

pub(super) const SIGN: Keys = Keys {
    what: "`sign`",
    known: &["key", "sbom"],
    later: &["certificate", "transparency_log"],
    foreign: &[("private_key", "key"), ("keys", "key")],
};

/// A text is the key's place.
pub(super) fn sign(reader: &mut Reader, node: &Node) -> Option<Sign> {
    let (key, sbom) = if let Kind::Map(_) = node.kind {
        let fields = reader.fields(node, &SIGN, "the place of a key, or a map with `key`")?;
        let key = required_text(reader, &fields, "key", node, "`sign`")?;
        (key, fields.get("sbom").map_or(Some(Some(SbomFormat::default())), |node| sbom(reader, node))?)
    } else {
        (reader.text(node)?, Some(SbomFormat::default()))
    };
    // A template may be the place; what it gives is looked at when there is a plan.
    if !key.value.contains('$')
        && let Err(error) = key.value.parse::<evidence::KeySource>()
    {
        reader.error(codes::INVALID_VALUE, error.to_string(), &key.span);
    }
    Some(Sign { key, sbom })
}

/// `None`: it is wrong; `Some(None)`: none is wanted.
#[expect(clippy::option_option, reason = "the outer one is the reader's way to say that the value is wrong")]
fn sbom(reader: &mut Reader, node: &Node) -> Option<Option<SbomFormat>> {
    let text = reader.text(node)?;
    match text.value.as_str() {
        "spdx" => Some(Some(SbomFormat::Spdx)),
        "cyclonedx" => Some(Some(SbomFormat::Cyclonedx)),
        "false" => Some(None),
        other => {
            let message = format!("`{}` is not known; there are `spdx`, `cyclonedx` and `false`", shorten(other));
            reader.error(codes::INVALID_VALUE, message, &text.span);
            None
        }
    }
}
