//! Private keys as files: PKCS#8 in PEM, plain or as cosign encrypts it.

use ed25519_dalek::pkcs8::KeypairBytes;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use zeroize::Zeroizing;

use super::{NoRandomness, Private, SigningKey, sealed};

/// Labels of PEM: what cosign writes now, and what it wrote until version 2.
const SEALED_LABELS: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
const PKCS8_LABEL: &str = "PRIVATE KEY";
const SEC1_LABEL: &str = "EC PRIVATE KEY";

/// Asks for a password, once and only if one is needed; `None`: there is none.
pub type Password<'a> = &'a dyn Fn() -> Option<Zeroizing<String>>;

/// A text is no private key that can be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It is no PEM, or PEM of something else.
    #[error("not a private key in PEM: expected `PRIVATE KEY`, `EC PRIVATE KEY` or `ENCRYPTED SIGSTORE PRIVATE KEY`")]
    NotAKey,
    /// It is a key, of a kind that cannot be used here.
    #[error("the key is neither ECDSA P-256 nor Ed25519")]
    OtherKind,
    /// It has a password, and nobody said it.
    #[error("the key is encrypted and there is no password")]
    NoPassword,
    /// The password is not the key's.
    #[error("the password is not the key's")]
    WrongPassword,
}

impl SigningKey {
    /// Reads a key in PEM: PKCS#8, SEC 1, or as cosign encrypts it.
    ///
    /// # Errors
    /// It is none, or its password is not known.
    pub fn from_pem(text: &str, password: Password<'_>) -> Result<Self, KeyFileError> {
        let (label, body) = pem_rfc7468::decode_vec(text.trim().as_bytes()).map_err(|_| KeyFileError::NotAKey)?;
        let body = Zeroizing::new(body);
        match label {
            PKCS8_LABEL => Self::from_pkcs8(&body),
            SEC1_LABEL => {
                let key = p256::SecretKey::from_sec1_der(&body).map_err(|_| KeyFileError::OtherKind)?;
                Ok(Self(Private::Ecdsa(key.into())))
            }
            label if SEALED_LABELS.contains(&label) => {
                let password = password().ok_or(KeyFileError::NoPassword)?;
                let plain = sealed::open(&body, password.as_bytes()).map_err(|error| match error {
                    sealed::OpenError::Malformed => KeyFileError::NotAKey,
                    sealed::OpenError::WrongPassword => KeyFileError::WrongPassword,
                })?;
                Self::from_pkcs8(&plain)
            }
            _ => Err(KeyFileError::NotAKey),
        }
    }

    /// As [`SigningKey::from_pem`], without opening what is encrypted.
    pub(super) fn look(text: &str, password: Password<'_>) -> Result<(), KeyFileError> {
        match pem_rfc7468::decode_label(text.trim().as_bytes()) {
            Ok(label) if SEALED_LABELS.contains(&label) => password().map(drop).ok_or(KeyFileError::NoPassword),
            _ => Self::from_pem(text, password).map(drop),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyFileError> {
        let ecdsa = p256::ecdsa::SigningKey::from_pkcs8_der(der).map(Private::Ecdsa);
        let key = ecdsa.or_else(|_| ed25519_dalek::SigningKey::from_pkcs8_der(der).map(Private::Ed25519));
        key.map(Self).map_err(|_| KeyFileError::OtherKind)
    }

    /// As PEM: under a password as cosign reads it, else plain PKCS#8.
    ///
    /// # Errors
    /// The system has no random numbers, which a password needs.
    pub fn to_pem(&self, password: Option<&str>) -> Result<Zeroizing<String>, NoRandomness> {
        let der = match &self.0 {
            Private::Ecdsa(key) => key.to_pkcs8_der(),
            // Without the public half: OpenSSL before 3.5 does not read the newer form that has it (RFC 5958).
            Private::Ed25519(key) => KeypairBytes { secret_key: key.to_bytes(), public_key: None }.to_pkcs8_der(),
        };
        let der = der.expect("a private key has an encoding");
        let (label, body) = match password {
            None => (PKCS8_LABEL, Zeroizing::new(der.as_bytes().to_vec())),
            Some(password) => (SEALED_LABELS[0], Zeroizing::new(sealed::seal(der.as_bytes(), password.as_bytes())?)),
        };
        let text = pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, &body);
        Ok(Zeroizing::new(text.expect("any bytes have a PEM")))
    }
}

/// Whether a text looks like PEM rather than the name of a file.
pub(super) fn is_pem(text: &str) -> bool {
    text.trim_start().starts_with("-----BEGIN ")
}
