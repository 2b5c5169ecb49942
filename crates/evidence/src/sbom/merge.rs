//! From what the layers say to what the image holds: only files that the image shows count.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use oci::DiffId;
use store::{ImageFiles, StoreError};

use super::{
    Checksum, Ecosystem, Inventory, OsRelease, Package,
    layer::{Content, Findings, Installed},
    npm,
    owner::Owners,
    purl,
};

/// Joins the findings of all layers, lowest first.
pub(crate) fn merge(
    files: &mut ImageFiles,
    layers: Vec<Findings>,
    diff_ids: &[DiffId],
) -> Result<Inventory, StoreError> {
    let before = Before::of(&layers);
    let mut shown = Shown::default();
    let mut warnings = BTreeSet::new();
    for (layer, findings) in layers.into_iter().enumerate() {
        for finding in findings.findings {
            if files.layer_of(finding.path.as_bytes())? == Some(layer) {
                shown.add(finding.path, layer, finding.content);
            }
        }
        for warning in findings.warnings {
            if files.layer_of(warning.path.trim_start_matches('/').as_bytes())? == Some(layer) {
                warnings.insert(warning);
            }
        }
    }
    let os = shown.os(files)?;
    let mut owners = Owners::default();
    let mut packages: BTreeMap<String, Package> = BTreeMap::new();
    for (path, layer, found) in std::mem::take(&mut shown.packages) {
        for (mut package, brought) in found {
            let origin = before.origin(&path, layer, &package);
            if package.ecosystem == Ecosystem::Deb {
                package.licences = shown.licences_of(&package.name, files)?;
            }
            if package.ecosystem == Ecosystem::Npm {
                package.checksums.extend(shown.locked_of(&path, &package.version));
            }
            package.purl = purl::of(&package, os.as_ref());
            package.layer = diff_ids.get(origin).cloned();
            owners.add(&package, brought, &mut shown.files);
            // What is within an archive has said where.
            if package.paths.is_empty() {
                package.paths.push(format!("/{path}"));
            }
            add(&mut packages, package, diff_ids);
        }
    }
    for package in packages.values_mut() {
        package.paths.sort();
        package.paths.dedup();
        package.checksums.sort();
        package.checksums.dedup();
        package.owner = owners.of(package);
    }
    Ok(Inventory { os, packages: packages.into_values().collect(), warnings: warnings.into_iter().collect() })
}

/// A package that several files tell of is one; what one of them does not say is taken from the other.
fn add(packages: &mut BTreeMap<String, Package>, package: Package, diff_ids: &[DiffId]) {
    let Some(known) = packages.get_mut(&package.purl) else {
        packages.insert(package.purl.clone(), package);
        return;
    };
    let height = |layer: &Option<DiffId>| diff_ids.iter().position(|id| Some(id) == layer.as_ref());
    if height(&package.layer) < height(&known.layer) {
        known.layer = package.layer;
    }
    known.paths.extend(package.paths);
    if known.licences.is_empty() {
        known.licences = package.licences;
    }
    known.supplier = known.supplier.take().or(package.supplier);
    known.homepage = known.homepage.take().or(package.homepage);
    known.description = known.description.take().or(package.description);
    known.checksums.extend(package.checksums);
}

/// The findings that the image shows.
#[derive(Default)]
struct Shown {
    os: HashMap<String, OsRelease>,
    licences: HashMap<String, Vec<String>>,
    /// Of Debian's packages, by the names of their lists without the ending.
    files: HashMap<String, Vec<String>>,
    packages: Vec<(String, usize, Vec<Installed>)>,
    /// What npm says of the packages that it unpacked, by their directories.
    locked: HashMap<String, npm::Locked>,
}

impl Shown {
    fn add(&mut self, path: String, layer: usize, content: Content) {
        match content {
            Content::Os(os) => drop(self.os.insert(path, os)),
            Content::Licences(licences) => drop(self.licences.insert(path, licences)),
            Content::Packages(packages) => {
                let packages = packages.into_iter().map(|package| (package, Vec::new())).collect();
                self.packages.push((path, layer, packages));
            }
            Content::Database(packages) => self.packages.push((path, layer, packages)),
            Content::Locked(entries) => {
                self.locked.extend(entries.into_iter().map(|entry| (entry.directory.clone(), entry)));
            }
            Content::Files(files) => {
                let name = path.rsplit('/').next().unwrap_or_default();
                let name = name.trim_end_matches(".list").trim_end_matches(".md5sums");
                self.files.insert(name.to_owned(), files);
            }
        }
    }

    /// `/etc/os-release` goes before `/usr/lib/os-release` (os-release(5)), to which it often is a link.
    fn os(&mut self, files: &mut ImageFiles) -> Result<Option<OsRelease>, StoreError> {
        for path in ["etc/os-release", "usr/lib/os-release"] {
            if let Some(os) = real(files, path)?.and_then(|real| self.os.remove(&real)) {
                return Ok(Some(os));
            }
        }
        Ok(None)
    }

    /// The checksum of the archive that a `package.json` came from, where npm noted one for this version.
    fn locked_of(&self, path: &str, version: &str) -> Option<Checksum> {
        let locked = self.locked.get(path.strip_suffix("/package.json")?)?;
        (locked.version == version).then(|| locked.checksum.clone())
    }

    /// The documentation of packages from one source is often a link to that of one of them.
    fn licences_of(&self, package: &str, files: &mut ImageFiles) -> Result<Vec<String>, StoreError> {
        let path = format!("usr/share/doc/{package}/copyright");
        if let Some(licences) = self.licences.get(&path) {
            return Ok(licences.clone());
        }
        Ok(real(files, &path)?.and_then(|real| self.licences.get(&real).cloned()).unwrap_or_default())
    }
}

fn real(files: &mut ImageFiles, path: &str) -> Result<Option<String>, StoreError> {
    Ok(files.resolve(path)?.and_then(|real| String::from_utf8(real).ok()))
}

/// What lower layers said at the same path: a database is written again by each layer that installs something, and a
/// package is of the lowest layer from which on it is in it.
struct Before {
    by_path: HashMap<String, BTreeMap<usize, BTreeSet<[String; 3]>>>,
}

impl Before {
    fn of(layers: &[Findings]) -> Self {
        let mut by_path: HashMap<String, BTreeMap<usize, BTreeSet<[String; 3]>>> = HashMap::new();
        for (layer, findings) in layers.iter().enumerate() {
            for finding in &findings.findings {
                let packages: BTreeSet<[String; 3]> = match &finding.content {
                    Content::Packages(packages) => packages.iter().map(identity).collect(),
                    Content::Database(packages) => packages.iter().map(|(package, _)| identity(package)).collect(),
                    Content::Os(_) | Content::Licences(_) | Content::Files(_) | Content::Locked(_) => continue,
                };
                by_path.entry(finding.path.clone()).or_default().insert(layer, packages);
            }
        }
        by_path.retain(|_, told| told.len() > 1);
        Self { by_path }
    }

    fn origin(&self, path: &str, layer: usize, package: &Package) -> usize {
        let Some(told) = self.by_path.get(path) else { return layer };
        let identity = identity(package);
        let below = told.range(..=layer).rev().take_while(|(_, packages)| packages.contains(&identity));
        below.last().map_or(layer, |(lowest, _)| *lowest)
    }
}

fn identity(package: &Package) -> [String; 3] {
    [package.name.clone(), package.version.clone(), package.architecture.clone().unwrap_or_default()]
}
