//! Sigstore bundles: an envelope with what is needed to verify it (sigstore protobuf-specs, `Bundle`, version 0.3).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Envelope, Signer, SigningFailed, Statement};

/// Media type of what is written.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// An envelope, and the name of the key that signed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

/// What identifies the signer. Entries of transparency logs and timestamps are kept as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<KeyIdentifier>,
    #[serde(flatten)]
    further: serde_json::Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KeyIdentifier {
    #[serde(default)]
    hint: String,
}

impl Bundle {
    /// Signs a statement.
    ///
    /// # Errors
    /// The key's program does not sign.
    pub fn sign(statement: &Statement, signer: &Signer) -> Result<Self, SigningFailed> {
        Ok(Self {
            media_type: BUNDLE_TYPE.into(),
            verification_material: Material {
                public_key: Some(KeyIdentifier { hint: signer.public().hint() }),
                // Nothing is in a public log; readers made of the protos want to see that.
                further: serde_json::Map::from_iter([("tlogEntries".to_owned(), Value::Array(Vec::new()))]),
            },
            dsse_envelope: Envelope::sign(statement, signer)?,
        })
    }

    /// Reads a bundle of any version that holds an envelope.
    ///
    /// # Errors
    /// It is none, or it holds a bare signature instead of an envelope.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// As JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a bundle is JSON")
    }

    /// The envelope.
    pub fn envelope(&self) -> &Envelope {
        &self.dsse_envelope
    }

    /// Whether bundle and envelope name the same key, where both name one. Nothing is decided by these names, but what
    /// contradicts itself was changed by somebody.
    pub(crate) fn names_one_key(&self) -> bool {
        let hint = self.hint().filter(|hint| !hint.is_empty());
        hint.is_none_or(|hint| self.dsse_envelope.key_ids().all(|id| id == hint))
    }

    /// How the bundle names its key; `None` where a certificate names the signer.
    pub fn hint(&self) -> Option<&str> {
        self.verification_material.public_key.as_ref().map(|key| key.hint.as_str())
    }
}
