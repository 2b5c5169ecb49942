//! What refers to a manifest: signatures, SBOMs, test results (distribution-spec, "Listing Referrers", "Backwards Compatibility").

use oci::{Descriptor, Digest, Index, ManifestOrIndex, Reference, media_type};
use reqwest::{
    Method,
    header::{ACCEPT, HeaderMap, HeaderValue},
};

use super::{
    Client, MANIFEST_BYTES_MAX,
    answer::header_text,
    auth::Scope,
    next_link,
    transport::{Call, Via},
};
use crate::{ErrorKind, RegistryError};

/// Referrers of one manifest that are listed; an honest image has a handful.
const REFERRERS_MAX: usize = 10_000;

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
            // Without the API: the registry has no such path, or does not speak of indexes there.
            Err(ErrorKind::NotFound { .. } | ErrorKind::Unexpected { status: 400 | 405 | 406 | 501, .. }) => {
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

    /// After a manifest with a subject was put: a registry that keeps no list of referrers gets one under a tag
    /// (distribution-spec, "Pushing Manifests with Subject").
    pub(super) async fn note_referrer(
        &self,
        repository: &Reference,
        put: &HeaderMap,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), ErrorKind> {
        let Some((subject, descriptor)) = referrer(put, media_type, bytes) else { return Ok(()) };
        // Two clients at once may lose one entry: the specification knows no way around it. Reading again narrows it.
        for _ in 0..2 {
            let mut index = match self.fallback_index(repository, &subject).await? {
                Some((_, index)) => index,
                None => Index::of(Vec::new()),
            };
            if index.manifests.iter().any(|known| known.digest == descriptor.digest) {
                return Ok(());
            }
            index.manifests.push(descriptor.clone());
            let bytes = serde_json::to_vec(&index).expect("an index is JSON");
            Box::pin(self.put_kind(&fallback_tag(repository, &subject), media_type::INDEX, bytes.into())).await?;
        }
        Ok(())
    }
}

/// The subject of a manifest that the registry does not list by itself, and the entry for it.
fn referrer(answer: &HeaderMap, media_type: &str, bytes: &[u8]) -> Option<(Digest, Descriptor)> {
    if header_text(answer, "oci-subject").is_some() {
        return None;
    }
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

/// `<alg>-<ref>` (distribution-spec, "Referrers Tag Schema").
pub(super) fn fallback_tag(repository: &Reference, digest: &Digest) -> Reference {
    repository.with_tag(&digest.to_string().replace(':', "-"))
}
