//! Tokens of ours: JSON Web Tokens (RFC 7519) that this server signs with Ed25519 (RFC 8037) and takes only from itself.
//!
//! One key, one algorithm, one header that is compared byte by byte: there is nothing that a forged header could choose.

use std::{
    fmt,
    io::{self, Write as _},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fs_err as fs;
use ring::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};

/// Tokens of many scopes have some kilobytes; header lines of more than this are not taken anyway.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Use {
    /// Shown with requests.
    Access,
    /// Shown to get such a token.
    Refresh,
}

/// What a token says (token specification, "Token format").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    /// The user; empty for somebody who is not logged in.
    pub(super) sub: String,
    pub(super) aud: String,
    /// Seconds since 1970.
    pub(super) iat: u64,
    pub(super) exp: u64,
    #[serde(rename = "use")]
    pub(super) purpose: Use,
    /// The state of the user's password; see `User::mark`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) mark: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) access: Vec<Grant>,
}

/// Actions on one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) actions: Vec<String>,
}

impl Grant {
    pub(super) fn gives(&self, kind: &str, name: &str, action: &str) -> bool {
        self.kind == kind && self.name == name && self.actions.iter().any(|it| it == action || it == "*")
    }
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("the token is not one of this registry")]
    Foreign,
    #[error("the token has expired")]
    Expired,
    #[error("the user of the token is gone or has another password")]
    Void,
}

/// The server's key.
pub(super) struct Signer {
    pair: Ed25519KeyPair,
    audience: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl Signer {
    /// Reads the key from `token-key` of a directory, and makes it when there is none. It is for its owner's eyes.
    pub(super) fn open(directory: &Path, audience: &str) -> io::Result<Self> {
        let path = directory.join("token-key");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(directory, &path)?,
            Err(error) => return Err(error),
        };
        let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", path.display()));
        Ok(Self { pair: Ed25519KeyPair::from_pkcs8(&bytes).map_err(damaged)?, audience: audience.to_owned() })
    }

    /// A token for a user that lives so long from now on.
    pub(super) fn sign(
        &self,
        purpose: Use,
        user: Option<&super::users::User>,
        access: Vec<Grant>,
        now: SystemTime,
        life: Duration,
    ) -> String {
        let now_s = seconds(now);
        let claims = Claims {
            iss: self.audience.clone(),
            sub: user.map(|user| user.name.to_string()).unwrap_or_default(),
            aud: self.audience.clone(),
            iat: now_s,
            exp: now_s.saturating_add(life.as_secs()),
            purpose,
            mark: user.map(|user| user.mark.clone()).unwrap_or_default(),
            access,
        };
        let body = serde_json::to_vec(&claims).expect("claims are plain data");
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(body));
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        token
    }

    /// What a token says, if it is ours, for this and not too old.
    pub(super) fn verify(&self, token: &str, purpose: Use, now: SystemTime) -> Result<Claims, TokenError> {
        let foreign = TokenError::Foreign;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(foreign);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(foreign)?;
        let (header, body) = signed.split_once('.').ok_or(foreign)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| foreign)?;
        let key = UnparsedPublicKey::new(&ED25519, self.pair.public_key());
        key.verify(signed.as_bytes(), &signature).map_err(|_| foreign)?;
        if header != URL_SAFE_NO_PAD.encode(HEADER) {
            return Err(foreign);
        }
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| foreign)?;
        let claims: Claims = serde_json::from_slice(&body).map_err(|_| foreign)?;
        if claims.aud != self.audience || claims.purpose != purpose {
            return Err(foreign);
        }
        if seconds(now) >= claims.exp {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

fn make_key(directory: &Path, path: &Path) -> io::Result<Vec<u8>> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| io::Error::other("the kernel gave no random bytes"))?;
    // Files of this kind are readable by their owner only.
    let mut file = tempfile::Builder::new().prefix("token-key.").tempfile_in(directory)?;
    file.write_all(document.as_ref())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    fs::File::open(directory)?.sync_all()?;
    Ok(document.as_ref().to_vec())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    fn grant() -> Grant {
        Grant { kind: "repository".into(), name: "a/b".into(), actions: vec!["pull".into()] }
    }

    #[test]
    fn tokens_are_ours_for_one_use_and_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::open(directory.path(), "here").unwrap();
        let now = SystemTime::now();
        let token = signer.sign(Use::Access, None, vec![grant()], now, LIFE);
        let claims = signer.verify(&token, Use::Access, now).unwrap();
        assert_eq!((claims.sub.as_str(), &claims.access), ("", &vec![grant()]));
        assert_eq!(signer.verify(&token, Use::Refresh, now), Err(TokenError::Foreign));
        assert_eq!(signer.verify(&token, Use::Access, now + LIFE), Err(TokenError::Expired));
        assert!(signer.verify(&token, Use::Access, now + LIFE - Duration::from_secs(1)).is_ok());

        // The key stays over a restart, and is nobody else's.
        let again = Signer::open(directory.path(), "here").unwrap();
        assert!(again.verify(&token, Use::Access, now).is_ok());
        let mode = fs::metadata(directory.path().join("token-key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let renamed = Signer::open(directory.path(), "there").unwrap();
        assert_eq!(renamed.verify(&token, Use::Access, now), Err(TokenError::Foreign));
        let other = tempfile::tempdir().unwrap();
        let other = Signer::open(other.path(), "here").unwrap();
        assert_eq!(other.verify(&token, Use::Access, now), Err(TokenError::Foreign));
    }

    #[test]
    fn forged_tokens_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::open(directory.path(), "here").unwrap();
        let now = SystemTime::now();
        let token = signer.sign(Use::Access, None, vec![grant()], now, LIFE);
        let parts: Vec<&str> = token.split('.').collect();
        let body = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        let raised = URL_SAFE_NO_PAD.encode(body.replace("pull", "push"));
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        for forged in [
            format!("{}.{raised}.{}", parts[0], parts[2]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{none}.{}.", parts[1]),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}.{token}"),
            "x".repeat(TOKEN_BYTES_MAX + 1),
            "..".into(),
            String::new(),
        ] {
            assert_eq!(signer.verify(&forged, Use::Access, now), Err(TokenError::Foreign), "{forged}");
        }
    }
}
