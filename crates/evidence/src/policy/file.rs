//! Policies as files, which `seatrial verify --policy` reads.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::Path,
    time::{Duration, SystemTime},
};

use serde::Deserialize;

use super::{NamedKey, Policy, Requirement};
use crate::PublicKey;

/// A policy as it is written, in YAML or JSON.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Files with public keys, relative to the policy, or the keys themselves; perhaps by name.
    #[serde(default)]
    keys: Keys,
    /// `signature`, `provenance`, `sbom`, `gates`, `content`.
    #[serde(default)]
    require: Texts,
    /// Names of keys that have to have signed, each of them.
    #[serde(default)]
    signed_by: Texts,
    /// Names of gates that have to have passed.
    #[serde(default)]
    gates: Texts,
    /// What the provenance has to tell.
    #[serde(default)]
    provenance: Option<ProvenanceRule>,
    /// Greatest age of the newest statement that tells its time: `30d`.
    #[serde(default)]
    max_age: Option<String>,
    /// What may be missing for a while.
    #[serde(default)]
    exceptions: Vec<ExceptionRule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a file with a public key, a list of such files, or files by the names of their keys"
)]
enum Keys {
    One(String),
    List(Vec<String>),
    Named(BTreeMap<String, String>),
}

/// One text or several, as lists of a pipeline file are written.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum Texts {
    One(String),
    List(Vec<String>),
}

impl Default for Texts {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Texts {
    fn all(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::List(list) => list,
        }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProvenanceRule {
    source: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    builder: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExceptionRule {
    #[serde(rename = "for")]
    what: String,
    until: String,
    #[serde(default)]
    reason: String,
}

/// Something that may be missing until a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The requirement, as a report names it: `gate e2e`.
    pub what: String,
    /// The last day.
    pub until: String,
    /// Why, for whoever reads the policy.
    pub reason: String,
    /// The end of that day in UTC, in seconds since 1970.
    pub(super) ends: i64,
}

impl Exception {
    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        i64::try_from(now).is_ok_and(|now| now >= self.ends)
    }
}

/// A policy says something that means nothing.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A requirement is not known.
    #[error("`require`: {0}")]
    Requirement(String),
    /// A key cannot be read.
    #[error("cannot read the key {name}")]
    Unreadable {
        /// Its file.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds no key.
    #[error("{0} is not a public key of ECDSA P-256 or Ed25519 in PEM")]
    NotAKey(String),
    /// It is the half that nobody else may have.
    #[error("{0} is a private key, and what verifies is its public one: write it with `seatrial keys public`")]
    Private(String),
    /// A name of a key is not among the keys.
    #[error("`signed_by`: there is no key `{0}`")]
    UnknownKey(String),
    /// Not a length of time.
    #[error("`max_age`: `{0}` is no time such as `30d` or `12h`")]
    Age(String),
    /// Not a day.
    #[error("`until`: `{0}` is no day such as `2026-12-31`")]
    Day(String),
    /// An exception for something that is not asked for would hide a slip.
    #[error("`exceptions`: `{0}` is not required by this policy")]
    UnknownException(String),
    /// Nothing that is signed can count.
    #[error("the policy names no key that is trusted: write `keys: [release.pub]`")]
    NoKeys,
    /// Nothing is asked for.
    #[error("the policy requires nothing")]
    Empty,
}

impl PolicyFile {
    /// The policy. `read` gives the text of a key's file.
    ///
    /// # Errors
    /// The policy says something that means nothing, or a key cannot be read.
    pub fn policy(&self, read: &dyn Fn(&str) -> io::Result<String>) -> Result<Policy, PolicyError> {
        let given: Vec<(String, &String)> = match &self.keys {
            Keys::One(text) => vec![(key_name(text), text)],
            Keys::List(list) => list.iter().map(|text| (key_name(text), text)).collect(),
            Keys::Named(map) => map.iter().map(|(name, text)| (name.clone(), text)).collect(),
        };
        let mut keys = Vec::new();
        for (name, text) in given {
            keys.extend(named_keys(&name, text, read)?);
        }
        if let Some(unknown) = self.signed_by.all().iter().find(|name| !keys.iter().any(|key| key.name == **name)) {
            return Err(PolicyError::UnknownKey(unknown.clone()));
        }
        let mut require: Vec<Requirement> = Vec::new();
        for text in self.require.all() {
            require.push(text.parse().map_err(PolicyError::Requirement)?);
        }
        require.extend(self.signed_by.all().iter().cloned().map(Requirement::SignedBy));
        if let Some(rule) = &self.provenance {
            require.extend(rule.source.clone().map(Requirement::Source));
            require.extend(rule.reference.clone().map(Requirement::Ref));
            require.extend(rule.builder.clone().map(Requirement::Builder));
        }
        require.extend(self.gates.all().iter().cloned().map(Requirement::Gate));
        if let Some(text) = &self.max_age {
            require.push(Requirement::MaxAge(age(text).ok_or_else(|| PolicyError::Age(text.clone()))?));
        }
        if require.is_empty() {
            return Err(PolicyError::Empty);
        }
        let exceptions = self.exceptions.iter().map(|rule| exception(rule, &require)).collect::<Result<_, _>>()?;
        if keys.is_empty() && require.iter().any(|wanted| *wanted != Requirement::Content) {
            return Err(PolicyError::NoKeys);
        }
        Ok(Policy { keys, require, exceptions })
    }
}

fn exception(rule: &ExceptionRule, require: &[Requirement]) -> Result<Exception, PolicyError> {
    if !require.iter().any(|requirement| requirement.to_string() == rule.what) {
        return Err(PolicyError::UnknownException(rule.what.clone()));
    }
    let ends = rule.until.parse::<jiff::civil::Date>().ok().and_then(|day| {
        let next = day.tomorrow().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(next.timestamp().as_second())
    });
    let ends = ends.ok_or_else(|| PolicyError::Day(rule.until.clone()))?;
    Ok(Exception { what: rule.what.clone(), until: rule.until.clone(), reason: rule.reason.clone(), ends })
}

/// The keys of a file, or those that a text holds itself.
pub(crate) fn named_keys(
    name: &str,
    text: &str,
    read: &dyn Fn(&str) -> io::Result<String>,
) -> Result<Vec<NamedKey>, PolicyError> {
    let pem = if text.contains("-----BEGIN ") {
        text.to_owned()
    } else {
        read(text).map_err(|source| PolicyError::Unreadable { name: text.to_owned(), source })?
    };
    let keys = PublicKey::all_from_pem(&pem).map_err(|_| {
        let what = if text.contains('\n') { name } else { text };
        match pem.contains(" PRIVATE KEY-----") {
            true => PolicyError::Private(what.to_owned()),
            false => PolicyError::NotAKey(what.to_owned()),
        }
    })?;
    Ok(keys.into_iter().map(|key| NamedKey { name: name.to_owned(), key }).collect())
}

/// `keys/release.pub` is called `release`.
fn key_name(text: &str) -> String {
    if text.contains("-----BEGIN ") {
        return "the inline key".to_owned();
    }
    Path::new(text).file_stem().map_or_else(|| text.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// `90s`, `15m`, `12h`, `30d`, `2w`.
fn age(text: &str) -> Option<Duration> {
    let (number, unit) = text.trim().split_at(text.trim().find(|c: char| !c.is_ascii_digit())?);
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "w" => 7 * 24 * 60 * 60,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

impl Policy {
    /// A policy of keys and simple requirements, as `trust:` in a pipeline file and `verify --key` say it. Keys are in PEM, or
    /// names of files, which start from `base`.
    ///
    /// # Errors
    /// A key cannot be read.
    pub fn of(keys: &[String], require: Vec<Requirement>, base: &Path) -> Result<Policy, PolicyError> {
        let mut named = Vec::new();
        for text in keys {
            named.extend(named_keys(&key_name(text), text, &|name| read_text(&base.join(name)))?);
        }
        Ok(Policy { keys: named, require, exceptions: Vec::new() })
    }
}

/// A key takes some hundred bytes, a policy some hundred lines.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// The text of a file with public keys, or with a policy: bounded, since the file may be a stranger's.
///
/// # Errors
/// It cannot be read, is no text, or is longer than a megabyte.
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > TEXT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(text)
}
