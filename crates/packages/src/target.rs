//! Where packages go, and as whom.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use oci::Reference;
use url::Url;

use crate::pypi;

/// An index or registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `pypi:URL`: an index that twine uploads to.
    Pypi(pypi::Place),
    /// `npm:URL`: a registry of npm.
    Npm(Url),
    /// `crates:URL`: a sparse index of cargo.
    Crates(Url),
    /// `oci:REFERENCE`: an artefact in a registry.
    Oci(Reference),
}

/// The text names no place for packages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no place for files: {reason}")]
pub struct InvalidTarget {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let wrong = |reason: String| InvalidTarget { text: without_login(text), reason };
        let forms = "write `pypi:URL`, `npm:URL`, `crates:URL` or `oci:REGISTRY/REPOSITORY:TAG`";
        let (kind, place) = text.split_once(':').ok_or_else(|| wrong(forms.into()))?;
        match kind {
            "pypi" => Ok(Self::Pypi(pypi::Place::new(url(place).map_err(wrong)?))),
            "npm" => Ok(Self::Npm(directory(url(place).map_err(wrong)?))),
            // As cargo writes the URL of a sparse index.
            "crates" => {
                Ok(Self::Crates(directory(url(place.strip_prefix("sparse+").unwrap_or(place)).map_err(wrong)?)))
            }
            "oci" => {
                let reference: Reference =
                    place.parse().map_err(|error: oci::InvalidReference| wrong(error.reason.to_string()))?;
                match (reference.tag(), reference.digest()) {
                    (Some(_), None) => Ok(Self::Oci(reference)),
                    _ => Err(wrong("an artefact needs a tag".into())),
                }
            }
            _ => Err(wrong(forms.into())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pypi(place) => write!(f, "pypi:{}", place.upload),
            Self::Npm(url) => write!(f, "npm:{url}"),
            Self::Crates(url) => write!(f, "crates:{url}"),
            Self::Oci(reference) => write!(f, "oci:{}", reference.familiar()),
        }
    }
}

fn url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    match url.scheme() {
        _ if url.host_str().is_none() => Err("the URL has no host".into()),
        _ if !url.username().is_empty() || url.password().is_some() => {
            Err("the URL holds a login, which belongs into `secret`".into())
        }
        "https" | "http" => Ok(url),
        scheme => Err(format!("`{scheme}` is neither https nor http")),
    }
}

/// The same place, so that names can be joined to it.
pub(crate) fn directory(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url
}

/// Messages show the text; a password that does not belong there is not repeated.
fn without_login(text: &str) -> String {
    match (text.find("//"), text.rfind('@')) {
        (Some(start), Some(end)) if start < end => format!("{}…{}", &text[..start + 2], &text[end..]),
        _ => text.to_owned(),
    }
}

/// Who publishes. Neither shown nor written anywhere.
#[derive(Clone)]
pub struct Login {
    /// The user's name, where the index asks for one.
    pub user: Option<String>,
    /// Password or token.
    pub secret: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Login {
    /// `Authorization` with user and password (RFC 7617).
    pub(crate) fn basic(&self, default_user: &str) -> String {
        let user = self.user.as_deref().unwrap_or(default_user);
        format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{}", self.secret)))
    }

    /// A text without the secret.
    pub(crate) fn mask(&self, text: &str) -> String {
        if self.secret.is_empty() { text.to_owned() } else { text.replace(&self.secret, "***") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_mistakes_named() {
        for (text, expected) in [
            ("npm:https://npm.example", "npm:https://npm.example/"),
            ("crates:sparse+https://index.example/a", "crates:https://index.example/a/"),
            ("oci:registry.example/app-files:1.2", "oci:registry.example/app-files:1.2"),
            ("pypi:https://pypi.example/simple", "pypi:https://pypi.example/"),
            ("pypi:https://pypi.org/simple/", "pypi:https://upload.pypi.org/legacy/"),
            ("pypi:https://upload.pypi.org/legacy/", "pypi:https://upload.pypi.org/legacy/"),
            ("pypi:https://gitea.example/api/packages/me/pypi", "pypi:https://gitea.example/api/packages/me/pypi"),
        ] {
            assert_eq!(text.parse::<Target>().map(|target| target.to_string()).as_deref(), Ok(expected));
        }
        for (text, reason) in [
            ("https://pypi.example", "write `pypi:URL`"),
            ("pypi:pypi.example", "relative URL"),
            ("pypi:ftp://pypi.example", "neither https"),
            ("npm:https://me:word@npm.example", "belongs into `secret`"),
            ("oci:registry.example/app", "needs a tag"),
            ("oci:UPPER/x", ""),
        ] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains(reason) && !error.contains("word"), "{error}");
        }
    }
}
