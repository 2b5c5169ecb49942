//! Signed envelopes (DSSE 1.0.2): a payload, its type, and signatures of both.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use serde::{Deserialize, Serialize};

use crate::{PublicKey, Signer, SigningFailed, Statement};

/// Type of a payload that is a statement.
pub const STATEMENT_PAYLOAD: &str = "application/vnd.in-toto+json";

/// Either alphabet and with or without padding: "either standard or URL-safe" (DSSE, "Envelope").
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// A payload with signatures, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// In base64.
    payload: String,
    /// Media type of the payload.
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    /// In base64.
    sig: String,
    /// Names the key; nothing is decided by it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
}

/// An envelope cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEnvelope {
    /// Its payload is not what it should be.
    #[error("its payload is no in-toto statement")]
    NotAStatement,
    /// Its payload is of another type.
    #[error("its payload is of type `{0}`")]
    OtherType(String),
    /// It is not encoded as it should be.
    #[error("its payload is not in base64")]
    NotBase64,
}

impl Envelope {
    /// Signs a statement.
    ///
    /// # Errors
    /// The key's program does not sign.
    pub fn sign(statement: &Statement, signer: &Signer) -> Result<Self, SigningFailed> {
        let payload = statement.to_bytes();
        let signature = signer.sign(&pre_authentication(STATEMENT_PAYLOAD, &payload))?;
        Ok(Self {
            payload: STANDARD.encode(payload),
            payload_type: STATEMENT_PAYLOAD.into(),
            // The bundle's hint and this have to be the same (sigstore protobuf-specs, `Bundle`).
            signatures: vec![Signature { sig: STANDARD.encode(signature), keyid: signer.public().hint() }],
        })
    }

    /// What is said, whether or not it is signed by anybody that one knows.
    ///
    /// # Errors
    /// The payload is something else.
    pub fn statement(&self) -> Result<Statement, InvalidEnvelope> {
        if self.payload_type != STATEMENT_PAYLOAD {
            return Err(InvalidEnvelope::OtherType(self.payload_type.clone()));
        }
        let payload = decode(&self.payload).ok_or(InvalidEnvelope::NotBase64)?;
        let statement: Statement = serde_json::from_slice(&payload).map_err(|_| InvalidEnvelope::NotAStatement)?;
        if statement.is_of_known_version() { Ok(statement) } else { Err(InvalidEnvelope::NotAStatement) }
    }

    /// The first of these keys that has signed this very payload.
    pub fn signer<'k>(&self, keys: &'k [PublicKey]) -> Option<&'k PublicKey> {
        let message = pre_authentication(&self.payload_type, &decode(&self.payload)?);
        let signatures: Vec<Vec<u8>> = self.signatures.iter().filter_map(|signature| decode(&signature.sig)).collect();
        keys.iter().find(|key| signatures.iter().any(|signature| key.verifies(&message, signature)))
    }

    /// How the envelope names its keys.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.signatures.iter().map(|signature| signature.keyid.as_str()).filter(|id| !id.is_empty())
    }
}

/// What is signed: type and payload with their lengths, so that neither can be read as a part of the other (DSSE, "PAE").
pub fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let engine = |alphabet| GeneralPurpose::new(alphabet, LENIENT);
    let standard = engine(&alphabet::STANDARD).decode(text);
    standard.or_else(|_| engine(&alphabet::URL_SAFE).decode(text)).ok()
}
