//! Software bill of materials: which packages an image holds, read from its files without running anything.
//!
//! [`inventory`] finds them; [`Inventory::spdx`] and [`Inventory::cyclonedx`] write them down, as predicates of
//! [`crate::predicate::SPDX`] and [`crate::predicate::CYCLONEDX`]. What one layer holds is
//! remembered by its diff id, so that only layers that were never seen are walked.

mod apk;
mod cyclonedx;
mod document;
mod dpkg;
mod elf;
mod jar;
mod layer;
mod licence;
mod listed;
mod merge;
mod npm;
mod order;
mod os_release;
mod owner;
mod pom;
mod program;
pub(crate) mod purl;
mod python;
mod rpm;
mod source;
mod spdx;

use std::{fs::File, io::Seek as _};

use oci::DiffId;
use serde::{Deserialize, Serialize};
use store::{Image, Stop, Store, StoreError};

pub use document::About;
pub use listed::{Listed, read_document};
pub use order::compare_versions;
pub use os_release::OsRelease;

/// Part of the keys of remembered findings: another reader may find other packages.
const READERS: u32 = 3;
/// Where whole inventories are remembered, by the layers' diff ids.
const IMAGES: &str = "sbom-image";
/// Inventories remembered in each of a namespace's 256 parts; an inventory has some hundred kilobytes.
const REMEMBERED_PER_PART: usize = 8;

/// What is installed in an image. Sorted, and the same for the same layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// What `/etc/os-release` says.
    pub os: Option<OsRelease>,
    /// By purl; each purl once.
    pub packages: Vec<Package>,
    /// What could not be read, so that nobody takes the list for more than it is.
    pub warnings: Vec<Warning>,
}

/// One installed package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Package {
    /// Whose naming and versions it follows.
    pub ecosystem: Ecosystem,
    /// As its ecosystem writes it: `libc6`, `@types/node`, `golang.org/x/net`.
    pub name: String,
    /// As its ecosystem writes it, with a Debian or RPM epoch before a colon. Empty when the package does not say.
    pub version: String,
    /// Maven's group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The one name for it everywhere (purl-spec).
    pub purl: String,
    /// Architecture in the words of its ecosystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Licences as the package declares them, each an SPDX expression or any text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<String>,
    /// Maintainer, vendor or author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supplier: Option<String>,
    /// Page about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    /// One line about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The package that it was built from, where that has another name or version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourcePackage>,
    /// Checksums of what was installed, where its ecosystem notes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checksums: Vec<Checksum>,
    /// The lowest layer that has it in this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<DiffId>,
    /// Files that say so, with a leading slash.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Purl of the distribution's package that brought these files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// Where packages come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ecosystem {
    /// Debian and its kin.
    #[default]
    Deb,
    /// Alpine and its kin.
    Apk,
    /// Fedora, SUSE and their kin.
    Rpm,
    /// The Python Package Index.
    Python,
    /// The npm registry.
    Npm,
    /// crates.io.
    Cargo,
    /// Go modules.
    Go,
    /// Maven repositories.
    Maven,
}

impl Ecosystem {
    /// The word for it in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Apk => "apk",
            Self::Rpm => "rpm",
            Self::Python => "python",
            Self::Npm => "npm",
            Self::Cargo => "cargo",
            Self::Go => "go",
            Self::Maven => "maven",
        }
    }

    /// Whether a distribution's package manager installs these.
    pub fn is_of_distribution(self) -> bool {
        matches!(self, Self::Deb | Self::Apk | Self::Rpm)
    }
}

/// What a package was built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePackage {
    /// Its name; for RPM the file name of the source package.
    pub name: String,
    /// Its version, where it is not the package's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A hash of what was installed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Checksum {
    /// Which hash.
    pub algorithm: Algorithm,
    /// In lower-case hexadecimal digits.
    pub hex: String,
}

/// Hashes that both formats know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// MD5, as old RPMs have it.
    Md5,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// Something of the image that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Warning {
    /// The file, with a leading slash.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// The packages of an image could not be found out.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the packages of image {image}")]
pub struct InventoryError {
    /// Its id.
    pub image: oci::Digest,
    /// Why not.
    #[source]
    pub source: StoreError,
}

/// Finds the packages of an image. What the image holds is read with bounds, and what cannot be read becomes a warning.
///
/// # Errors
/// The store cannot be read, or it was stopped.
pub fn inventory(store: &Store, image: &Image, stop: Stop<'_>) -> Result<Inventory, InventoryError> {
    find(store, image, stop).map_err(|source| InventoryError { image: image.id.clone(), source })
}

/// What one regular file by itself says of packages, as the file of an image with this path (without a leading slash) and these
/// permission bits: the packages without purls, layers and owners, and what could not be read. `log` is SQLite's, which stands
/// beside its database.
pub fn packages_of_file(path: &str, mode: u32, file: &File, log: Option<&File>) -> (Vec<Package>, Vec<Warning>) {
    let size_bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let beside = |_: &[u8]| log.map(File::try_clone).transpose();
    // Descriptors of one file share their place in it.
    let open = || file.try_clone().and_then(|mut file| file.rewind().map(|()| file));
    layer::of_file(&layer::Candidate { path, mode, size_bytes, open: &open, beside: &beside })
}

/// When the image says that it was made, in seconds since 1970; without that, the time that its files are bounded by.
pub fn created_s(image: &Image) -> i64 {
    let said = image.config.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    said.or_else(|| jiff::Timestamp::try_from(image.epoch).ok()).unwrap_or_default().as_second()
}

fn find(store: &Store, image: &Image, stop: Stop<'_>) -> Result<Inventory, StoreError> {
    let diff_ids = &image.config.rootfs.diff_ids;
    let key = diff_ids.iter().fold(format!("{READERS}"), |key, diff_id| format!("{key} {diff_id}"));
    if let Some(known) = remembered(store, IMAGES, &key) {
        return Ok(known);
    }
    let mut files = store.files(image)?;
    let mut layers = Vec::new();
    for (number, diff_id) in diff_ids.iter().enumerate() {
        layers.push(layer::findings(store, &files, number, diff_id, stop)?);
    }
    let inventory = merge::merge(&mut files, layers, diff_ids)?;
    remember(store, IMAGES, &key, &inventory)?;
    Ok(inventory)
}

fn remembered<T: serde::de::DeserializeOwned>(store: &Store, namespace: &str, key: &str) -> Option<T> {
    serde_json::from_slice(&store.memo_get(namespace, key)?).ok()
}

fn remember(store: &Store, namespace: &str, key: &str, value: &impl Serialize) -> Result<(), StoreError> {
    let value = serde_json::to_vec(value).expect("findings are plain data");
    store.memo_put_bounded(namespace, key, &value, REMEMBERED_PER_PART, None)
}
