//! What refers to a manifest: signatures, SBOMs, test results (distribution-spec, "Listing Referrers", "Backwards Compatibility").

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use oci::{Descriptor, Digest, Index, ManifestOrIndex, Reference, media_type};
use reqwest::{
    Method,
    header::{ACCEPT, HeaderMap, HeaderValue},
};
use tokio::time::{Instant, sleep};

use super::{
    Client, MANIFEST_BYTES_MAX,
    answer::header_text,
    auth::Scope,
    next_link,
    tags::{TagCondition, under},
    transport::{Call, Via},
};
use crate::{ErrorKind, RegistryError};

/// Referrers of one manifest that are listed; an honest image has a handful.
const REFERRERS_MAX: usize = 10_000;
/// Writers that come between each other so often are no two pushes any more.
const LISTING_ROUNDS_MAX: u32 = 20;
/// What reading and writing the list of referrers takes at least and at most, for others beside us.
const SETTLE_MIN: Duration = Duration::from_millis(50);
const SETTLE_MAX: Duration = Duration::from_secs(2);

impl Client {
    /// The manifests whose `subject` is the one that `subject` names by digest, perhaps only those of one artefact type.
    /// Registries without the referrers API are asked for the tag that stands for it.
    ///
    /// # Errors
    /// The registry fails or refuses. That nothing refers to it is an empty list.
    pub async fn referrers(
        &self,
        subject: &Reference,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        self.referrers_kind(subject, artifact_type).await.map_err(|kind| kind.during("list the referrers of", subject))
    }

    pub(super) async fn referrers_kind(
        &self,
        subject: &Reference,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, ErrorKind> {
        let digest = subject.digest().ok_or_else(|| ErrorKind::malformed("referrers are listed by digest"))?;
        let mut found = match self.ask_for_referrers(subject, digest, artifact_type).await {
            Ok(found) => found,
            Err(kind) if is_without_api(&kind) => {
                self.fallback_index(subject, digest).await?.map(|(_, index)| index.manifests).unwrap_or_default()
            }
            Err(kind) => return Err(kind),
        };
        // A registry may ignore the filter (`OCI-Filters-Applied`).
        if let Some(wanted) = artifact_type {
            found.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(wanted));
        }
        Ok(found)
    }

    async fn ask_for_referrers(
        &self,
        subject: &Reference,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, ErrorKind> {
        let mut path = format!("referrers/{digest}");
        if let Some(wanted) = artifact_type {
            let query: String = url::form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
            path.push_str(&format!("?artifactType={query}"));
        }
        let mut call = Call::new(Method::GET, subject, path, Scope::pull(subject))
            .header(ACCEPT, HeaderValue::from_static(media_type::INDEX));
        let mut found = Vec::new();
        loop {
            let (url, link, bytes) = self.transport.get_document(&call, MANIFEST_BYTES_MAX).await?;
            let index = match ManifestOrIndex::parse(&bytes) {
                Ok(ManifestOrIndex::Index(index)) => index,
                // Some answer every unknown path with a page of theirs.
                _ => return Err(ErrorKind::NotFound { message: String::new() }),
            };
            let is_empty = index.manifests.is_empty();
            found.extend(index.manifests);
            match link.as_deref().and_then(|link| next_link(&url, link)) {
                Some(next) if !is_empty && found.len() < REFERRERS_MAX => call = call.at(next),
                _ => return Ok(found),
            }
        }
    }

    /// The index under the tag that stands for the referrers API, with its own digest.
    async fn fallback_index(&self, subject: &Reference, digest: &Digest) -> Result<Option<(Digest, Index)>, ErrorKind> {
        match self.fetch_kind(&fallback_tag(subject, digest), MANIFEST_BYTES_MAX, Via::Origin).await {
            Ok(resolved) => match resolved.document {
                ManifestOrIndex::Index(index) => Ok(Some((resolved.descriptor.digest, index))),
                // A tag of that name which is something else says nothing about referrers.
                ManifestOrIndex::Manifest(_) => Ok(None),
            },
            Err(ErrorKind::NotFound { .. }) => Ok(None),
            Err(kind) => Err(kind),
        }
    }

    /// Sees to it that what refers to a manifest is listed: nothing has to be done where the registry keeps the list; else
    /// the entries are put into the index under the tag that stands for it (distribution-spec, "Pushing Manifests with
    /// Subject").
    pub(super) async fn list_referrers(
        &self,
        repository: &Reference,
        subject: &Digest,
        entries: &[Descriptor],
    ) -> Result<(), ErrorKind> {
        let tag = fallback_tag(repository, subject);
        let _turn = self.transport.listing.lock().await;
        let mut has_swept = false;
        for round in 0..LISTING_ROUNDS_MAX {
            let began = Instant::now();
            let known = self.fallback_index(repository, subject).await?;
            let (digest, mut index) = known.map_or_else(|| (None, Index::of(Vec::new())), |(d, i)| (Some(d), i));
            let is_listed = |entry: &&Descriptor| index.manifests.iter().any(|known| known.digest == entry.digest);
            let missing: Vec<Descriptor> = entries.iter().filter(|entry| !is_listed(entry)).cloned().collect();
            if missing.is_empty() {
                return Ok(());
            }
            if has_swept {
                self.drop_absent(repository, &mut index).await?;
            }
            index.manifests.extend(missing);
            match self.put_index(&tag, &index, digest.as_ref()).await {
                Ok(()) => {}
                // Some take no index that lists what was deleted meanwhile by somebody who left the list as it was.
                Err(ErrorKind::NotFound { .. } | ErrorKind::Unexpected { status: 400 | 422, .. }) if !has_swept => {
                    has_swept = true;
                    continue;
                }
                // Somebody was faster, and the registry tells: what they wrote is read first.
                Err(ErrorKind::Unexpected { status: 412, .. }) => continue,
                Err(kind) => return Err(kind),
            }
            // Most old registries know no conditions: whoever read before we wrote may still write over it, about as long
            // after us as reading and writing take. So we look again behind that time, and whoever was lost comes again.
            let took = began.elapsed().clamp(SETTLE_MIN, SETTLE_MAX);
            let jitter = RandomState::new().hash_one(round) % 1024;
            sleep(took * 3 + took.mul_f64(jitter as f64 / 512.0)).await;
        }
        Err(ErrorKind::malformed("the list of referrers is written over again and again by others"))
    }

    /// The same for entries whose manifests were there already: what wrote them may have been stopped before it listed them.
    pub(super) async fn list_again(
        &self,
        repository: &Reference,
        subject: &Digest,
        entries: &[Descriptor],
    ) -> Result<(), ErrorKind> {
        match self.ask_for_referrers(repository, subject, None).await {
            Ok(_) => Ok(()),
            Err(kind) if is_without_api(&kind) => self.list_referrers(repository, subject, entries).await,
            Err(kind) => Err(kind),
        }
    }

    /// Takes a manifest out of the index under its subject's tag (distribution-spec, "Deleting Manifests"); nothing has to be
    /// done where the registry keeps the list.
    pub(super) async fn unlist_referrer(
        &self,
        repository: &Reference,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<(), ErrorKind> {
        let tag = fallback_tag(repository, subject);
        let _turn = self.transport.listing.lock().await;
        for _ in 0..LISTING_ROUNDS_MAX {
            let Some((digest, mut index)) = self.fallback_index(repository, subject).await? else { return Ok(()) };
            let before = index.manifests.len();
            index.manifests.retain(|known| known.digest != *referrer);
            if index.manifests.len() == before {
                return Ok(());
            }
            match self.put_index(&tag, &index, Some(&digest)).await {
                Ok(()) => return Ok(()),
                Err(ErrorKind::Unexpected { status: 412, .. }) => {}
                Err(kind) => return Err(kind),
            }
        }
        Err(ErrorKind::malformed("the list of referrers is written over again and again by others"))
    }

    /// Takes out of an index what the repository does not have any more.
    async fn drop_absent(&self, repository: &Reference, index: &mut Index) -> Result<(), ErrorKind> {
        for entry in std::mem::take(&mut index.manifests) {
            match self.resolve_kind(&repository.with_digest(entry.digest.clone())).await {
                Ok(_) => index.manifests.push(entry),
                Err(ErrorKind::NotFound { .. }) => {}
                Err(kind) => return Err(kind),
            }
        }
        Ok(())
    }

    /// Writes the index, on the condition that the tag still names what was read, where the registry knows conditions.
    async fn put_index(&self, tag: &Reference, index: &Index, former: Option<&Digest>) -> Result<(), ErrorKind> {
        let bytes = serde_json::to_vec(index).expect("an index is JSON");
        let condition = former.map_or(TagCondition::Absent, |digest| TagCondition::Names(vec![digest.clone()]));
        let call = self.put_call(tag, media_type::INDEX, bytes.into())?;
        self.transport.send(&under(&condition, call)?).await.map(drop)
    }
}

/// The registry has no such path, or does not speak of indexes there.
fn is_without_api(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound { .. } | ErrorKind::Unexpected { status: 400 | 405 | 406 | 501, .. })
}

/// The subject of a manifest that the registry does not list by itself, and the entry for it.
pub(super) fn unlisted(answer: &HeaderMap, media_type: &str, bytes: &[u8]) -> Option<(Digest, Descriptor)> {
    if header_text(answer, "oci-subject").is_some() { None } else { entry(media_type, bytes) }
}

/// The subject of a manifest, and its entry in the list of what refers to that.
pub(super) fn entry(media_type: &str, bytes: &[u8]) -> Option<(Digest, Descriptor)> {
    let mut descriptor = Descriptor::of(media_type, bytes);
    let subject = match ManifestOrIndex::parse(bytes).ok()? {
        ManifestOrIndex::Manifest(manifest) => {
            // An artefact that states no type has that of its config (image-spec, "Guidelines for Artifact Usage").
            descriptor.artifact_type = manifest.artifact_type.or(Some(manifest.config.media_type));
            descriptor.annotations = manifest.annotations;
            manifest.subject?
        }
        ManifestOrIndex::Index(index) => {
            descriptor.artifact_type = index.artifact_type;
            descriptor.annotations = index.annotations;
            index.subject?
        }
    };
    Some((subject.digest, descriptor))
}

/// Tags beside an image as cosign 1 and 2 write them, one for each kind: `sha256-….sig` (cosign, `SIGNATURE_SPEC.md`).
pub(super) fn legacy_tags(digest: &Digest) -> [String; 3] {
    ["sig", "att", "sbom"].map(|kind| format!("{}.{kind}", digest.to_string().replace(':', "-")))
}

/// `<alg>-<ref>` (distribution-spec, "Referrers Tag Schema").
pub(super) fn fallback_tag(repository: &Reference, digest: &Digest) -> Reference {
    repository.with_tag(&digest.to_string().replace(':', "-"))
}
