//! `seatrial registry inspect`: an image as its registry has it; nothing is pulled.

use ::registry::{Client, RegistryError, ResolvedManifest};
use oci::{Descriptor, Manifest, ManifestOrIndex, Platform, Reference};
use serde_json::{Value, json};

use crate::{
    cli::EngineArgs,
    commands::named,
    context::Context,
    exit::Exit,
    terminal::{self, table::Format},
};

/// Registries refuse larger manifests (distribution-spec, "Pushing Manifests").
const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Flags of `seatrial registry inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Names of images in their registries
    #[arg(required = true)]
    images: Vec<Reference>,
    /// Of an image for several platforms, only this one's
    #[arg(long)]
    platform: Option<Platform>,
    /// The manifest or index itself, byte for byte
    #[arg(long, conflicts_with_all = ["config", "format"])]
    raw: bool,
    /// The config of the image itself, byte for byte
    #[arg(long, conflicts_with = "format")]
    config: bool,
    /// `json` for one line each, or a template such as `{{.Digest}}`
    #[arg(short, long)]
    format: Option<String>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Shows images as a JSON array, or line by line in a format.
pub(crate) fn run(args: &InspectArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let client = context.client(&args.engine.insecure_registry);
    let mut values = Vec::new();
    for name in &args.images {
        let name = named::with_default_tag(name);
        if args.raw || args.config {
            let bytes = context.block_on_cancellable(async { Ok(bytes_of(&client, &name, args).await?) })?;
            terminal::result(&String::from_utf8_lossy(&bytes));
            continue;
        }
        values.push(context.block_on_cancellable(async { Ok(describe(&client, &name, args, &format).await?) })?);
    }
    if args.raw || args.config {
        return Ok(Exit::Passed);
    }
    if format == Format::Table {
        terminal::result_line(&serde_json::to_string_pretty(&values).expect("JSON values serialise"));
        return Ok(Exit::Passed);
    }
    for value in &values {
        if let Some(line) = format.line(value)? {
            terminal::result_line(&line);
        }
    }
    Ok(Exit::Passed)
}

async fn root(client: &Client, name: &Reference, args: &InspectArgs) -> Result<ResolvedManifest, RegistryError> {
    match &args.platform {
        Some(platform) => client.fetch_image_manifest(name, platform).await.map(|(found, _)| found),
        None => client.fetch_manifest(name, MANIFEST_BYTES_MAX).await,
    }
}

async fn bytes_of(client: &Client, name: &Reference, args: &InspectArgs) -> Result<Vec<u8>, RegistryError> {
    if args.raw {
        return Ok(root(client, name, args).await?.bytes.to_vec());
    }
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let (_, manifest) = client.fetch_image_manifest(name, &platform).await?;
    Ok(client.fetch_small_blob(name, &manifest.config).await?.to_vec())
}

async fn describe(
    client: &Client,
    name: &Reference,
    args: &InspectArgs,
    format: &Format,
) -> Result<Value, RegistryError> {
    let root = root(client, name, args).await?;
    let is_wanted = |field: &str| *format == Format::Table || format.reads(field);
    let mut value = json!({
        "Name": name.familiar(),
        "Digest": root.descriptor.digest,
        "MediaType": root.descriptor.media_type,
        "Annotations": root.document.annotations(),
        "Subject": root.document.subject(),
    });
    match &root.document {
        ManifestOrIndex::Manifest(manifest) => add_image(client, name, manifest, &mut value).await?,
        ManifestOrIndex::Index(index) => {
            let mut listed = Vec::new();
            for child in &index.manifests {
                listed.push(describe_listed(client, name, child).await?);
            }
            value["Manifests"] = listed.into();
        }
    }
    if is_wanted("Referrers") {
        let found = client.referrers(&name.with_digest(root.descriptor.digest.clone()), None).await?;
        value["Referrers"] = found.iter().map(referrer).collect();
    }
    Ok(value)
}

/// Config and layers of an image.
async fn add_image(
    client: &Client,
    name: &Reference,
    manifest: &Manifest,
    value: &mut Value,
) -> Result<(), RegistryError> {
    let layer = |layer: &Descriptor| json!({"Digest": layer.digest, "Size": layer.size, "MediaType": layer.media_type});
    value["Size"] = manifest.layers.iter().map(|layer| layer.size).sum::<u64>().into();
    value["Layers"] = manifest.layers.iter().map(layer).collect();
    value["ArtifactType"] = manifest.artifact_type.clone().into();
    value["Id"] = manifest.config.digest.to_string().into();
    let bytes = client.fetch_small_blob(name, &manifest.config).await?;
    // The config of what is no image may be anything.
    let config: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if config.get("rootfs").is_some() {
        value["Created"] = config["created"].clone();
        value["Os"] = config["os"].clone();
        value["Architecture"] = config["architecture"].clone();
        value["Variant"] = config["variant"].clone();
        value["Config"] = config["config"].clone();
        value["RootFS"] = config["rootfs"].clone();
        value["History"] = config["history"].clone();
    }
    Ok(())
}

/// One entry of an index, with the size of its layers.
async fn describe_listed(client: &Client, name: &Reference, child: &Descriptor) -> Result<Value, RegistryError> {
    let found = client.fetch_manifest(&name.with_digest(child.digest.clone()), MANIFEST_BYTES_MAX).await;
    let size = match found {
        Ok(ResolvedManifest { document: ManifestOrIndex::Manifest(manifest), .. }) => {
            Some(manifest.layers.iter().map(|layer| layer.size).sum::<u64>())
        }
        Ok(_) => None,
        // An index may be kept where not all of it is.
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    Ok(json!({
        "Platform": child.platform.as_ref().map(ToString::to_string),
        "Digest": child.digest,
        "MediaType": child.media_type,
        "Size": size,
        "Annotations": child.annotations,
    }))
}

fn referrer(found: &Descriptor) -> Value {
    json!({
        "Digest": found.digest,
        "ArtifactType": found.artifact_type,
        "Size": found.size,
        "Annotations": found.annotations,
    })
}
