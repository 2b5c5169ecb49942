//! `--iidfile` and `--metadata-file`, as buildx writes them.

use oci::Reference;
use serde_json::{Value, json};

use super::{Finished, flags::BuildArgs};
use crate::context::Context;

/// Writes what was asked for. `provenance` is that of each image, `run` the number of this build's record.
pub(super) fn write(
    args: &BuildArgs,
    context: &Context,
    finished: &Finished,
    names: &[Reference],
    provenance: &[Option<Value>],
    run: u64,
) -> anyhow::Result<()> {
    if let Some(path) = &args.iidfile {
        fs_err::write(context.settings.cwd.join(path), finished.id().to_string())?;
    }
    let Some(path) = &args.metadata_file else { return Ok(()) };
    let mut metadata = json!({
        "buildx.build.ref": format!("seatrial/{}/{run}", context.settings.home.display()),
    });
    let made = finished.first();
    if let Some(index) = &finished.index {
        metadata["containerimage.descriptor"] = json!({
            "mediaType": index.index.media_type,
            "digest": index.digest,
            "size": index.bytes.len(),
        });
        metadata["containerimage.digest"] = json!(index.digest);
    } else {
        metadata["containerimage.config.digest"] = json!(made.image.id);
    }
    if let Some(sealed) = made.sealed.as_ref().filter(|_| finished.index.is_none()) {
        metadata["containerimage.descriptor"] = json!({
            "mediaType": sealed.manifest.media_type,
            "digest": sealed.digest,
            "size": sealed.bytes.len(),
            "annotations": {
                "config.digest": made.image.id,
                "org.opencontainers.image.created": made.image.config.created,
            },
            "platform": made.image.config.platform(),
        });
        metadata["containerimage.digest"] = json!(sealed.digest);
    }
    for (made, provenance) in finished.made.iter().zip(provenance) {
        let Some(provenance) = provenance else { continue };
        let platform = made.image.config.platform();
        let of = if finished.made.len() > 1 { format!("/{platform}") } else { String::new() };
        metadata[format!("buildx.build.provenance{of}")] = provenance.clone();
    }
    if !names.is_empty() {
        let list: Vec<String> = names.iter().map(ToString::to_string).collect();
        metadata["image.name"] = json!(list.join(","));
    }
    fs_err::write(context.settings.cwd.join(path), serde_json::to_string_pretty(&metadata)? + "\n")?;
    Ok(())
}
