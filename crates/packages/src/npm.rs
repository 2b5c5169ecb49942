//! Registries of npm: one PUT of the package's document with the tarball attached, as `npm publish` makes it (libnpmpublish).

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::Path,
};

use base64::{Engine as _, prelude::BASE64_STANDARD, write::EncoderWriter};
use ring::digest;
use semver::Version;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use crate::{Index, Package, PublishErrorKind, State, archive, body, package::About};

use registry::WebRequest;

/// A document lists all versions; those of busy packages have some ten megabytes.
const DOCUMENT_BYTES_MAX: u64 = 128 << 20;
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// The tag of whoever names no other.
const LATEST: &str = "latest";
/// Where versions before a release go, as most packages have it.
const NEXT: &str = "next";

/// A tarball's `package.json`.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    name: String,
    version: Version,
    /// As it is, for the registry.
    document: Map<String, Value>,
    /// `publishConfig`: who may install it, and the tag that it moves.
    access: Option<String>,
    tag: Option<String>,
}

impl Manifest {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        // npm strips the first directory whatever its name is.
        let bytes = archive::of_tar_gz(path, |name| archive::is_below_top(name, "package.json"))?;
        let document: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|error| format!("its package.json cannot be read: {error}"))?;
        let text = |key: &str| document.get(key).and_then(Value::as_str);
        let name = text("name").filter(|name| is_name(name)).ok_or("its package.json has no `name` that npm takes")?;
        let version = text("version").ok_or("its package.json has no `version`")?;
        let version = Version::parse(version).map_err(|error| format!("its version `{version}`: {error}"))?;
        if document.get("private").and_then(Value::as_bool) == Some(true) {
            return Err("its package.json says that it is private".into());
        }
        let config = |key: &str| document.get("publishConfig")?.get(key)?.as_str().map(str::to_owned);
        let (access, tag) = (config("access"), config("tag"));
        Ok(Self { name: name.to_owned(), version, access, tag, document: document.clone() })
    }

    /// The name of the tarball in the registry: without the scope.
    fn tarball(&self) -> String {
        format!("{}-{}.tgz", self.name.rsplit('/').next().unwrap_or(&self.name), self.version)
    }

    /// The tag that the version gets: a document without one is refused. `latest` moves forward only, as of npm 11.
    fn tag(&self, known: &Document) -> String {
        if let Some(tag) = &self.tag {
            return tag.clone();
        }
        if !self.version.pre.is_empty() {
            return NEXT.into();
        }
        let newest = known.tags.get(LATEST).and_then(|text| Version::parse(text).ok());
        match newest {
            Some(newest) if newest > self.version => format!("release-{}.{}", self.version.major, self.version.minor),
            _ => LATEST.into(),
        }
    }
}

/// `name` or `@scope/name` of characters that need no escape (validate-npm-package-name).
fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.' | '~');
        !part.is_empty() && !part.starts_with(['.', '_']) && part.chars().all(legal)
    };
    match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| is_part(scope) && is_part(name)),
        None => is_part(name),
    }
}

/// What a registry has of a package.
#[derive(Default, Deserialize)]
struct Document {
    #[serde(default, rename = "dist-tags")]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    versions: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    dist: Dist,
}

#[derive(Default, Deserialize)]
struct Dist {
    /// Digests as of Subresource Integrity, several with spaces between.
    #[serde(default)]
    integrity: String,
    #[serde(default)]
    shasum: String,
}

/// Digests that npm knows a tarball by.
#[derive(Clone)]
struct Digests {
    integrity: String,
    shasum: String,
}

impl Digests {
    fn of(package: &Package) -> io::Result<Self> {
        let mut sha512 = digest::Context::new(&digest::SHA512);
        // The protocol has it for the oldest clients; nothing of ours relies on it.
        let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        package.copy_to(&mut |bytes| {
            sha512.update(bytes);
            sha1.update(bytes);
            Ok(())
        })?;
        let integrity = format!("sha512-{}", BASE64_STANDARD.encode(sha512.finish()));
        Ok(Self { integrity, shasum: hex::encode(sha1.finish()) })
    }

    fn is(&self, dist: &Dist) -> bool {
        match dist.integrity.split_whitespace().find(|text| text.starts_with("sha512-")) {
            Some(theirs) => theirs == self.integrity,
            None => !dist.shasum.is_empty() && dist.shasum.eq_ignore_ascii_case(&self.shasum),
        }
    }
}

/// Uploads, unless the registry has the version.
pub(crate) async fn push(
    index: Index<'_>,
    registry: &Url,
    package: &Package,
    is_sending: bool,
) -> Result<State, PublishErrorKind> {
    let About::Npm(manifest) = &package.about else { unreachable!("it was read for npm") };
    let ours = package.clone();
    let digests = tokio::task::spawn_blocking(move || Digests::of(&ours)).await;
    let digests = digests.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    let url = registry.join(&manifest.name.replace('/', "%2f")).map_err(PublishErrorKind::malformed)?;
    let known = fetch(index, &url).await?;
    if let Some(state) = judge(&known, manifest, &digests)? {
        return Ok(state);
    }
    if !is_sending {
        return Ok(State::Absent);
    }
    let request = upload(index, registry, &url, package, manifest, &digests, &known).await?;
    let answer = index.client.exchange(&request, ANSWER_BYTES_MAX).await?;
    if answer.is_success() {
        return Ok(State::Sent);
    }
    // A version that is there is 403 at npm's own and 409 elsewhere: our answer was lost, or somebody was faster.
    if matches!(answer.status, 403 | 409)
        && let Some(state) = judge(&fetch(index, &url).await?, manifest, &digests)?
    {
        return Ok(state);
    }
    Err(PublishErrorKind::of(&answer))
}

async fn fetch(index: Index<'_>, url: &Url) -> Result<Document, PublishErrorKind> {
    let request = authorized(index, WebRequest::get(url.clone()).accept("application/json"));
    let answer = index.client.exchange(&request, DOCUMENT_BYTES_MAX).await?;
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map_err(PublishErrorKind::malformed),
        404 => Ok(Document::default()),
        _ => Err(PublishErrorKind::of(&answer)),
    }
}

fn judge(known: &Document, manifest: &Manifest, digests: &Digests) -> Result<Option<State>, PublishErrorKind> {
    match known.versions.get(&manifest.version.to_string()) {
        None => Ok(None),
        Some(entry) if digests.is(&entry.dist) => Ok(Some(State::WasThere)),
        Some(entry) => {
            let theirs = if entry.dist.integrity.is_empty() { &entry.dist.shasum } else { &entry.dist.integrity };
            Err(PublishErrorKind::Differs { theirs: theirs.clone(), ours: digests.integrity.clone() })
        }
    }
}

async fn upload(
    index: Index<'_>,
    registry: &Url,
    url: &Url,
    package: &Package,
    manifest: &Manifest,
    digests: &Digests,
    known: &Document,
) -> Result<WebRequest, PublishErrorKind> {
    let (name, version, file) = (&manifest.name, manifest.version.to_string(), manifest.tarball());
    let tarball = registry.join(&format!("{name}/-/{file}")).map_err(PublishErrorKind::malformed)?;
    let mut document = manifest.document.clone();
    document.insert("_id".into(), format!("{name}@{version}").into());
    document.insert(
        "dist".into(),
        json!({ "integrity": digests.integrity, "shasum": digests.shasum, "tarball": tarball.as_str() }),
    );
    let root = json!({
        "_id": name,
        "name": name,
        "description": manifest.document.get("description"),
        "dist-tags": { manifest.tag(known): version },
        "versions": { version: document },
        "access": manifest.access,
    });
    // The attachment is the last member, so that it can be encoded on its way.
    let head = root.to_string();
    let head = head.strip_suffix('}').unwrap_or(&head).to_owned();
    let (package, attached) = (package.clone(), serde_json::Value::from(file_with_scope(name, &file)).to_string());
    let (source, length) = body::write(move |out| {
        let size = package.size_bytes;
        write!(
            out,
            "{head},\"_attachments\":{{{attached}:{{\"content_type\":\"application/octet-stream\",\"length\":{size},\"data\":\""
        )?;
        let mut encoder = EncoderWriter::new(&mut *out, &BASE64_STANDARD);
        body::append(&mut encoder, &package)?;
        encoder.finish()?;
        drop(encoder);
        out.write_all(b"\"}}}")
    })
    .await?;
    Ok(authorized(index, WebRequest::put(url.clone(), "application/json", source, length)))
}

/// Attachments are named with the scope (libnpmpublish, `${manifest.name}-${manifest.version}.tgz`).
fn file_with_scope(name: &str, file: &str) -> String {
    name.rsplit_once('/').map_or_else(|| file.to_owned(), |(scope, _)| format!("{scope}/{file}"))
}

fn authorized(index: Index<'_>, request: WebRequest) -> WebRequest {
    match index.login {
        Some(login) if login.user.is_some() => request.authorization(&login.basic("")),
        Some(login) => request.authorization(&format!("Bearer {}", login.secret)),
        None => request,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_npm_takes() {
        for (name, expected) in [
            ("a", true),
            ("@me/a.b", true),
            ("../a", false),
            ("A", false),
            ("@me", false),
            ("@me/a/b", false),
            (".a", false),
        ] {
            assert_eq!(is_name(name), expected, "{name}");
        }
    }

    #[test]
    fn latest_moves_forward_only() {
        let tag = |version: &str, own: Option<&str>, latest: Option<&str>| {
            let manifest = Manifest {
                name: "a".into(),
                version: version.parse().unwrap(),
                document: Map::new(),
                access: None,
                tag: own.map(str::to_owned),
            };
            let tags = latest.map(|latest| (LATEST.to_owned(), latest.to_owned())).into_iter().collect();
            manifest.tag(&Document { tags, versions: BTreeMap::new() })
        };
        assert_eq!(tag("1.2.3", None, None), "latest");
        assert_eq!(tag("1.10.0", None, Some("1.9.0")), "latest");
        assert_eq!(tag("1.9.1", None, Some("1.10.0")), "release-1.9");
        assert_eq!(tag("2.0.0-rc.1", None, Some("1.10.0")), "next");
        assert_eq!(tag("1.0.0", Some("lts"), Some("1.10.0")), "lts");
    }
}
