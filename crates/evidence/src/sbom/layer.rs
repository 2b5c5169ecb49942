//! What one layer says of packages, file by file.

use std::{
    fs::File,
    io::{self, Read as _},
};

use oci::DiffId;
use serde::{Deserialize, Serialize};
use store::{ImageFiles, Stop, Store, StoreError};

use super::{
    OsRelease, Package, READERS, Warning, apk, dpkg, jar, npm, os_release, owner, program, python, remember,
    remembered,
    rpm::{self, Storage},
    source::{Counted, ReadAt},
};

/// Where layers' findings are remembered, by diff id.
const LAYERS: &str = "sbom-layer";
/// Package managers' text databases have some megabytes; what is larger is none.
const DATABASE_BYTES_MAX: u64 = 64 << 20;
/// The largest real metadata files (with a readme inside) have some hundred kilobytes.
const METADATA_BYTES_MAX: u64 = 4 << 20;
/// Read and unpacked of all files of one layer: the programs and archives of the largest real ones have some gigabytes.
const LAYER_BYTES_MAX: u64 = 8 << 30;
/// Findings of one layer; an image has thousands of packages at most.
const FINDINGS_MAX: usize = 200_000;
/// Packages that one file tells of; whole distributions have fewer.
pub(crate) const PACKAGES_MAX: usize = 100_000;
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
    /// Checksums of what npm unpacked.
    Locked(Vec<npm::Locked>),
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
    let mut left_bytes = LAYER_BYTES_MAX;
    files.visit_layer(layer, stop, &mut |file| {
        let Ok(path) = std::str::from_utf8(file.path) else { return Ok(()) };
        if !file.is_link {
            let candidate = Candidate {
                path,
                mode: file.mode,
                size_bytes: file.size_bytes,
                open: &|| file.open(),
                beside: &|name| file.open_beside(name),
            };
            found.look(&candidate, &mut left_bytes);
        }
        Ok(())
    })?;
    if is_layer {
        remember(store, LAYERS, &key, &found)?;
    }
    Ok(found)
}

/// What one file says by itself, with no more than so much read of it: its packages without their purls, and warnings.
pub(crate) fn of_file(candidate: &Candidate<'_>) -> (Vec<Package>, Vec<Warning>) {
    let mut found = Findings::default();
    found.look(candidate, &mut LAYER_BYTES_MAX.clone());
    let packages = found.findings.into_iter().flat_map(|finding| match finding.content {
        Content::Packages(packages) => packages,
        Content::Database(packages) => packages.into_iter().map(|(package, _)| package).collect(),
        Content::Os(_) | Content::Licences(_) | Content::Files(_) | Content::Locked(_) => Vec::new(),
    });
    (packages.collect(), found.warnings)
}

/// A regular file that may tell of packages.
pub(crate) struct Candidate<'a> {
    /// From the root, without a leading slash.
    pub(crate) path: &'a str,
    /// The permission bits.
    pub(crate) mode: u32,
    pub(crate) size_bytes: u64,
    pub(crate) open: &'a dyn Fn() -> io::Result<File>,
    /// Another file of the same directory.
    pub(crate) beside: &'a dyn Fn(&[u8]) -> io::Result<Option<File>>,
}

impl Findings {
    fn look(&mut self, file: &Candidate<'_>, left_bytes: &mut u64) {
        let path = file.path;
        if *left_bytes == 0 {
            return;
        }
        let Some(kind) = Kind::of(path).or_else(|| file.is_program().then_some(Kind::Program)) else { return };
        let mut problems = Vec::new();
        let content = read(file, kind, left_bytes, &mut problems);
        if *left_bytes == 0 {
            let message = format!("more than {LAYER_BYTES_MAX} bytes were to be read; the rest is left out");
            problems.push(Malformed::new(message));
        }
        problems.into_iter().for_each(|problem| self.warn(path, problem.0));
        match content {
            Ok(None) => {}
            Ok(Some(_)) if self.findings.len() >= FINDINGS_MAX => {
                self.warn(path, format!("the layer has more than {FINDINGS_MAX} such files; the rest is left out"));
            }
            Ok(Some(content)) => self.findings.push(Finding { path: path.to_owned(), content }),
            Err(malformed) => self.warn(path, malformed.0),
        }
    }

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
    NpmLock,
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
            (parent, name) if npm::is_lock(parent, name) => Some(Self::NpmLock),
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

impl Candidate<'_> {
    /// Programs are executable; libraries need not be.
    fn is_program(&self) -> bool {
        self.mode & 0o111 != 0 || self.path.rsplit('/').next().is_some_and(|name| name.contains(".so"))
    }
}

fn is_documentation(directory: &str) -> bool {
    directory.strip_prefix("usr/share/doc/").is_some_and(|package| !package.contains('/'))
}

/// The content of a file that is worth a finding. Problems with parts of it are told beside.
fn read(
    file: &Candidate<'_>,
    kind: Kind,
    left_bytes: &mut u64,
    problems: &mut Vec<Malformed>,
) -> Result<Option<Content>, Malformed> {
    let (open, path) = ((file.open)()?, file.path);
    match kind {
        Kind::Program => {
            let open = Counted::new(&open);
            let packages = program::parse(&open);
            *left_bytes = left_bytes.saturating_sub(open.read_bytes());
            return Ok(packages?.map(Content::Packages));
        }
        Kind::Jar => {
            return Ok(Some(Content::Packages(jar::parse(open, &format!("/{path}"), left_bytes, problems)?)));
        }
        Kind::Rpm(storage) => {
            let open = Counted::new(&open);
            // What SQLite has not yet written into its database stands beside it.
            let log = (storage == Storage::Sqlite).then(|| (file.beside)(b"rpmdb.sqlite-wal")).transpose()?.flatten();
            let packages =
                rpm::parse(&open, file.size_bytes, log.as_ref().map(|log| log as &dyn ReadAt), storage, problems);
            *left_bytes = left_bytes.saturating_sub(open.read_bytes());
            return Ok(Some(Content::Database(packages.into_iter().map(owner::with_evidence).collect())));
        }
        _ => {}
    }
    let is_database = matches!(kind, Kind::Dpkg | Kind::DpkgFiles | Kind::Apk | Kind::NpmLock);
    let text = text(open, if is_database { DATABASE_BYTES_MAX } else { METADATA_BYTES_MAX })?;
    *left_bytes = left_bytes.saturating_sub(text.len() as u64);
    Ok(Some(match kind {
        Kind::OsRelease => Content::Os(os_release::parse(&text)),
        Kind::Dpkg => Content::Packages(dpkg::parse(&text)?),
        Kind::DpkgFiles => Content::Files(dpkg::files(&text, path).filter(|file| may_be_evidence(file)).collect()),
        Kind::DebianCopyright => Content::Licences(dpkg::licences(&text)),
        Kind::Apk => Content::Database(apk::parse(&text)?.into_iter().map(owner::with_evidence).collect()),
        Kind::Python => Content::Packages(vec![python::parse(&text, path)?]),
        // Without a name or version it was not installed by npm.
        Kind::Npm => return Ok(npm::parse(&text)?.map(|package| Content::Packages(vec![package]))),
        Kind::NpmLock => Content::Locked(npm::locked(&text, path)?),
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
