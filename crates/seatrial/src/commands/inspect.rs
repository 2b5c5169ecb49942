//! `seatrial inspect`: docker's fields, so that scripts carry over.

use oci::Reference;
use serde_json::{Value, json};
use store::{Image, Store};

use super::named;
use crate::{
    context::Context,
    exit::Exit,
    terminal::{self, table::Format},
};

/// Flags of `seatrial inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(required = true)]
    images: Vec<String>,
    /// `json` for one line each, or a template such as `{{.Id}}`
    #[arg(short, long)]
    format: Option<String>,
}

/// Shows images as a JSON array, or line by line in a format.
pub(crate) fn run(args: &InspectArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let store = context.store()?;
    let mut values = Vec::new();
    for name in &args.images {
        let (_, images) = named::find_all(store, name)?;
        let mut value = describe(store, &images[0])?;
        if images.len() > 1 {
            let platform = |image: &Image| json!({"Platform": image.config.platform().to_string(), "Id": image.id, "Size": image.size_bytes});
            value["Platforms"] = images.iter().map(platform).collect();
        }
        values.push(value);
    }
    if format == Format::Table {
        let text = serde_json::to_string_pretty(&values).expect("JSON values serialise");
        terminal::result_line(&text);
        return Ok(Exit::Passed);
    }
    for value in &values {
        if let Some(line) = format.line(value)? {
            terminal::result_line(&line);
        }
    }
    Ok(Exit::Passed)
}

fn describe(store: &Store, image: &Image) -> anyhow::Result<Value> {
    let named = named::all(store)?.into_iter().find(|named| named.image.id == image.id);
    let (references, digest) = named.map(|named| (named.references, named.manifest_digest)).unwrap_or_default();
    let repositories = {
        let mut names: Vec<String> = references.iter().map(plain_name).collect();
        names.dedup();
        names
    };
    let digests: Vec<String> =
        digest.iter().flat_map(|digest| repositories.iter().map(move |name| format!("{name}@{digest}"))).collect();
    Ok(json!({
        "Id": image.id,
        "Digest": digest,
        "RepoTags": references.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "RepoDigests": digests,
        "Created": image.config.created,
        "Author": image.config.author,
        "Architecture": image.config.architecture,
        "Variant": image.config.variant,
        "Os": image.config.os,
        "Size": image.size_bytes,
        "Config": image.config.config,
        "RootFS": {"Type": "layers", "Layers": image.config.rootfs.diff_ids},
        "History": image.config.history,
    }))
}

/// The familiar name without tag and digest.
fn plain_name(reference: &Reference) -> String {
    let familiar = reference.familiar();
    let familiar = familiar.split('@').next().unwrap_or_default();
    let suffix = reference.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
    familiar.strip_suffix(&suffix).unwrap_or(familiar).to_owned()
}
