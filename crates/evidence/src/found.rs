//! What is found beside an image, and whether it holds: the signature, the key, and that it speaks of this image.

use oci::Digest;
use serde::Deserialize;

use crate::{Bundle, Envelope, InvalidEnvelope, PublicKey, Statement, envelope};

/// A piece of evidence as it was found. Nothing of it is believed before [`Found::check`].
#[derive(Clone, Debug)]
pub struct Found {
    /// Digest of the blob or manifest that it came from.
    pub digest: Digest,
    /// The manifest that it is attached to.
    pub attached_to: Digest,
    /// In which form it was attached.
    pub form: Form,
    /// The bytes.
    pub bytes: Vec<u8>,
    content: Result<Content, Unreadable>,
}

/// How evidence is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A sigstore bundle that refers to the image.
    Bundle,
    /// An envelope below the tag `sha256-….att` (cosign 1 and 2).
    LegacyAttestation,
    /// A signature below the tag `sha256-….sig` (cosign 1 and 2).
    LegacySignature,
    /// A statement that the image's index lists, without a signature (BuildKit).
    InIndex,
}

impl Form {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::LegacyAttestation => "legacy attestation",
            Self::LegacySignature => "legacy signature",
            Self::InIndex => "in index",
        }
    }
}

#[derive(Clone, Debug)]
enum Content {
    Envelope {
        envelope: Envelope,
        statement: Statement,
    },
    Simple {
        payload: Vec<u8>,
        signature: Vec<u8>,
        statement: Statement,
    },
    /// Nobody has signed it.
    Bare(Statement),
}

/// Why something cannot be read as evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be read: {0}")]
pub struct Unreadable(pub String);

/// Why evidence does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It is not what it should be.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It has no signature, so that nobody stands for it.
    #[error("nobody has signed it")]
    NotSigned,
    /// None of the keys has signed it, or it was changed.
    #[error("no trusted key has signed it")]
    NotTrusted,
    /// It is about something else: taken from another image.
    #[error("it speaks of another image")]
    OtherSubject,
    /// It is attached to something else than what it speaks of.
    #[error("it is attached to another image than it speaks of")]
    Misplaced,
}

/// Evidence that holds: signed by a key that is trusted, about this image.
#[derive(Clone, Copy, Debug)]
pub struct Trusted<'a> {
    /// What is said.
    pub statement: &'a Statement,
    /// By whom.
    pub key: &'a PublicKey,
    /// Where it was found.
    pub found: &'a Found,
}

impl Found {
    /// A bundle's bytes.
    pub fn bundle(digest: Digest, attached_to: Digest, bytes: Vec<u8>) -> Self {
        let content = Bundle::parse(&bytes).map_err(|error| Unreadable(error.to_string())).and_then(|bundle| {
            match bundle.names_one_key() {
                true => of_envelope(bundle.envelope().clone()),
                false => Err(Unreadable("its envelope names another key than the bundle".into())),
            }
        });
        Self { digest, attached_to, form: Form::Bundle, bytes, content }
    }

    /// An envelope of cosign's older layout.
    pub fn legacy_attestation(digest: Digest, attached_to: Digest, bytes: Vec<u8>) -> Self {
        let content =
            serde_json::from_slice(&bytes).map_err(|error| Unreadable(error.to_string())).and_then(of_envelope);
        Self { digest, attached_to, form: Form::LegacyAttestation, bytes, content }
    }

    /// A signature of cosign's older layout: the payload, and the signature from the layer's annotation.
    pub fn legacy_signature(digest: Digest, attached_to: Digest, payload: Vec<u8>, signature: Option<&str>) -> Self {
        let content = simple(&payload, signature);
        Self { digest, attached_to, form: Form::LegacySignature, bytes: payload, content }
    }

    /// A statement without a signature.
    pub fn unsigned(digest: Digest, attached_to: Digest, bytes: Vec<u8>) -> Self {
        let content = serde_json::from_slice(&bytes)
            .ok()
            .filter(Statement::is_of_known_version)
            .map(Content::Bare)
            .ok_or_else(|| Unreadable(InvalidEnvelope::NotAStatement.to_string()));
        Self { digest, attached_to, form: Form::InIndex, bytes, content }
    }

    /// Something that could not be fetched.
    pub fn unreadable(digest: Digest, attached_to: Digest, form: Form, reason: String) -> Self {
        Self { digest, attached_to, form, bytes: Vec::new(), content: Err(Unreadable(reason)) }
    }

    /// What is said, whoever says it. For showing, never for deciding.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn statement(&self) -> Result<&Statement, &Unreadable> {
        self.content.as_ref().map(|content| match content {
            Content::Envelope { statement, .. } | Content::Simple { statement, .. } | Content::Bare(statement) => {
                statement
            }
        })
    }

    /// How it names its key, if it does.
    pub fn key_id(&self) -> Option<&str> {
        match &self.content {
            Ok(Content::Envelope { envelope, .. }) => envelope.key_ids().next(),
            _ => None,
        }
    }

    /// Whether it holds for the image with this manifest digest.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn check<'a>(&'a self, image: &Digest, keys: &'a [PublicKey]) -> Result<Trusted<'a>, Flaw> {
        let content = self.content.as_ref().map_err(|error| Flaw::Unreadable(error.clone()))?;
        let (statement, key) = match content {
            Content::Envelope { envelope, statement } => (statement, envelope.signer(keys)),
            Content::Simple { payload, signature, statement } => {
                (statement, keys.iter().find(|key| key.verifies(payload, signature)))
            }
            Content::Bare(_) => return Err(Flaw::NotSigned),
        };
        let key = key.ok_or(Flaw::NotTrusted)?;
        if !statement.speaks_of(image) {
            return Err(Flaw::OtherSubject);
        }
        if self.attached_to != *image {
            return Err(Flaw::Misplaced);
        }
        Ok(Trusted { statement, key, found: self })
    }
}

fn of_envelope(envelope: Envelope) -> Result<Content, Unreadable> {
    let statement = envelope.statement().map_err(|error: InvalidEnvelope| Unreadable(error.to_string()))?;
    Ok(Content::Envelope { envelope, statement })
}

/// The payload of cosign's older signatures (containers/image, "Simple Signing").
#[derive(Deserialize)]
struct SimpleSigning {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: CriticalImage,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct CriticalImage {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

const SIMPLE_SIGNING_TYPE: &str = "cosign container image signature";

fn simple(payload: &[u8], signature: Option<&str>) -> Result<Content, Unreadable> {
    let unreadable = |what: &str| Unreadable(what.to_owned());
    let read: SimpleSigning = serde_json::from_slice(payload).map_err(|error| Unreadable(error.to_string()))?;
    if read.critical.kind != SIMPLE_SIGNING_TYPE {
        return Err(unreadable("its payload is no signature of an image"));
    }
    let signature = signature.and_then(envelope::decode).ok_or_else(|| unreadable("it has no signature"))?;
    let statement = Statement::signature(crate::Resource::content(&read.critical.image.digest));
    Ok(Content::Simple { payload: payload.to_vec(), signature, statement })
}
