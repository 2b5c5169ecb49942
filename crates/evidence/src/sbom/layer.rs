//! What one layer says of packages, file by file.

use std::{fs::File, io::Read as _};

use oci::DiffId;
use serde::{Deserialize, Serialize};
use store::{ImageFiles, LayerFile, Stop, Store, StoreError};

use super::{
    OsRelease, Package, READERS, Warning, apk, dpkg, jar, npm, os_release, owner, program, python, remember,
    remembered,
    rpm::{self, Storage},
};

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
    /// A distribution's packages, each with the files of it that may be found to be packages themselves.
    Database(Vec<Installed>),
    /// The same files of a Debian package, which keeps its list beside the database; its name is the file's.
    Files(Vec<String>),
}

/// A distribution's package with the absolute paths of its files.
pub(crate) type Installed = (Package, Vec<String>);

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
    let Some(kind) = Kind::of(path).or_else(|| is_program(file, path).then_some(Kind::Program)) else { return };
    let mut problems = Vec::new();
    let content = read(file, path, kind, &mut problems);
    problems.into_iter().for_each(|problem| found.warn(path, problem.0));
    match content {
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
    DpkgFiles,
    Apk,
    Rpm(Storage),
    Python,
    Npm,
    Jar,
    Program,
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
            ("var/lib/dpkg/info", name) if name.ends_with(".list") => Some(Self::DpkgFiles),
            ("var/lib/dpkg/status.d", _) => Some(Self::DpkgFiles),
            ("lib/apk/db" | "usr/lib/apk/db", "installed") => Some(Self::Apk),
            (parent, name) if python::is_metadata(parent, name) => Some(Self::Python),
            (parent, "package.json") if npm::is_install(parent) => Some(Self::Npm),
            (_, name) if jar::is_archive(name) => Some(Self::Jar),
            (parent, name) => Storage::of(parent, name).map(Self::Rpm),
        }
    }
}

/// Whether packages may be found by a file of this path: those of a distribution's package are noted, to know them as its own.
pub(crate) fn may_be_evidence(path: &str) -> bool {
    let path = path.trim_start_matches('/');
    let is_metadata = matches!(Kind::of(path), Some(Kind::Python | Kind::Npm | Kind::Jar));
    is_metadata || path.contains("bin/") || path.contains("/libexec/") || path.contains(".so")
}

/// Programs are executable; libraries need not be.
fn is_program(file: &LayerFile<'_>, path: &str) -> bool {
    file.mode & 0o111 != 0 || path.rsplit('/').next().is_some_and(|name| name.contains(".so"))
}

fn is_documentation(directory: &str) -> bool {
    directory.strip_prefix("usr/share/doc/").is_some_and(|package| !package.contains('/'))
}

/// The content of a file that is worth a finding. Problems with parts of it are told beside.
fn read(
    file: &LayerFile<'_>,
    path: &str,
    kind: Kind,
    problems: &mut Vec<Malformed>,
) -> Result<Option<Content>, Malformed> {
    let open = file.open()?;
    match kind {
        Kind::Program => return Ok(program::parse(&open)?.map(Content::Packages)),
        Kind::Jar => {
            return Ok(Some(Content::Packages(jar::parse(open, &format!("/{path}"), problems)?)));
        }
        Kind::Rpm(storage) => {
            let packages = rpm::parse(&open, file.size_bytes, storage, problems);
            return Ok(Some(Content::Database(packages.into_iter().map(owner::with_evidence).collect())));
        }
        _ => {}
    }
    let is_database = matches!(kind, Kind::Dpkg | Kind::DpkgFiles | Kind::Apk);
    let text = text(open, if is_database { DATABASE_BYTES_MAX } else { METADATA_BYTES_MAX })?;
    Ok(Some(match kind {
        Kind::OsRelease => Content::Os(os_release::parse(&text)),
        Kind::Dpkg => Content::Packages(dpkg::parse(&text)?),
        Kind::DpkgFiles => Content::Files(dpkg::files(&text, path).filter(|file| may_be_evidence(file)).collect()),
        Kind::DebianCopyright => Content::Licences(dpkg::licences(&text)),
        Kind::Apk => Content::Database(apk::parse(&text)?.into_iter().map(owner::with_evidence).collect()),
        Kind::Python => Content::Packages(vec![python::parse(&text, path)?]),
        // Without a name or version it was not installed by npm.
        Kind::Npm => return Ok(npm::parse(&text)?.map(|package| Content::Packages(vec![package]))),
        Kind::Program | Kind::Jar | Kind::Rpm(_) => return Ok(None),
    }))
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
