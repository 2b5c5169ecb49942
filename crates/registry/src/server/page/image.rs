//! The page of one image, index or other artefact.

use askama::Template;
use oci::{Descriptor, Digest, ImageConfig, Index, Manifest, ManifestOrIndex, media_type};

use super::{render, text};
use crate::server::{
    Shared,
    answer::Refusal,
    manifests::{Address, unknown},
    storage::{RepositoryName, content},
};

/// Configs have some ten kilobytes; those with very long histories a few hundred.
const CONFIG_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Referrers that are shown.
const REFERRERS_MAX: usize = 100;

#[derive(Template)]
#[template(path = "image.html")]
struct Image<'a> {
    name: &'a str,
    /// `:tag` or `@digest`.
    address: String,
    facts: Vec<(&'static str, String)>,
    commands: Vec<String>,
    children: Vec<Part>,
    layers: Vec<Layer>,
    referrers: Vec<Part>,
    labels: Vec<(String, String)>,
}

struct Part {
    name: String,
    digest: Digest,
    size: String,
}

struct Layer {
    instruction: String,
    size: String,
    digest: String,
}

/// The page of what a repository has under an address.
pub(super) fn page(shared: &Shared, name: &RepositoryName, address: Address, host: &str) -> Result<String, Refusal> {
    let (address, digest) = match address {
        Address::Tag(tag) => {
            let digest = shared.storage.tag(name, &tag)?.ok_or_else(unknown)?;
            (format!(":{tag}"), digest)
        }
        Address::Digest(digest) => (format!("@{digest}"), digest),
    };
    let kept = shared.storage.manifest(name, &digest)?.ok_or_else(unknown)?;
    let damaged = |_| Refusal::bad("MANIFEST_INVALID", "the manifest cannot be read");
    let document = ManifestOrIndex::parse(&kept.bytes).map_err(damaged)?;
    let (size, platforms) = in_short(&document);
    let mut facts = vec![("Digest", digest.to_string()), ("Type", kept.media_type.clone()), ("Size", size)];
    let mut labels: Vec<(String, String)> =
        document.annotations().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let (mut children, mut layers) = (Vec::new(), Vec::new());
    match &document {
        ManifestOrIndex::Index(index) => children = index.manifests.iter().map(child).collect(),
        ManifestOrIndex::Manifest(manifest) => {
            let config = config(shared, name, manifest)?;
            if let Some(config) = &config {
                facts.extend(described(config));
                labels.extend(config.config.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
            } else if !platforms.is_empty() {
                facts.push(("Artifact type", platforms));
            }
            layers = rows(manifest, config.as_ref());
        }
    }
    if let Some(subject) = document.subject() {
        facts.push(("Refers to", subject.digest.to_string()));
    }
    let (found, _) = shared.storage.referrers(name, &digest, None, REFERRERS_MAX, &|_| true)?;
    let referrers = found.iter().map(|found| {
        let kind = found.artifact_type.as_deref().filter(|kind| !kind.is_empty());
        Part {
            name: kind.unwrap_or(&found.media_type).to_owned(),
            digest: found.digest.clone(),
            size: text::bytes(found.size),
        }
    });
    let target = format!("{host}/{}{address}", name.as_str());
    let commands = ["docker pull", "podman pull", "seatrial pull"].map(|command| format!("{command} {target}"));
    let (referrers, commands) = (referrers.collect(), commands.to_vec());
    render(&Image { name: name.as_str(), address, facts, commands, children, layers, referrers, labels })
}

/// Size and platforms of an image; of another artefact its type.
pub(super) fn in_short(document: &ManifestOrIndex) -> (String, String) {
    match document {
        ManifestOrIndex::Manifest(manifest) => {
            let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
            let size = parts.fold(0_u64, |sum, part| sum.saturating_add(part.size));
            let is_image =
                matches!(manifest.config.media_type.as_str(), media_type::CONFIG | media_type::DOCKER_CONFIG);
            let kind = manifest.artifact_type.as_deref().filter(|kind| !kind.is_empty());
            let other = kind.unwrap_or(&manifest.config.media_type);
            (text::bytes(size), if is_image { String::new() } else { other.to_owned() })
        }
        ManifestOrIndex::Index(index) => (String::new(), platforms(index)),
    }
}

fn platforms(index: &Index) -> String {
    let named = index.manifests.iter().filter_map(|part| part.platform.as_ref());
    let names: Vec<String> = named.filter(|it| it.os != "unknown").map(ToString::to_string).collect();
    names.join(", ")
}

fn child(part: &Descriptor) -> Part {
    let name = part.platform.as_ref().map_or_else(|| part.media_type.clone(), ToString::to_string);
    Part { name, digest: part.digest.clone(), size: text::bytes(part.size) }
}

/// The config of an image, where it is here and is one.
fn config(shared: &Shared, name: &RepositoryName, manifest: &Manifest) -> Result<Option<ImageConfig>, Refusal> {
    let Descriptor { media_type, digest, .. } = &manifest.config;
    if !matches!(media_type.as_str(), media_type::CONFIG | media_type::DOCKER_CONFIG) {
        return Ok(None);
    }
    match shared.storage.blob_size(name, digest)? {
        Some(size) if size <= CONFIG_BYTES_MAX => {}
        _ => return Ok(None),
    }
    let bytes = shared.storage.backend.read(&content(digest))?.unwrap_or_default();
    Ok(serde_json::from_slice(&bytes).ok())
}

fn described(config: &ImageConfig) -> Vec<(&'static str, String)> {
    let run = &config.config;
    let list = |words: &Option<Vec<String>>| words.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
    let ports: Vec<&str> = run.exposed_ports.keys().map(String::as_str).collect();
    let facts = [
        ("Platform", config.platform().to_string()),
        ("Created", config.created.clone().unwrap_or_default()),
        ("User", run.user.clone()),
        ("Entrypoint", list(&run.entrypoint)),
        ("Command", list(&run.cmd)),
        ("Ports", ports.join(", ")),
        ("Health check", run.healthcheck.as_ref().map_or_else(String::new, |check| check.test.join(" "))),
    ];
    facts.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// Layers with the instructions that made them; instructions without a layer have no digest.
fn rows(manifest: &Manifest, config: Option<&ImageConfig>) -> Vec<Layer> {
    let mut layers = manifest.layers.iter();
    let row = |instruction: String, layer: Option<&Descriptor>| Layer {
        instruction,
        size: layer.map_or_else(String::new, |layer| text::bytes(layer.size)),
        digest: layer.map_or_else(String::new, |layer| layer.digest.short().to_owned()),
    };
    let mut rows = Vec::new();
    for step in config.iter().flat_map(|config| &config.history) {
        let layer = if step.empty_layer { None } else { layers.next() };
        rows.push(row(oci::readable_instruction(step.created_by.as_deref().unwrap_or_default()), layer));
    }
    // Other artefacts have names for their parts; a history may be cut short.
    for layer in layers {
        let title = layer.annotations.get("org.opencontainers.image.title").unwrap_or(&layer.media_type);
        rows.push(row(title.clone(), Some(layer)));
    }
    rows
}
