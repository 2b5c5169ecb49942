//! What a registry has beside an image: bundles that refer to it, cosign's older tags, and what BuildKit lists in the index.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};
use oci::{Descriptor, Digest, Manifest, ManifestOrIndex, Platform, Reference};
use registry::{Client, ContentCheck, ErrorKind, NoProgress, RegistryError};

use crate::{Form, Found, Policy, Requirement, STATEMENT_PAYLOAD, attachment, in_index};

/// An SBOM of a large image has some megabytes, half as much again in base64.
const EVIDENCE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// All pieces together, which are held in memory.
const ALL_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Manifests of evidence are short.
const MANIFEST_BYTES_MAX: u64 = 1024 * 1024;
/// Pieces of evidence of one manifest that are looked at; more is an attempt to keep us busy.
const FOUND_MAX: usize = 500;
/// Platforms of an index that are looked at.
const PLATFORMS_MAX: usize = 100;
/// Pieces that are fetched side by side.
const PARALLEL: usize = 8;
/// All versions of bundles.
const BUNDLE_TYPES: &str = "application/vnd.dev.sigstore.bundle";
/// Annotation of a layer with cosign's older signature (cosign, SIGNATURE_SPEC.md).
const LEGACY_SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const LEGACY_SIGNATURE_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const LEGACY_ATTESTATION_TYPE: &str = "application/vnd.dsse.envelope.v1+json";

/// An image, and everything that is said of it where it is.
#[derive(Clone, Debug)]
pub struct Collected {
    /// What the name means: an index, or an image's manifest.
    pub root: Digest,
    /// The images of the index; empty where the name means an image.
    pub platforms: Vec<(Digest, Option<Platform>)>,
    /// The pieces, of all of these.
    pub found: Vec<Found>,
    /// What became of reading everything that the image consists of; `None` where nobody asked for that.
    pub content: Option<ContentCheck>,
}

/// Fetches what is said of an image. With `platform` an index stands for its image of that platform: what is said of the
/// index counts as well, and the other images do not matter.
///
/// # Errors
/// The registry fails or refuses, or there is no such image, or none for the platform. That nothing is said of it is no
/// error, nor is a piece that cannot be read: it is found, and does not count.
pub async fn collect(
    client: &Client,
    image: &Reference,
    platform: Option<&Platform>,
) -> Result<Collected, RegistryError> {
    let resolved = client.fetch_manifest(image, 4 * MANIFEST_BYTES_MAX).await?;
    let root = resolved.descriptor.digest;
    let mut platforms: Vec<(Digest, Option<Platform>)> = Vec::new();
    let mut listed = Vec::new();
    if let ManifestOrIndex::Index(index) = &resolved.document {
        listed = in_index::attestations(index);
        match platform {
            Some(wanted) => {
                // What the index has for others says nothing of this platform.
                let found = index.select(wanted).ok_or_else(|| client.platform_missing(image, index, wanted))?;
                platforms.push((found.digest.clone(), found.platform.clone()));
            }
            // BuildKit lists its own statements as images of no platform.
            None => platforms.extend(
                index
                    .manifests
                    .iter()
                    .filter(|listed| !in_index::is_no_image(listed))
                    .map(|listed| (listed.digest.clone(), listed.platform.clone()))
                    .take(PLATFORMS_MAX),
            ),
        }
    }
    let subjects: Vec<Digest> =
        [root.clone()].into_iter().chain(platforms.iter().map(|(digest, _)| digest.clone())).collect();
    let source = Source { client, image, fetched_bytes: AtomicU64::new(0) };
    let asked: Vec<_> = subjects.iter().map(|subject| source.of_subject(subject)).collect();
    let mut pieces: Vec<Vec<Found>> = futures::stream::iter(asked).buffered(PARALLEL).try_collect().await?;
    listed.retain(|(_, about)| subjects.contains(about));
    let asked: Vec<_> = listed.iter().map(|(manifest, about)| source.in_index(manifest, about)).collect();
    pieces.extend(futures::stream::iter(asked).buffered(PARALLEL).try_collect::<Vec<_>>().await?);
    Ok(Collected { root, platforms, found: pieces.into_iter().flatten().collect(), content: None })
}

/// The same with whatever else a policy has to know: where it asks for [`Requirement::Content`], the image is read.
///
/// # Errors
/// As [`collect`].
pub async fn collect_for(
    client: &Client,
    image: &Reference,
    platform: Option<&Platform>,
    policy: &Policy,
) -> Result<Collected, RegistryError> {
    let mut collected = collect(client, image, platform).await?;
    if policy.require.contains(&Requirement::Content) {
        let listed = collected.platforms.iter().map(|(digest, _)| digest.clone());
        let manifests: Vec<Digest> = [collected.root.clone()].into_iter().chain(listed).collect();
        collected.content = Some(client.check_content(image, &manifests, &NoProgress).await?);
    }
    Ok(collected)
}

/// Fetches the bundles of some kinds of predicates that refer to what `image` names by its digest, and nothing else.
///
/// # Errors
/// As [`collect`].
pub async fn collect_kinds(client: &Client, image: &Reference, kinds: &[&str]) -> Result<Vec<Found>, RegistryError> {
    let Some(subject) = image.digest() else { return Ok(Vec::new()) };
    let source = Source { client, image, fetched_bytes: AtomicU64::new(0) };
    // A registry that tells no annotations leaves it to us to look.
    let may_be = |found: &Descriptor| {
        found.annotations.get(attachment::PREDICATE_TYPE).is_none_or(|told| kinds.contains(&told.as_str()))
    };
    let mut found = source.bundles(subject, &may_be).await?;
    found.retain(|found| found.statement().is_ok_and(|said| kinds.contains(&said.predicate_type.as_str())));
    Ok(found)
}

/// The repository that is asked.
struct Source<'a> {
    client: &'a Client,
    image: &'a Reference,
    fetched_bytes: AtomicU64,
}

impl Source<'_> {
    async fn of_subject(&self, subject: &Digest) -> Result<Vec<Found>, RegistryError> {
        let (bundles, signatures, attestations) = futures::future::try_join3(
            self.bundles(subject, &|_| true),
            self.legacy(subject, "sig"),
            self.legacy(subject, "att"),
        )
        .await?;
        Ok(bundles.into_iter().chain(signatures).chain(attestations).collect())
    }

    /// The bundles that refer to it, of those that the list of referrers lets expect what is wanted.
    async fn bundles(
        &self,
        subject: &Digest,
        wanted: &(dyn Fn(&Descriptor) -> bool + Sync),
    ) -> Result<Vec<Found>, RegistryError> {
        let referrers = self.client.referrers(&self.image.with_digest(subject.clone()), None).await?;
        let is_bundle = |referrer: &&Descriptor| {
            referrer.artifact_type.as_deref().is_some_and(|kind| kind.starts_with(BUNDLE_TYPES)) && wanted(referrer)
        };
        let bundles =
            referrers.iter().filter(is_bundle).take(FOUND_MAX).map(|found| self.bundle(&found.digest, subject));
        let bundles = futures::stream::iter(bundles.collect::<Vec<_>>()).buffered(PARALLEL);
        Ok(bundles.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
    }

    /// The statements of an attestation manifest that an index lists for an image. Nobody has signed them.
    async fn in_index(&self, manifest: &Descriptor, about: &Digest) -> Result<Vec<Found>, RegistryError> {
        let place = self.image.with_digest(manifest.digest.clone());
        let Some(manifest) = self.manifest(&place).await? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let is_statement = |layer: &&Descriptor| layer.media_type == STATEMENT_PAYLOAD;
        for layer in manifest.layers.iter().filter(is_statement).take(FOUND_MAX) {
            let (digest, about) = (layer.digest.clone(), about.clone());
            found.push(match self.document(layer).await? {
                Ok(bytes) => Found::unsigned(digest, about, bytes),
                Err(reason) => Found::unreadable(digest, about, Form::InIndex, reason),
            });
        }
        Ok(found)
    }

    async fn bundle(&self, referrer: &Digest, subject: &Digest) -> Result<Option<Found>, RegistryError> {
        let manifest = match self.manifest(&self.image.with_digest(referrer.clone())).await {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(None),
            // Whoever damages one shall not hide the others.
            Err(error) => match error.kind {
                ErrorKind::WrongContent { .. } | ErrorKind::Malformed(_) | ErrorKind::TooLarge { .. } => {
                    let reason = error.kind.to_string();
                    return Ok(Some(Found::unreadable(referrer.clone(), subject.clone(), Form::Bundle, reason)));
                }
                _ => return Err(error),
            },
        };
        // Whoever lists it may have listed it wrongly: the manifest itself says what it is attached to.
        let attached_to = manifest.subject.as_ref().map_or_else(|| subject.clone(), |subject| subject.digest.clone());
        let Some(layer) = manifest.layers.first() else { return Ok(None) };
        Ok(Some(match self.document(layer).await? {
            Ok(bytes) => Found::bundle(referrer.clone(), attached_to, bytes),
            Err(reason) => Found::unreadable(referrer.clone(), attached_to, Form::Bundle, reason),
        }))
    }

    /// What is below `sha256-….sig` or `.att`: one layer for each piece.
    async fn legacy(&self, subject: &Digest, kind: &str) -> Result<Vec<Found>, RegistryError> {
        let tag = self.image.with_tag(&format!("{}.{kind}", subject.to_string().replace(':', "-")));
        let Some(manifest) = self.manifest(&tag).await? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for layer in manifest.layers.iter().take(FOUND_MAX) {
            let form = match layer.media_type.as_str() {
                LEGACY_SIGNATURE_TYPE => Form::LegacySignature,
                LEGACY_ATTESTATION_TYPE => Form::LegacyAttestation,
                _ => continue,
            };
            let (digest, subject) = (layer.digest.clone(), subject.clone());
            found.push(match self.document(layer).await? {
                Err(reason) => Found::unreadable(digest, subject, form, reason),
                Ok(bytes) if form == Form::LegacyAttestation => Found::legacy_attestation(digest, subject, bytes),
                Ok(payload) => {
                    let signature = layer.annotations.get(LEGACY_SIGNATURE).map(String::as_str);
                    Found::legacy_signature(digest, subject, payload, signature)
                }
            });
        }
        Ok(found)
    }

    /// A blob, or what is wrong with it: whoever may write beside the image must not be able to hide the rest by it.
    async fn document(&self, blob: &Descriptor) -> Result<Result<Vec<u8>, String>, RegistryError> {
        let before = self.fetched_bytes.fetch_add(blob.size, Ordering::Relaxed);
        let limit = EVIDENCE_BYTES_MAX.min(ALL_BYTES_MAX.saturating_sub(before));
        match self.client.fetch_document(self.image, blob, limit).await {
            Ok(bytes) => Ok(Ok(bytes.into())),
            Err(error) => match error.kind {
                ErrorKind::WrongContent { .. } | ErrorKind::NotFound { .. } | ErrorKind::TooLarge { .. } => {
                    Ok(Err(error.kind.to_string()))
                }
                _ => Err(error),
            },
        }
    }

    /// A manifest; `None` where there is none, or something else of that name.
    async fn manifest(&self, reference: &Reference) -> Result<Option<Manifest>, RegistryError> {
        match self.client.fetch_manifest(reference, MANIFEST_BYTES_MAX).await {
            Ok(resolved) => Ok(match resolved.document {
                ManifestOrIndex::Manifest(manifest) => Some(manifest),
                ManifestOrIndex::Index(_) => None,
            }),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
