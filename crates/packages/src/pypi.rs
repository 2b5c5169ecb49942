//! Indexes of Python: the upload that twine makes, and the simple page that tells what is there (PEP 503, 691).
//!
//! Fields of the upload: <https://docs.pypi.org/api/upload/>; metadata: <https://packaging.python.org/specifications/core-metadata/>.

use std::{io::Write as _, path::Path};

use registry::WebRequest;
use serde::Deserialize;
use url::Url;

use crate::{Index, Package, PublishErrorKind, State, archive, body, error::words, package::About, target::directory};

/// Whoever has a token has this name (<https://pypi.org/help/#apitoken>).
const TOKEN_USER: &str = "__token__";
/// A page lists all files of a project; the largest have some ten thousand.
const PAGE_BYTES_MAX: u64 = 64 << 20;
const ANSWER_BYTES_MAX: u64 = 1 << 20;
const PAGE_TYPES: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// An index: where files go, and where it lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Takes uploads.
    pub upload: Url,
    /// Lists projects.
    pub simple: Url,
}

impl Place {
    /// From the URL of either. Indexes take uploads where `/simple` lies, but for PyPI's own.
    pub(crate) fn new(url: Url) -> Self {
        let path = url.path().trim_end_matches('/').to_owned();
        let at = |host: &str, path: &str| {
            let mut place = url.clone();
            // The host is a legal one, and the scheme has hosts.
            let _ = place.set_host(Some(host));
            place.set_path(path);
            place
        };
        match url.host_str().unwrap_or_default() {
            "pypi.org" | "upload.pypi.org" => {
                Self { upload: at("upload.pypi.org", "/legacy/"), simple: at("pypi.org", "/simple/") }
            }
            host @ "test.pypi.org" => Self { upload: at(host, "/legacy/"), simple: at(host, "/simple/") },
            host => match path.strip_suffix("/simple") {
                Some(above) => Self { upload: at(host, &format!("{above}/")), simple: at(host, &format!("{path}/")) },
                None => Self { upload: url.clone(), simple: at(host, &format!("{path}/simple/")) },
            },
        }
    }
}

/// What a wheel or source distribution says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    /// `bdist_wheel` or `sdist`.
    filetype: &'static str,
    /// The wheel's Python tag, or `source`.
    pyversion: String,
    /// As in the metadata.
    name: String,
    /// Fields of the upload, in the order of the metadata.
    fields: Vec<(&'static str, String)>,
}

/// Fields of the metadata with the names that the upload has for them.
const FIELDS: &[(&str, &str)] = &[
    ("metadata-version", "metadata_version"),
    ("name", "name"),
    ("version", "version"),
    ("summary", "summary"),
    ("description", "description"),
    ("description-content-type", "description_content_type"),
    ("keywords", "keywords"),
    ("home-page", "home_page"),
    ("download-url", "download_url"),
    ("author", "author"),
    ("author-email", "author_email"),
    ("maintainer", "maintainer"),
    ("maintainer-email", "maintainer_email"),
    ("license", "license"),
    ("license-expression", "license_expression"),
    ("license-file", "license_file"),
    ("classifier", "classifiers"),
    ("platform", "platform"),
    ("supported-platform", "supported_platform"),
    ("requires-python", "requires_python"),
    ("requires-dist", "requires_dist"),
    ("requires-external", "requires_external"),
    ("provides-dist", "provides_dist"),
    ("provides-extra", "provides_extra"),
    ("obsoletes-dist", "obsoletes_dist"),
    ("project-url", "project_urls"),
    ("dynamic", "dynamic"),
];

impl Metadata {
    pub(crate) fn read(path: &Path, file_name: &str) -> Result<Self, String> {
        let (filetype, pyversion, bytes) = if let Some(stem) = file_name.strip_suffix(".whl") {
            // name-version[-build]-python-abi-platform (binary distribution format, "File name convention").
            let parts: Vec<&str> = stem.split('-').collect();
            if !(5..=6).contains(&parts.len()) {
                return Err("a wheel's name is NAME-VERSION-PYTHON-ABI-PLATFORM.whl".into());
            }
            let is_metadata = |name: &str| {
                name.split_once('/').is_some_and(|(top, rest)| top.ends_with(".dist-info") && rest == "METADATA")
            };
            ("bdist_wheel", parts[parts.len() - 3].to_owned(), archive::of_zip(path, is_metadata)?)
        } else if file_name.ends_with(".tar.gz") {
            ("sdist", "source".to_owned(), archive::of_tar_gz(path, |name| archive::is_below_top(name, "PKG-INFO"))?)
        } else {
            return Err("an index of Python takes wheels (.whl) and source distributions (.tar.gz)".into());
        };
        let fields = fields(&String::from_utf8_lossy(&bytes));
        let value = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone());
        let name = value("name").ok_or("its metadata has no `Name`")?;
        let version = value("version").ok_or("its metadata has no `Version`")?;
        let told = file_name.split('-').next().unwrap_or_default();
        if filetype == "bdist_wheel" && normal(told) != normal(&name) {
            return Err(format!("its metadata speaks of {name} {version}"));
        }
        Ok(Self { filetype, pyversion, name, fields })
    }
}

/// Reads the header block and its body, which is the description (core metadata, "Description").
fn fields(text: &str) -> Vec<(&'static str, String)> {
    let text = text.replace("\r\n", "\n");
    let (head, description) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut found: Vec<(&'static str, String)> = Vec::new();
    let mut is_known = false;
    for line in head.lines() {
        if line.starts_with([' ', '\t']) {
            // A value goes on; in descriptions the lines begin with a bar.
            if let Some((_, value)) = found.last_mut().filter(|_| is_known) {
                let rest = line.trim_start();
                value.push('\n');
                value.push_str(rest.strip_prefix('|').unwrap_or(rest));
            }
            continue;
        }
        let Some((key, value)) = line.split_once(':') else { continue };
        let field = FIELDS.iter().find(|(name, _)| key.trim().eq_ignore_ascii_case(name));
        is_known = field.is_some();
        let value = value.trim();
        found.extend(field.filter(|_| value != "UNKNOWN").map(|(_, name)| (*name, value.to_owned())));
    }
    if !description.trim().is_empty() {
        found.push(("description", description.to_owned()));
    }
    found
}

/// A project's normal name (PEP 503).
fn normal(name: &str) -> String {
    let mut normal = String::new();
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            c => normal.extend(c.to_lowercase()),
        }
    }
    normal
}

/// Uploads, unless the index lists the same file.
pub(crate) async fn push(
    index: Index<'_>,
    place: &Place,
    package: &Package,
    is_sending: bool,
) -> Result<State, PublishErrorKind> {
    let About::Python(metadata) = &package.about else { unreachable!("it was read for an index of Python") };
    match listed(index, place, package, metadata).await? {
        Listed::Same => return Ok(State::WasThere),
        Listed::Other(theirs) => return Err(differs(theirs, package)),
        Listed::No if !is_sending => return Ok(State::Absent),
        Listed::No => {}
    }
    let request = upload(index, place, package, metadata).await?;
    let answer = index.client.exchange(&request, ANSWER_BYTES_MAX).await?;
    if answer.is_success() {
        return Ok(State::Sent);
    }
    let text = words(&answer).to_ascii_lowercase();
    // As twine knows them: PyPI says 400, pypiserver and devpi 409, Nexus and Artifactory words of their own.
    let is_taken = answer.status == 409
        || (matches!(answer.status, 400 | 403)
            && ["already exist", "been taken", "updating asset", "overwrite artifact"]
                .iter()
                .any(|it| text.contains(it)));
    if !is_taken {
        return Err(PublishErrorKind::of(&answer));
    }
    // Somebody was faster, or our answer was lost: the page tells.
    match listed(index, place, package, metadata).await? {
        Listed::Same => Ok(State::WasThere),
        Listed::Other(theirs) => Err(differs(theirs, package)),
        Listed::No => Err(differs("not listed".into(), package)),
    }
}

fn differs(theirs: String, package: &Package) -> PublishErrorKind {
    PublishErrorKind::Differs { theirs, ours: package.sha256.to_string() }
}

/// What the project's page says of the file.
enum Listed {
    No,
    Same,
    Other(String),
}

async fn listed(
    index: Index<'_>,
    place: &Place,
    package: &Package,
    metadata: &Metadata,
) -> Result<Listed, PublishErrorKind> {
    let url = directory(place.simple.clone()).join(&format!("{}/", normal(&metadata.name)));
    let mut request = WebRequest::get(url.map_err(PublishErrorKind::malformed)?).accept(PAGE_TYPES);
    // PyPI's tokens are for uploads alone, and its pages are open to everybody.
    if let Some(login) = index.login.filter(|_| place.simple.host_str() == place.upload.host_str()) {
        request = request.authorization(&login.basic(TOKEN_USER));
    }
    let answer = index.client.exchange(&request, PAGE_BYTES_MAX).await?;
    if !answer.is_success() {
        // Who may upload may not always look; the upload itself is refused where the file is there.
        return Ok(Listed::No);
    }
    let found = if answer.content_type.contains("json") {
        of_json(&answer.body, &package.file_name).map_err(PublishErrorKind::malformed)?
    } else {
        of_html(&String::from_utf8_lossy(&answer.body), &package.file_name)
    };
    Ok(match found {
        None => Listed::No,
        Some(Some(theirs)) if theirs == package.sha256.hex() => Listed::Same,
        Some(Some(theirs)) => Listed::Other(format!("sha256:{theirs}")),
        Some(None) => Listed::Other("its sha256 is not told".into()),
    })
}

/// The file's sha256, where it is listed and where that is told.
fn of_json(page: &[u8], file_name: &str) -> Result<Option<Option<String>>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Page {
        files: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        filename: String,
        #[serde(default)]
        hashes: std::collections::BTreeMap<String, String>,
    }
    let page: Page = serde_json::from_slice(page)?;
    let entry = page.files.into_iter().find(|entry| entry.filename == file_name);
    Ok(entry.map(|mut entry| entry.hashes.remove("sha256").map(|hex| hex.to_ascii_lowercase())))
}

/// The same of a page of anchors (PEP 503): the digest is the fragment of the link.
fn of_html(page: &str, file_name: &str) -> Option<Option<String>> {
    let links = page.split("href=").skip(1).filter_map(|rest| {
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        rest[1..].split(quote).next()
    });
    for link in links {
        let (address, fragment) = link.split_once('#').unwrap_or((link, ""));
        let last = address.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let is_it = last == file_name || last.replace("%2B", "+").replace("%2b", "+").replace("%21", "!") == file_name;
        if is_it {
            return Some(fragment.strip_prefix("sha256=").map(str::to_ascii_lowercase));
        }
    }
    None
}

/// The form that twine sends (`multipart/form-data`, RFC 7578).
async fn upload(
    index: Index<'_>,
    place: &Place,
    package: &Package,
    metadata: &Metadata,
) -> Result<WebRequest, PublishErrorKind> {
    let mut form: Vec<(&str, String)> = vec![
        (":action", "file_upload".into()),
        ("protocol_version", "1".into()),
        ("filetype", metadata.filetype.into()),
        ("pyversion", metadata.pyversion.clone()),
        ("sha256_digest", package.sha256.hex().into()),
    ];
    form.extend(metadata.fields.iter().cloned());
    // No content has it: it is made of the content's digest. Texts that have it all the same cannot be meant well.
    let boundary = format!("seatrial-{}", &package.sha256.hex()[..40]);
    if form.iter().any(|(_, value)| value.contains(&boundary)) {
        return Err(PublishErrorKind::malformed("the metadata holds its own digest"));
    }
    let (package, mark) = (package.clone(), boundary.clone());
    let (source, length) = body::write(move |out| {
        for (name, value) in form {
            write!(out, "--{mark}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")?;
        }
        let name = &package.file_name;
        write!(
            out,
            "--{mark}\r\nContent-Disposition: form-data; name=\"content\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )?;
        body::append(out, &package)?;
        write!(out, "\r\n--{mark}--\r\n")
    })
    .await?;
    let content_type = format!("multipart/form-data; boundary={boundary}");
    let mut request = WebRequest::post(place.upload.clone(), &content_type, source, length);
    if let Some(login) = index.login {
        request = request.authorization(&login.basic(TOKEN_USER));
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_as_the_upload_names_it() {
        let text = "Metadata-Version: 2.1\nName: Number.API\nVersion: 1.0\nAuthor: UNKNOWN\nClassifier: A :: B\nClassifier: C\n\
                    Unknown-Field: x\n  more of it\nLicense: MIT\n        |and more\nProject-URL: Home, https://x.example\n\nThe text.\n\nAnd more.\n";
        let expected = [
            ("metadata_version", "2.1"),
            ("name", "Number.API"),
            ("version", "1.0"),
            ("classifiers", "A :: B"),
            ("classifiers", "C"),
            ("license", "MIT\nand more"),
            ("project_urls", "Home, https://x.example"),
            ("description", "The text.\n\nAnd more.\n"),
        ];
        let found = fields(text);
        let found: Vec<_> = found.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(found, expected);
        assert_eq!(normal("Number.-_API"), "number-api");
    }

    #[test]
    fn pages_tell_what_is_there() {
        let page =
            "<a class=x href=\"../../p/a-1.0-py3-none-any.whl#sha256=AB\">a</a><a href='/p/a-1.0%2Bx.tar.gz'>b</a>";
        assert_eq!(of_html(page, "a-1.0-py3-none-any.whl"), Some(Some("ab".into())));
        assert_eq!(of_html(page, "a-1.0+x.tar.gz"), Some(None));
        assert_eq!(of_html(page, "a-2.0.tar.gz"), None);
        let page =
            br#"{"files": [{"filename": "a.whl", "hashes": {"sha256": "cd"}, "url": "x"}, {"filename": "b.whl"}]}"#;
        assert_eq!(of_json(page, "a.whl").unwrap(), Some(Some("cd".into())));
        assert_eq!(of_json(page, "b.whl").unwrap(), Some(None));
        assert_eq!(of_json(page, "c.whl").unwrap(), None);
    }
}
