//! What one layer says of packages, file by file.

use std::{fs::File, io::Read as _};

use oci::DiffId;
use serde::{Deserialize, Serialize};
use store::{ImageFiles, LayerFile, Stop, Store, StoreError};

use super::{OsRelease, Package, READERS, Warning, apk, dpkg, npm, os_release, python, remember, remembered};

/// Where layers' findings are remembered, by diff id.
const LAYERS: &str = "sbom-layer";
/// Package managers' text databases have some megabytes; what is larger is none.
const DATABASE_BYTES_MAX: u64 = 64 << 20;
/// The largest real metadata files (with a readme inside) have some hundred kilobytes.
const METADATA_BYTES_MAX: u64 = 4 << 20;
/// Findings of one layer; an image has thousands of packages at most.
const FINDINGS_MAX: usize = 200_000;
/// Warnings of one layer: a hostile image shall not fill the report.
const WARNINGS_MAX: usize = 1000;

/// What a layer's files say.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Findings {
    pub(crate) findings: Vec<Finding>,
    pub(crate) warnings: Vec<Warning>,
}

/// What one file says. It counts only while the image shows this file.
#[derive(Serialize, Deserialize)]
pub(crate) struct Finding {
    /// From the root, without a leading slash.
    pub(crate) path: String,
    pub(crate) content: Content,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Content {
    Os(OsRelease),
    Packages(Vec<Package>),
    /// Of the Debian package whose documentation this is.
    Licences(Vec<String>),
}

/// A file is not what its name says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) String);

impl Malformed {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl From<std::io::Error> for Malformed {
    fn from(error: std::io::Error) -> Self {
        Self(format!("it cannot be read: {error}"))
    }
}

/// The findings of a layer, remembered where it was read before.
pub(crate) fn findings(
    store: &Store,
    files: &ImageFiles,
    layer: usize,
    diff_id: &DiffId,
    stop: Stop<'_>,
) -> Result<Findings, StoreError> {
    let key = format!("{READERS} {diff_id}");
    // A directory with the layers below in it says more than its diff id stands for.
    let is_layer = !files.is_whole(layer);
    if is_layer && let Some(known) = remembered(store, LAYERS, &key) {
        return Ok(known);
    }
    let mut found = Findings::default();
    files.visit_layer(layer, stop, &mut |file| {
        look(file, &mut found);
        Ok(())
    })?;
    if is_layer {
        remember(store, LAYERS, &key, &found)?;
    }
    Ok(found)
}

fn look(file: &LayerFile<'_>, found: &mut Findings) {
    if file.is_link {
        return;
    }
    let Ok(path) = std::str::from_utf8(file.path) else { return };
    let Some(kind) = Kind::of(path) else { return };
    match read(file, path, kind) {
        Ok(None) => {}
        Ok(Some(_)) if found.findings.len() >= FINDINGS_MAX => {
            found.warn(path, format!("the layer has more than {FINDINGS_MAX} such files; the rest is left out"));
        }
        Ok(Some(content)) => found.findings.push(Finding { path: path.to_owned(), content }),
        Err(malformed) => found.warn(path, malformed.0),
    }
}

impl Findings {
    fn warn(&mut self, path: &str, message: String) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(Warning { path: format!("/{path}"), message });
        }
    }
}

/// What a file is by its path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    OsRelease,
    Dpkg,
    DebianCopyright,
    Apk,
    Python,
    Npm,
}

impl Kind {
    fn of(path: &str) -> Option<Self> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        match (parent, name) {
            ("etc" | "usr/lib", "os-release") => Some(Self::OsRelease),
            ("var/lib/dpkg", "status") => Some(Self::Dpkg),
            // One file for each package, beside its `.md5sums`, as images without a package manager have them.
            ("var/lib/dpkg/status.d", name) if !name.ends_with(".md5sums") => Some(Self::Dpkg),
            (parent, "copyright") if is_documentation(parent) => Some(Self::DebianCopyright),
            ("lib/apk/db" | "usr/lib/apk/db", "installed") => Some(Self::Apk),
            (parent, name) if python::is_metadata(parent, name) => Some(Self::Python),
            (parent, "package.json") if npm::is_install(parent) => Some(Self::Npm),
            _ => None,
        }
    }
}

fn is_documentation(directory: &str) -> bool {
    directory.strip_prefix("usr/share/doc/").is_some_and(|package| !package.contains('/'))
}

/// The content of a file that is worth a finding.
fn read(file: &LayerFile<'_>, path: &str, kind: Kind) -> Result<Option<Content>, Malformed> {
    let limit = if matches!(kind, Kind::Dpkg | Kind::Apk) { DATABASE_BYTES_MAX } else { METADATA_BYTES_MAX };
    let text = text(file.open()?, limit)?;
    let packages = |packages: Vec<Package>| Ok(Some(Content::Packages(packages)));
    match kind {
        Kind::OsRelease => Ok(Some(Content::Os(os_release::parse(&text)))),
        Kind::Dpkg => packages(dpkg::parse(&text)?),
        Kind::DebianCopyright => Ok(Some(Content::Licences(dpkg::licences(&text)))),
        Kind::Apk => packages(apk::parse(&text)?),
        Kind::Python => packages(vec![python::parse(&text, path)?]),
        // Without a name or version it was not installed by npm.
        Kind::Npm => Ok(npm::parse(&text)?.map(|package| Content::Packages(vec![package]))),
    }
}

/// A whole file of text; bytes that are not UTF-8 are replaced, as old databases have some.
fn text(file: File, limit_bytes: u64) -> Result<String, Malformed> {
    let mut bytes = Vec::new();
    file.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(Malformed::new(format!(
            "it has more than {limit_bytes} bytes, which is more than such files have"
        )));
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}
