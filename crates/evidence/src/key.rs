//! Keys: ECDSA on P-256 and Ed25519, private and public.

mod file;
mod program;
mod sealed;
mod source;

use std::fmt;

use ed25519_dalek::Verifier as _;
use oci::Digest;
use p256::pkcs8::{DecodePublicKey, EncodePublicKey, LineEnding};

pub use file::{KeyFileError, Password};
pub use source::{KeySource, KeySourceError, PROGRAM_TIME, Secrets, Signer, SigningFailed, SigningFailure};

/// Kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256 with SHA-256, which every tool knows.
    Ecdsa,
    /// Ed25519 over the message itself, not over its hash (`ed25519`, not `ed25519ph`).
    Ed25519,
}

/// A private key in memory. What it holds is overwritten when it is dropped, and shown nowhere.
pub struct SigningKey(Private);

enum Private {
    Ecdsa(p256::ecdsa::SigningKey),
    Ed25519(ed25519_dalek::SigningKey),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().fingerprint())
    }
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate(kind: KeyKind) -> Result<Self, NoRandomness> {
        loop {
            let mut seed = zeroize::Zeroizing::new([0; 32]);
            getrandom::fill(seed.as_mut_slice()).map_err(NoRandomness)?;
            match kind {
                KeyKind::Ed25519 => return Ok(Self(Private::Ed25519(ed25519_dalek::SigningKey::from_bytes(&seed)))),
                // Almost every number is a key; one that is not is drawn again.
                KeyKind::Ecdsa => {
                    if let Ok(key) = p256::ecdsa::SigningKey::from_slice(seed.as_slice()) {
                        return Ok(Self(Private::Ecdsa(key)));
                    }
                }
            }
        }
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(match &self.0 {
            Private::Ecdsa(key) => Public::Ecdsa(*key.verifying_key()),
            Private::Ed25519(key) => Public::Ed25519(key.verifying_key()),
        })
    }

    /// A signature of a message: for ECDSA in ASN.1, as cosign and OpenSSL write it. The same key gives the same message the
    /// same signature (RFC 6979, RFC 8032).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            Private::Ecdsa(key) => {
                use p256::ecdsa::signature::Signer as _;
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
            Private::Ed25519(key) => {
                use ed25519_dalek::Signer as _;
                key.sign(message).to_bytes().to_vec()
            }
        }
    }
}

/// The system gives no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness(#[source] getrandom::Error);

/// A public key, which signatures are checked by.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Public);

#[derive(Clone, PartialEq, Eq)]
enum Public {
    Ecdsa(p256::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

/// A text is no public key that we know.
#[derive(Debug, thiserror::Error)]
#[error("not a public key of ECDSA P-256 or Ed25519 in PEM")]
pub struct InvalidPublicKey;

impl PublicKey {
    /// Reads `-----BEGIN PUBLIC KEY-----`, as cosign and OpenSSL write it (RFC 5280, SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// It is no PEM, or another kind of key.
    pub fn from_pem(text: &str) -> Result<Self, InvalidPublicKey> {
        let text = text.trim();
        let ecdsa = p256::ecdsa::VerifyingKey::from_public_key_pem(text).map(Public::Ecdsa);
        let key = ecdsa.or_else(|_| ed25519_dalek::VerifyingKey::from_public_key_pem(text).map(Public::Ed25519));
        key.map(Self).map_err(|_| InvalidPublicKey)
    }

    /// All keys of a text with one or several.
    ///
    /// # Errors
    /// One of them is none, or there is none at all.
    pub fn all_from_pem(text: &str) -> Result<Vec<Self>, InvalidPublicKey> {
        const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
        let starts: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        let keys: Vec<Self> =
            starts.iter().zip(ends).map(|(from, to)| Self::from_pem(&text[*from..to])).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(InvalidPublicKey) } else { Ok(keys) }
    }

    /// As `-----BEGIN PUBLIC KEY-----`.
    pub fn to_pem(&self) -> String {
        let pem = match &self.0 {
            Public::Ecdsa(key) => key.to_public_key_pem(LineEnding::LF),
            Public::Ed25519(key) => key.to_public_key_pem(LineEnding::LF),
        };
        pem.expect("a public key has an encoding")
    }

    fn to_der(&self) -> Vec<u8> {
        let der = match &self.0 {
            Public::Ecdsa(key) => key.to_public_key_der(),
            Public::Ed25519(key) => key.to_public_key_der(),
        };
        der.expect("a public key has an encoding").into_vec()
    }

    /// Its kind.
    pub fn kind(&self) -> KeyKind {
        match self.0 {
            Public::Ecdsa(_) => KeyKind::Ecdsa,
            Public::Ed25519(_) => KeyKind::Ed25519,
        }
    }

    /// `SHA256:` and the hash of the key in hexadecimal digits: what people compare, and what OpenSSL's
    /// `pkey -pubin -outform DER | sha256sum` gives.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", Digest::of(&self.to_der()).hex())
    }

    /// How bundles name the key that they need (sigstore `PublicKeyIdentifier`, after RFC 6962 §3.2).
    pub fn hint(&self) -> String {
        use base64::Engine as _;
        let hash = hex::decode(Digest::of(&self.to_der()).hex()).expect("a digest is hexadecimal");
        base64::engine::general_purpose::STANDARD.encode(hash)
    }

    /// Whether the signature is this key's, of this very message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Public::Ecdsa(key) => {
                let signature = p256::ecdsa::Signature::from_der(signature);
                signature
                    .is_ok_and(|signature| p256::ecdsa::signature::Verifier::verify(key, message, &signature).is_ok())
            }
            Public::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}
