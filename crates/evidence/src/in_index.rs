//! Statements in an image's index, as BuildKit keeps them: an attestation manifest for each image, listed behind the images
//! with the platform `unknown/unknown`, one layer for each statement (BuildKit, docs/attestations/attestation-storage.md).
//! They are part of the index and its digest, and nobody has signed them.

use std::collections::BTreeMap;

use oci::{Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, Platform, media_type};

use crate::{Attachment, STATEMENT_PAYLOAD, Statement};

/// Says what an entry of an index is, where it is no image.
const KIND: &str = "vnd.docker.reference.type";
/// The only kind that there is.
const ATTESTATIONS: &str = "attestation-manifest";
/// Says which entry of the index it speaks of.
const ABOUT: &str = "vnd.docker.reference.digest";
/// Says what a layer's statement is about, so that readers need not fetch the others.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// So that nobody takes it for an image that could run.
const NOWHERE: &str = "unknown";

/// An attestation manifest with these statements of the image with this manifest digest. Its descriptor is what the index
/// lists. The same statements are the same bytes.
pub fn in_index(statements: &[Statement], about: &Digest) -> Attachment {
    let platform = Platform { os: NOWHERE.into(), architecture: NOWHERE.into(), os_version: None, variant: None };
    let mut config = ImageConfig::scratch(&platform);
    let mut layers = Vec::new();
    let mut blobs = Vec::new();
    for statement in statements {
        let bytes = statement.to_bytes();
        let mut layer = Descriptor::of(STATEMENT_PAYLOAD, &bytes);
        layer.annotations.insert(PREDICATE_TYPE.into(), statement.predicate_type.clone());
        config.rootfs.diff_ids.push(DiffId(layer.digest.clone()));
        layers.push(layer.clone());
        blobs.push((layer, bytes));
    }
    // "The image config descriptor will point to a valid image config": clients of any age take it for an image.
    let config = oci::to_json(&config);
    let config_descriptor = Descriptor::of(media_type::CONFIG, &config);
    blobs.push((config_descriptor.clone(), config));
    let manifest = oci::to_json(&Manifest::image(config_descriptor, layers));
    let mut descriptor = Descriptor::of(media_type::MANIFEST, &manifest);
    descriptor.platform = Some(platform);
    descriptor.annotations =
        BTreeMap::from([(KIND.to_owned(), ATTESTATIONS.to_owned()), (ABOUT.to_owned(), about.to_string())]);
    Attachment { manifest, descriptor, blobs }
}

/// The attestation manifests that an index lists, each with the digest of the manifest that it speaks of.
pub(crate) fn attestations(index: &Index) -> Vec<(Descriptor, Digest)> {
    let about = |listed: &Descriptor| {
        let is_it = listed.annotations.get(KIND).is_some_and(|kind| kind == ATTESTATIONS);
        let about = listed.annotations.get(ABOUT).filter(|_| is_it)?.parse().ok()?;
        Some((listed.clone(), about))
    };
    index.manifests.iter().filter_map(about).collect()
}

/// The images that an index lists, without what only describes them.
pub fn images_of(index: &Index) -> Vec<Descriptor> {
    index.manifests.iter().filter(|listed| !is_no_image(listed)).cloned().collect()
}

/// Whether an entry of an index only describes another one.
pub(crate) fn is_no_image(listed: &Descriptor) -> bool {
    listed.annotations.contains_key(KIND)
}
