//! Promotions and approvals: that an image came into an environment, and that somebody allows it. Statements of our own, attached
//! to the image as every other; without a key they are attached unsigned, and are a record for people rather than a proof.

use std::time::SystemTime;

use futures::{StreamExt, TryStreamExt};
use oci::{Descriptor, Digest, ManifestOrIndex, Reference};
use registry::{Client, ErrorKind, NoProgress, RegistryError};
use serde::{Deserialize, Serialize};

use crate::{
    Attachment, BUNDLE_TYPE, Found, PublicKey, Resource, STATEMENT_PAYLOAD, Statement, attachment::PREDICATE_TYPE,
    timestamp,
};

/// That an image came into an environment.
pub const PROMOTION: &str = "https://seatrial.io/promotion/v1";
/// That somebody allows it.
pub const APPROVAL: &str = "https://seatrial.io/approval/v1";
/// A record takes some kilobytes.
const RECORD_BYTES_MAX: u64 = 1024 * 1024;
/// Records of one image that are looked at.
const RECORDS_MAX: usize = 1000;

/// Records that are fetched side by side.
const PARALLEL: usize = 8;

/// That an image came into an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promotion {
    /// Name of the environment.
    pub environment: String,
    /// `promote`, or `rollback`.
    pub action: String,
    /// The tag that stands for the environment.
    pub tag: String,
    /// What the tag named before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Digest>,
    /// Who did it, as the machine says; a signature says it better.
    pub by: String,
    /// When, in RFC 3339.
    pub time: String,
    /// Keys whose owners approved it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approved_by: Vec<String>,
}

/// That somebody allows an image into an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Name of the environment.
    pub environment: String,
    /// Who, as the machine says; the key decides.
    pub by: String,
    /// When, in RFC 3339.
    pub time: String,
}

impl Promotion {
    /// The time as records have it: to the microsecond, so that what follows within a second keeps its order.
    pub fn stamp(now: SystemTime) -> String {
        let micros = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_micros();
        timestamp(now).replace('Z', &format!(".{micros:06}Z"))
    }

    /// As a statement about the image.
    pub fn statement(&self, repository: &str, image: &Digest) -> Statement {
        let predicate = serde_json::to_value(self).expect("it is JSON");
        Statement::new(vec![Resource::image(repository, image)], PROMOTION, predicate)
    }
}

impl Approval {
    /// Of now.
    pub fn new(environment: &str, by: &str, now: SystemTime) -> Self {
        Self { environment: environment.to_owned(), by: by.to_owned(), time: timestamp(now) }
    }

    /// As a statement about the image.
    pub fn statement(&self, repository: &str, image: &Digest) -> Statement {
        let predicate = serde_json::to_value(self).expect("it is JSON");
        Statement::new(vec![Resource::image(repository, image)], APPROVAL, predicate)
    }
}

/// A statement that was found beside an image.
#[derive(Clone, Debug)]
pub struct Record {
    /// What is said.
    pub statement: Statement,
    /// The signed form; `None` where nobody signed it.
    found: Option<Found>,
}

impl Record {
    /// Whether nobody signed it at all.
    pub fn is_unsigned(&self) -> bool {
        self.found.is_none()
    }

    /// The key among these that has signed it, about this image.
    pub fn signer<'k>(&'k self, image: &Digest, keys: &'k [PublicKey]) -> Option<&'k PublicKey> {
        self.found.as_ref()?.check(image, keys).ok().map(|trusted| trusted.key)
    }

    /// What it says of a promotion.
    pub fn promotion(&self) -> Option<Promotion> {
        serde_json::from_value(self.statement.predicate.clone()).ok()
    }

    /// What it says of an approval.
    pub fn approval(&self) -> Option<Approval> {
        serde_json::from_value(self.statement.predicate.clone()).ok()
    }
}

/// The statements of one kind that are attached to an image and speak of it.
///
/// # Errors
/// The registry fails or refuses. A piece that cannot be read does not count.
pub async fn records(client: &Client, image: &Reference, kind: &str) -> Result<Vec<Record>, RegistryError> {
    let Some(digest) = image.digest() else { return Ok(Vec::new()) };
    let referrers = client.referrers(image, None).await?;
    let is_kind = |found: &&Descriptor| found.annotations.get(PREDICATE_TYPE).is_some_and(|told| told == kind);
    let listed = referrers.iter().filter(is_kind).take(RECORDS_MAX);
    let asked: Vec<_> = listed
        .map(|referrer| async {
            match record(client, image, digest, &referrer.digest).await {
                Ok(found) => Ok(found.filter(|record| record.statement.predicate_type == kind)),
                Err(error) => match error.kind {
                    ErrorKind::WrongContent { .. } | ErrorKind::NotFound { .. } | ErrorKind::TooLarge { .. } => {
                        Ok(None)
                    }
                    _ => Err(error),
                },
            }
        })
        .collect();
    let found: Vec<Option<Record>> = futures::stream::iter(asked).buffered(PARALLEL).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// As [`records`], of several images, in their order.
///
/// # Errors
/// The registry fails or refuses.
pub async fn records_of_each(
    client: &Client,
    images: &[Reference],
    kind: &str,
) -> Result<Vec<Vec<Record>>, RegistryError> {
    let asked: Vec<_> = images.iter().map(|image| records(client, image, kind)).collect();
    futures::stream::iter(asked).buffered(PARALLEL).try_collect().await
}

async fn record(
    client: &Client,
    image: &Reference,
    digest: &Digest,
    referrer: &Digest,
) -> Result<Option<Record>, RegistryError> {
    let place = image.with_digest(referrer.clone());
    let resolved = client.fetch_manifest(&place, RECORD_BYTES_MAX).await?;
    let ManifestOrIndex::Manifest(manifest) = resolved.document else { return Ok(None) };
    if manifest.subject.as_ref().is_none_or(|subject| subject.digest != *digest) {
        return Ok(None);
    }
    let Some(layer) = manifest.layers.first() else { return Ok(None) };
    let bytes = client.fetch_document(image, layer, RECORD_BYTES_MAX).await?;
    let record = match layer.media_type.as_str() {
        BUNDLE_TYPE => {
            let found = Found::bundle(referrer.clone(), digest.clone(), bytes.into());
            found.statement().ok().cloned().map(|statement| Record { statement, found: Some(found) })
        }
        STATEMENT_PAYLOAD => {
            serde_json::from_slice(&bytes).ok().map(|statement: Statement| Record { statement, found: None })
        }
        _ => None,
    };
    Ok(record.filter(|record| record.statement.speaks_of(digest)))
}

/// Uploads an attachment.
///
/// # Errors
/// The registry fails or refuses.
pub async fn attach(client: &Client, image: &Reference, attachment: &Attachment) -> Result<(), RegistryError> {
    for (descriptor, bytes) in &attachment.blobs {
        client.upload_blob(image, descriptor, bytes.clone(), None, &NoProgress).await?;
    }
    let place = image.with_digest(attachment.digest().clone());
    client.put_manifest(&place, oci::media_type::MANIFEST, attachment.manifest.clone()).await.map(drop)
}
