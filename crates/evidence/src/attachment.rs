//! Bundles as referrers of an image (cosign, BUNDLE_SPEC.md; distribution-spec, "Pushing Manifests with Subject").

use std::collections::BTreeMap;

use oci::{Descriptor, Digest, Manifest};

use crate::{Bundle, STATEMENT_PAYLOAD, Statement, bundle::BUNDLE_TYPE};

/// Says what a bundle holds.
pub(crate) const CONTENT: &str = "dev.sigstore.bundle.content";
/// Says what the statement in it is about.
pub(crate) const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";
/// Content of a config that says nothing (image-spec, "Guidance for an empty descriptor").
const EMPTY: &[u8] = b"{}";

/// An artefact that refers to an image: its manifest, and the blobs that the manifest names.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// Descriptor of the manifest.
    pub descriptor: Descriptor,
    /// Blobs, which have to be there before the manifest.
    pub blobs: Vec<(Descriptor, Vec<u8>)>,
}

impl Attachment {
    /// A bundle that is attached to what `subject` describes.
    pub fn new(bundle: &Bundle, statement: &Statement, subject: &Descriptor) -> Self {
        let bytes = bundle.to_bytes();
        let mut layer = Descriptor::of(BUNDLE_TYPE, &bytes);
        let file = format!("{}.sigstore.json", layer.digest.to_string().replace(':', "-"));
        layer.annotations.insert("org.opencontainers.image.title".into(), file);
        Self::around(BUNDLE_TYPE, (layer, bytes), "dsse-envelope", statement, subject)
    }

    /// A statement that nobody signed, attached to what `subject` describes.
    pub fn unsigned(statement: &Statement, subject: &Descriptor) -> Self {
        let bytes = statement.to_bytes();
        let layer = Descriptor::of(STATEMENT_PAYLOAD, &bytes);
        Self::around(STATEMENT_PAYLOAD, (layer, bytes), "statement", statement, subject)
    }

    fn around(
        kind: &str,
        layer: (Descriptor, Vec<u8>),
        content: &str,
        statement: &Statement,
        subject: &Descriptor,
    ) -> Self {
        let empty = Descriptor::of(oci::media_type::EMPTY, EMPTY);
        let manifest = Manifest {
            artifact_type: Some(kind.into()),
            subject: Some(Descriptor::new(&subject.media_type, subject.digest.clone(), subject.size)),
            annotations: BTreeMap::from([
                (CONTENT.to_owned(), content.to_owned()),
                (PREDICATE_TYPE.to_owned(), statement.predicate_type.clone()),
            ]),
            ..Manifest::image(empty.clone(), vec![layer.0.clone()])
        };
        let manifest = serde_json::to_vec(&manifest).expect("a manifest is JSON");
        let descriptor = Descriptor::of(oci::media_type::MANIFEST, &manifest);
        Self { manifest, descriptor, blobs: vec![(empty, EMPTY.to_vec()), layer] }
    }

    /// Digest of the manifest.
    pub fn digest(&self) -> &Digest {
        &self.descriptor.digest
    }
}
