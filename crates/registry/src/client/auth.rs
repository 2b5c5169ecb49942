//! Challenges, tokens, and what to put into the `Authorization` header (distribution's "Token Authentication
//! Specification"; RFC 7235; RFC 6749 for refresh tokens).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use oci::Reference;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;

use crate::Credential;

/// A token without a stated life lives this long (token specification, `expires_in`).
const TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(60);
/// Tokens are renewed this much before they end, so that none ends on its way.
const TOKEN_LIFE_MARGIN: Duration = Duration::from_secs(10);
/// Longest life believed; a wrong clock on the other side must not make us keep a token for ever.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(12 * 3600);
/// Parameters of a challenge that are read.
const CHALLENGE_PARAMETERS_MAX: usize = 16;

/// What a request needs to be allowed: `repository:NAME:ACTIONS`, several separated by spaces; empty for the host alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Scope(pub(super) String);

impl Scope {
    pub(super) fn pull(repository: &Reference) -> Self {
        Self(format!("repository:{}:pull", repository.path()))
    }

    /// The list of all repositories (token specification, "Resource Scope").
    pub(super) fn catalog() -> Self {
        Self("registry:catalog:*".into())
    }

    pub(super) fn push(repository: &Reference) -> Self {
        Self(format!("repository:{}:pull,push", repository.path()))
    }

    pub(super) fn delete(repository: &Reference) -> Self {
        Self(format!("repository:{}:pull,push,delete", repository.path()))
    }

    /// Also reading another repository, for a mount.
    pub(super) fn and_pull(mut self, path: &str) -> Self {
        self.0.push_str(&format!(" repository:{path}:pull"));
        self
    }
}

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String>, error: Option<String> },
}

impl Challenge {
    /// The challenge of a 401 that we can answer; bearer before basic, as docker does.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = value.to_str() else { continue };
            let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                let mut fields = parameters(rest);
                if let Some(realm) = fields.remove("realm") {
                    let (service, scope, error) =
                        (fields.remove("service"), fields.remove("scope"), fields.remove("error"));
                    return Some(Self::Bearer { realm, service, scope, error });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
        }
        basic
    }

    /// The registry knows who we are, but this is not ours to do.
    pub(super) fn is_insufficient_scope(&self) -> bool {
        matches!(self, Self::Bearer { error: Some(error), .. } if error == "insufficient_scope")
    }
}

/// `name="value"` pairs separated by commas; values may contain commas and escaped quotes.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut fields = HashMap::new();
    let mut rest = text.trim_start_matches([',', ' ']);
    while let Some((name, after)) = rest.split_once('=') {
        if fields.len() == CHALLENGE_PARAMETERS_MAX {
            break;
        }
        let mut value = String::new();
        let end = if let Some(quoted) = after.strip_prefix('"') {
            let mut characters = quoted.char_indices();
            loop {
                match characters.next() {
                    Some((_, '\\')) => value.extend(characters.next().map(|(_, c)| c)),
                    Some((at, '"')) => break at + 2,
                    Some((_, c)) => value.push(c),
                    None => break after.len(),
                }
            }
        } else {
            let end = after.find(',').unwrap_or(after.len());
            value.push_str(after[..end].trim());
            end
        };
        fields.insert(name.trim().to_ascii_lowercase(), value);
        rest = after[end..].trim_start_matches([',', ' ']);
    }
    fields
}

/// The header that proves a user by password.
pub(super) fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    secret_header(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

/// The header that shows a token.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    secret_header(format!("Bearer {token}"))
}

fn secret_header(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A bearer token with its end.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) header: HeaderValue,
    expires: Instant,
}

impl Token {
    pub(super) fn is_fresh(&self) -> bool {
        Instant::now() < self.expires
    }

    /// Reads a token server's answer.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let answer: Answer = serde_json::from_slice(bytes).map_err(|error| format!("token: {error}"))?;
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let token = filled(answer.token).or(filled(answer.access_token)).ok_or("token server gave no token")?;
        let life = answer.expires_in.map_or(TOKEN_LIFE_DEFAULT, Duration::from_secs).min(TOKEN_LIFE_MAX);
        let header = bearer(&token).ok_or("token server gave a token with illegal characters")?;
        // A life shorter than the margin is used for half its time.
        let margin = TOKEN_LIFE_MARGIN.min(life / 2);
        Ok(Self { header, expires: Instant::now() + (life - margin) })
    }
}

/// The form that asks for a token with a refresh token (token specification, "OAuth2 Token Authentication").
pub(super) fn refresh_form(token: &str, service: Option<&str>, scopes: &[&str]) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    form.append_pair("client_id", "seatrial");
    form.append_pair("refresh_token", token);
    if let Some(service) = service {
        form.append_pair("service", service);
    }
    form.append_pair("scope", &scopes.join(" "));
    form.finish()
}

/// Whether a credential is sent as basic authentication.
pub(super) fn basic_of(credential: &Credential) -> Option<HeaderValue> {
    match credential {
        Credential::Password { user, password } => basic(user, password),
        Credential::RegistryToken(token) => bearer(token),
        Credential::IdentityToken(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(texts: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(text).unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn challenges_are_read() {
        let Some(Challenge::Bearer { realm, service, scope, error }) = challenge(&[
            "Basic realm=\"x\"",
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push",error="insufficient_scope""#,
        ]) else {
            panic!("bearer is preferred")
        };
        assert_eq!(realm, "https://auth.docker.io/token");
        assert_eq!(service.as_deref(), Some("registry.docker.io"));
        assert_eq!(scope.as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(error.as_deref(), Some("insufficient_scope"));
        assert_eq!(challenge(&["basic"]), Some(Challenge::Basic));
        assert_eq!(challenge(&["Negotiate"]), None);
        assert_eq!(challenge(&["Bearer"]), None);
        assert!(matches!(
            challenge(&[r#"bearer realm="a\"b, service=x"#]),
            Some(Challenge::Bearer { realm, .. }) if realm == "a\"b, service=x"
        ));
        assert!(matches!(
            challenge(&["Bearer realm=http://x/t, service=y"]),
            Some(Challenge::Bearer { realm, service: Some(service), .. }) if realm == "http://x/t" && service == "y"
        ));
    }

    #[test]
    fn tokens_end_before_they_are_refused() {
        assert!(Token::parse(br#"{"token":"a"}"#).unwrap().is_fresh());
        assert!(!Token::parse(br#"{"access_token":"a","expires_in":0}"#).unwrap().is_fresh());
        assert!(Token::parse(br#"{"token":"","expires_in":9}"#).is_err());
        assert!(Token::parse(b"{\"token\":\"a\\nb\"}").is_err());
    }
}
