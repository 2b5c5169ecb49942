//! Image references: `[domain/]path[:tag][@digest]`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The registry that a name without one means.
const DEFAULT_DOMAIN: &str = "docker.io";
/// A repository name may be this long (distribution-spec, "Pulling manifests").
const NAME_BYTES_MAX: usize = 255;

/// A normalised image reference, as docker reads names: `alpine` is `docker.io/library/alpine:latest`.
/// The default tag `latest` is filled in only by [`Reference::tag_or_latest`], so that "no tag" can be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {reason}")]
pub struct InvalidReference {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Reference {
    /// Host and port of the registry: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository within the registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if one is given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The tag, or `latest` when neither tag nor digest is given.
    pub fn tag_or_latest(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some("latest"),
            (None, Some(_)) => None,
        }
    }

    /// The digest, if one is given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `domain/path`, without tag and digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The same repository with this tag and no digest. The tag must be legal ([`is_valid_tag`]).
    pub fn with_tag(&self, tag: &str) -> Self {
        assert!(is_valid_tag(tag), "tag `{tag}` was checked by the caller");
        Self { tag: Some(tag.into()), digest: None, ..self.clone() }
    }

    /// The same repository with this digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The name as people write it: without `docker.io/library/`.
    pub fn familiar(&self) -> String {
        let name = match self.domain.as_str() {
            DEFAULT_DOMAIN => self.path.strip_prefix("library/").unwrap_or(&self.path).to_owned(),
            _ => self.repository(),
        };
        self.suffix(name)
    }

    fn suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text = text + ":" + tag;
        }
        if let Some(digest) = &self.digest {
            text = text + "@" + &digest.to_string();
        }
        text
    }
}

/// Whether this is a legal tag: `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}` (distribution-spec, "Pulling manifests").
pub fn is_valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128 && tag.bytes().next().is_some_and(word) && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` (distribution-spec, "Pulling manifests").
fn is_path_component(component: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alnum(first) || !alnum(last) {
        return false;
    }
    bytes
        .split(alnum)
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let inside = address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
            return inside && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
        }
        None => domain.split_once(':').map_or((domain, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok()
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let fail = |reason| Err(InvalidReference { text: text.chars().take(300).collect(), reason });
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => match digest.parse() {
                Ok(digest) => (rest, Some(digest)),
                Err(_) => return fail("the digest after `@` is not `sha256:` and 64 hex digits"),
            },
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_valid_tag(tag)) {
            return fail("the tag may have letters, digits, `_`, `.`, `-`, 128 at most");
        }
        let (domain, path) = match name.split_once('/') {
            Some((first, path))
                if first.contains(['.', ':']) || first == "localhost" || first != first.to_lowercase() =>
            {
                (first.to_owned(), path.to_owned())
            }
            Some(_) => (DEFAULT_DOMAIN.to_owned(), name.to_owned()),
            None => (DEFAULT_DOMAIN.to_owned(), format!("library/{name}")),
        };
        let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN.to_owned() } else { domain };
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("library/{path}") } else { path };
        if name.is_empty() || name.ends_with('/') {
            return fail("the repository name is missing");
        }
        if !is_domain(&domain) {
            return fail("the registry's host name is not legal");
        }
        if path != path.to_lowercase() {
            return fail("repository names are lower-case");
        }
        if !path.split('/').all(is_path_component) {
            return fail(
                "repository names have lower-case letters and digits, separated by `.`, `_`, `__`, `-` or `/`",
            );
        }
        if path.len() + domain.len() + 1 > NAME_BYTES_MAX {
            return fail("the name is longer than 255 bytes");
        }
        Ok(Self { domain, path, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffix(self.repository()))
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_docker_does() {
        for (text, normal, familiar) in [
            ("alpine", "docker.io/library/alpine", "alpine"),
            ("a", "docker.io/library/a", "a"),
            ("extsoft/api:1.2", "docker.io/extsoft/api:1.2", "extsoft/api:1.2"),
            ("localhost/api", "localhost/api", "localhost/api"),
            ("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x"),
            ("index.docker.io/alpine", "docker.io/library/alpine", "alpine"),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
            ("reg.example/a__b/c--d/e.f", "reg.example/a__b/c--d/e.f", "reg.example/a__b/c--d/e.f"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), normal);
            assert_eq!(reference.familiar(), familiar);
        }
    }

    #[test]
    fn illegal_names_are_refused() {
        for text in [
            "",
            "/",
            "a/",
            ":x",
            "a:",
            "a:-x",
            "A",
            "a..b",
            "a___b",
            "-a",
            "a@sha256:0",
            "reg.example:99999/a",
            "a b",
            "a:b/c:d ",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn tag_defaults_to_latest_unless_a_digest_is_given() {
        let digest = Digest::of(b"x");
        assert_eq!("a".parse::<Reference>().unwrap().tag_or_latest(), Some("latest"));
        assert_eq!(format!("a@{digest}").parse::<Reference>().unwrap().tag_or_latest(), None);
    }
}
