//! Files as an artefact in a registry: a manifest without an image, a layer for each file (image-spec 1.1, "Guidelines for
//! Artifact Usage"), which `oras pull` and `skopeo copy` read.

use std::collections::BTreeMap;

use oci::{Descriptor, Digest, Manifest, Reference, media_type};
use registry::{BlobSource, Client, NoProgress, TagCondition};

use crate::{Login, Package, PublishErrorKind, State};

/// The kind of artefact.
const ARTEFACT_TYPE: &str = "application/vnd.seatrial.files.v1";
/// Annotation with a file's name (image-spec, "Pre-Defined Annotation Keys"); ORAS names files by it.
const TITLE: &str = "org.opencontainers.image.title";
/// The config of what has none (image-spec, "Guidance for an Empty Descriptor").
const EMPTY: &[u8] = b"{}";

/// Pushes the files under the reference's tag. A tag of a whole version that names something else stays.
pub(crate) async fn push(
    client: &Client,
    reference: &Reference,
    login: Option<&Login>,
    packages: &[Package],
    is_sending: bool,
) -> Result<State, PublishErrorKind> {
    let own = login
        .map(|login| client.with_login(reference.domain(), login.user.as_deref().unwrap_or_default(), &login.secret));
    let client = own.as_ref().unwrap_or(client);
    let manifest = manifest(packages);
    let bytes = serde_json::to_vec(&manifest).map_err(PublishErrorKind::malformed)?;
    let ours = Digest::of(&bytes);
    let now = match client.resolve(reference).await {
        Ok(descriptor) => Some(descriptor.digest),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let tag = reference.tag().unwrap_or_default();
    match &now {
        Some(theirs) if *theirs == ours => return Ok(State::WasThere),
        Some(theirs) if is_version(tag) => {
            return Err(PublishErrorKind::Differs { theirs: theirs.to_string(), ours: ours.to_string() });
        }
        _ if !is_sending => return Ok(State::Absent),
        _ => {}
    }
    for (package, layer) in packages.iter().zip(&manifest.layers) {
        let file = std::fs::File::open(&package.path)?;
        client.upload_blob(reference, layer, BlobSource::from(file), None, &NoProgress).await?;
    }
    client.upload_blob(reference, &manifest.config, EMPTY.to_vec(), None, &NoProgress).await?;
    // Whoever was faster with a version keeps it; other tags say what they say.
    let condition = if is_version(tag) { TagCondition::Absent } else { TagCondition::Any };
    let tags = [tag.to_owned()];
    client.put_manifest(&reference.with_digest(ours), media_type::MANIFEST, bytes.clone()).await?;
    client.put_manifest_tags(reference, &tags, &condition, media_type::MANIFEST, bytes, &mut |_| {}).await?;
    Ok(State::Sent)
}

fn manifest(packages: &[Package]) -> Manifest {
    let layer = |package: &Package| {
        let annotations = BTreeMap::from([(TITLE.to_owned(), package.file_name.clone())]);
        Descriptor {
            annotations,
            ..Descriptor::new(kind_of(&package.file_name), package.sha256.clone(), package.size_bytes)
        }
    };
    let config = Descriptor::new(media_type::EMPTY, Digest::of(EMPTY), EMPTY.len() as u64);
    Manifest {
        artifact_type: Some(ARTEFACT_TYPE.into()),
        ..Manifest::image(config, packages.iter().map(layer).collect())
    }
}

fn kind_of(file_name: &str) -> &'static str {
    let ends = |ends: &[&str]| ends.iter().any(|end| file_name.ends_with(end));
    match () {
        () if ends(&[".whl", ".zip", ".jar"]) => "application/zip",
        () if ends(&[".gz", ".tgz", ".crate"]) => "application/gzip",
        () => "application/octet-stream",
    }
}

/// A tag that says a whole version means one content for good.
fn is_version(tag: &str) -> bool {
    registry::Ordered::parse(tag).is_some_and(|version| version.release().len() > 2)
}
