//! Statements: what somebody says of content, which is named by its digests (in-toto Attestation Framework, Statement v1).

mod provenance;
mod summary;
mod test_result;

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use oci::{Digest, Platform, Reference, media_type};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::sbom::purl;

pub use provenance::{BUILD_TYPE, BUILDER_ID, Invocation, Parameters, Provenance};
pub use summary::{GATES_LEVEL, Summary};
pub use test_result::{GateResult, TestResult};

/// `_type` of statements.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// Types of predicates.
pub mod predicate {
    /// How the image was built (SLSA v1.0, "Provenance").
    pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
    /// The same as others still write it (SLSA v0.2); read, never written.
    pub const PROVENANCE_0_2: &str = "https://slsa.dev/provenance/v0.2";
    /// That a gate passed or failed (in-toto, "Test Result").
    pub const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";
    /// That everything that was asked of the image holds (SLSA v1.0, "Verification Summary Attestation").
    pub const SUMMARY: &str = "https://slsa.dev/verification_summary/v1";
    /// A signature of the image and nothing else, as cosign 3 makes it.
    pub const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";
    /// A list of packages, SPDX 2.
    pub const SPDX: &str = "https://spdx.dev/Document";
    /// A list of packages, CycloneDX.
    pub const CYCLONEDX: &str = "https://cyclonedx.org/bom";
}

/// Something said of content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub kind: String,
    /// What it speaks of. Each is named by its digests; the name is for people.
    pub subject: Vec<Resource>,
    /// What kind of thing is said.
    pub predicate_type: String,
    /// The thing itself.
    #[serde(default)]
    pub predicate: Value,
}

/// Content by its digests, or by where it is (in-toto, `ResourceDescriptor`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Digests by algorithm: `sha256`, `gitCommit`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// What the digest is of, where that is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Further words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Value>,
}

impl Resource {
    /// An image, by the digest of its manifest.
    pub fn image(repository: &str, manifest: &Digest) -> Self {
        Self { name: Some(repository.to_owned()), ..Self::content(manifest) }
    }

    /// Content by its digest.
    pub fn content(digest: &Digest) -> Self {
        Self { digest: BTreeMap::from([("sha256".to_owned(), digest.hex().to_owned())]), ..Self::default() }
    }

    /// An image that was built on, by where it is from and the digest of its manifest.
    pub fn base(reference: &Reference, manifest: &Digest, platform: &Platform) -> Self {
        // What was asked for by a digest has that one: perhaps of the index around the manifest.
        let digest = reference.digest().unwrap_or(manifest);
        Self { uri: Some(purl::of_docker(reference, digest, platform)), ..Self::content(digest) }
    }

    /// An image that has no manifest yet, by the digest of its config.
    pub fn config(id: &Digest) -> Self {
        Self { media_type: Some(media_type::CONFIG.into()), ..Self::content(id) }
    }

    /// A file of the web.
    pub fn file(url: &str, digest: &Digest) -> Self {
        Self { uri: Some(url.to_owned()), ..Self::content(digest) }
    }

    /// A Git commit, perhaps with its repository.
    pub fn commit(repository: Option<&str>, sha: &str) -> Self {
        Self {
            uri: repository.map(git_uri),
            digest: BTreeMap::from([("gitCommit".to_owned(), sha.to_owned())]),
            ..Self::default()
        }
    }

    /// The same with a name.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Whether it is this very content.
    pub fn is(&self, digest: &Digest) -> bool {
        self.digest.get("sha256").is_some_and(|hex| hex.eq_ignore_ascii_case(digest.hex()))
    }
}

/// `git+https://…`, as SPDX and SLSA write where a repository is.
pub fn git_uri(repository: &str) -> String {
    if repository.starts_with("git+") {
        return repository.to_owned();
    }
    match repository.split_once(':') {
        // `user@host:path` is ssh's own way of writing it, and no URI.
        Some((host, path)) if !path.starts_with("//") && host.contains('@') => format!("git+ssh://{host}/{path}"),
        _ => format!("git+{repository}"),
    }
}

impl Statement {
    /// A statement.
    pub fn new(subject: Vec<Resource>, predicate_type: impl Into<String>, predicate: Value) -> Self {
        Self { kind: STATEMENT_TYPE.into(), subject, predicate_type: predicate_type.into(), predicate }
    }

    /// A signature of an image: says nothing but that the signer stands for it (cosign 3, `sign`).
    pub fn signature(image: Resource) -> Self {
        Self::new(vec![image], predicate::SIGNATURE, json!({}))
    }

    /// The bytes that are signed. The same value has the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a statement is JSON")
    }

    /// Whether it is a statement of the in-toto framework. Version 0.1 has the same fields, and old attestations are of it.
    pub(crate) fn is_of_known_version(&self) -> bool {
        self.kind.starts_with("https://in-toto.io/Statement/")
    }

    /// Whether it says how its subject was built, in a version of SLSA that is read.
    pub(crate) fn is_provenance(&self) -> bool {
        matches!(self.predicate_type.as_str(), predicate::PROVENANCE | predicate::PROVENANCE_0_2)
    }

    /// Whether it speaks of the manifest with this digest.
    pub fn speaks_of(&self, manifest: &Digest) -> bool {
        self.subject.iter().any(|subject| subject.is(manifest))
    }

    /// The Git commit that the image was made from, where it says so: the first source of a provenance, the second subject of a
    /// test result.
    pub fn commit(&self) -> Option<&str> {
        match self.predicate_type.as_str() {
            predicate::PROVENANCE => {
                let sources = self.predicate.pointer("/buildDefinition/resolvedDependencies")?.as_array()?;
                sources.iter().find_map(|source| source.pointer("/digest/gitCommit")?.as_str())
            }
            predicate::PROVENANCE_0_2 => {
                let sources = self.predicate.get("materials")?.as_array()?;
                sources.iter().find_map(|source| source.pointer("/digest/sha1")?.as_str())
            }
            predicate::TEST_RESULT => {
                self.subject.iter().find_map(|subject| subject.digest.get("gitCommit")).map(String::as_str)
            }
            _ => None,
        }
    }

    /// When it was made, where it says so: the end of the build, the time of the verification. In seconds since 1970.
    pub fn time(&self) -> Option<u64> {
        let text = match self.predicate_type.as_str() {
            predicate::PROVENANCE => self.predicate.pointer("/runDetails/metadata/finishedOn"),
            predicate::PROVENANCE_0_2 => self.predicate.pointer("/metadata/buildFinishedOn"),
            predicate::SUMMARY => self.predicate.get("timeVerified"),
            _ => None,
        };
        let time: jiff::Timestamp = text?.as_str()?.parse().ok()?;
        u64::try_from(time.as_second()).ok()
    }
}

/// RFC 3339 in UTC, to the second.
pub fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(seconds).unwrap_or(0);
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}
