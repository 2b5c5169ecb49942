//! Java archives: what Maven noted in them, else what their manifest and name say. Archives within are read as well.

use std::{
    collections::HashMap,
    io::{self, Cursor, Read, Seek, SeekFrom},
};

use zip::ZipArchive;

use super::{
    Ecosystem, Package,
    layer::{Malformed, PACKAGES_MAX},
    pom,
};

/// Endings of archives that are laid out as jars are.
const ENDINGS: [&str; 9] = [".jar", ".war", ".ear", ".par", ".sar", ".nar", ".jpi", ".hpi", ".kar"];
/// Read of an archive to learn its entries: the largest real ones list some ten thousand in a few megabytes.
const DIRECTORY_BYTES_MAX: u64 = 16 << 20;
/// An archive within an archive is held in memory.
const NESTED_BYTES_MAX: u64 = 64 << 20;
/// Unpacked of an archive and all within it together.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;
/// Manifests and properties have some kilobytes.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// A jar in a war in an ear.
const DEPTH_MAX: usize = 3;

/// Whether a file is called as Java archives are.
pub(crate) fn is_archive(name: &str) -> bool {
    ENDINGS.iter().any(|ending| name.len() > ending.len() && name.ends_with(ending))
}

/// The packages of an archive and of those within it; `path` is the archive's, with a leading slash. What is broken within it
/// is told as a problem. At most `left_bytes` are unpacked, and what was is taken off.
pub(crate) fn parse(
    file: impl Read + Seek,
    path: &str,
    left_bytes: &mut u64,
    problems: &mut Vec<Malformed>,
) -> Result<Vec<Package>, Malformed> {
    let most = UNPACKED_BYTES_MAX.min(*left_bytes);
    let mut reading = Reading { left: most, packages: Vec::new(), problems };
    let read = reading.archive(file, path, 0);
    *left_bytes -= most - reading.left;
    read.map(|()| reading.packages)
}

/// An archive with all within it.
struct Reading<'a> {
    /// Bytes that may still be unpacked.
    left: u64,
    packages: Vec<Package>,
    problems: &'a mut Vec<Malformed>,
}

impl Reading<'_> {
    fn archive(&mut self, source: impl Read + Seek, path: &str, depth: usize) -> Result<(), Malformed> {
        let broken =
            |error: &dyn std::fmt::Display| Malformed::new(format!("{path} cannot be read as an archive: {error}"));
        let budget = std::rc::Rc::new(std::cell::Cell::new(Some(DIRECTORY_BYTES_MAX)));
        let mut archive =
            ZipArchive::new(Bounded { source, budget: budget.clone() }).map_err(|error| broken(&error))?;
        // Entries have bounds of their own.
        budget.set(None);
        let (mut manifest, mut found, mut licences) = (None, Vec::new(), HashMap::new());
        for place in 0..archive.len() {
            let Ok(entry) = archive.by_index(place) else { continue };
            let Ok(name) = entry.name().map(std::borrow::Cow::into_owned) else { continue };
            if name == "META-INF/MANIFEST.MF" {
                manifest = Some(self.text(entry)?);
            } else if name.starts_with("META-INF/maven/") && name.ends_with("/pom.properties") {
                found.extend(maven(&self.text(entry)?, path).map(|package| (directory(&name).to_owned(), package)));
            } else if name.starts_with("META-INF/maven/") && name.ends_with("/pom.xml") {
                licences.insert(directory(&name).to_owned(), pom::licences(&self.text(entry)?));
            } else if is_archive(&name) && depth < DEPTH_MAX && self.packages.len() < PACKAGES_MAX {
                let inner = format!("{path}:{name}");
                if let Err(problem) = self.nested(entry, &inner, depth) {
                    self.problems.push(problem);
                }
            }
        }
        let said = found.into_iter().map(|(directory, package)| {
            let licences = licences.remove(&directory).unwrap_or_default();
            Package { licences, ..package }
        });
        let mut found: Vec<Package> = said.collect();
        if found.is_empty() {
            found.extend(manifest.and_then(|manifest| named(&manifest, path)));
        }
        found.truncate(PACKAGES_MAX.saturating_sub(self.packages.len()));
        self.packages.append(&mut found);
        Ok(())
    }

    fn nested(&mut self, entry: impl Read, path: &str, depth: usize) -> Result<(), Malformed> {
        let limit = NESTED_BYTES_MAX.min(self.left);
        let mut bytes = Vec::new();
        let read = entry.take(limit + 1).read_to_end(&mut bytes);
        self.left = self.left.saturating_sub(bytes.len() as u64);
        read.map_err(|error| Malformed::new(format!("{path} cannot be unpacked: {error}")))?;
        if bytes.len() as u64 > limit {
            return Err(Malformed::new(format!("{path} has more than {limit} bytes")));
        }
        self.archive(Cursor::new(bytes), path, depth + 1)
    }

    fn text(&mut self, entry: impl Read) -> Result<String, Malformed> {
        let mut bytes = Vec::new();
        entry.take(TEXT_BYTES_MAX.min(self.left)).read_to_end(&mut bytes)?;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Of an entry; `pom.xml` lies beside `pom.properties`.
fn directory(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// `pom.properties`, which Maven packs into what it builds.
fn maven(properties: &str, path: &str) -> Option<Package> {
    let value = |key: &str| {
        let lines = properties.lines().map(str::trim);
        let mut values = lines.filter_map(|line| line.split_once(['=', ':']).filter(|(name, _)| name.trim() == key));
        values.next().map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    Some(Package {
        ecosystem: Ecosystem::Maven,
        group: Some(value("groupId")?),
        name: value("artifactId")?,
        version: value("version").unwrap_or_default(),
        paths: vec![path.to_owned()],
        ..Package::default()
    })
}

/// Without Maven's word: the name of the file, and the version that the name or the manifest has.
fn named(manifest: &str, path: &str) -> Option<Package> {
    let main = attributes(manifest);
    let value =
        |key: &str| main.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.clone());
    let file = path.rsplit(['/', ':']).next()?;
    let stem = ENDINGS.iter().find_map(|ending| file.strip_suffix(ending))?;
    let (name, version) = name_and_version(stem);
    if name.is_empty() {
        return None;
    }
    let said = || value("Implementation-Version").or_else(|| value("Bundle-Version"));
    let version = version.map(str::to_owned).or_else(said).unwrap_or_default();
    // Maven's purls need a group; others too take the name where nothing says.
    let group =
        value("Implementation-Vendor-Id").filter(|group| group.contains('.') && !group.contains(char::is_whitespace));
    Some(Package {
        ecosystem: Ecosystem::Maven,
        group: Some(group.unwrap_or_else(|| name.to_owned())),
        name: name.to_owned(),
        version,
        licences: value("Bundle-License").into_iter().collect(),
        supplier: value("Implementation-Vendor").or_else(|| value("Bundle-Vendor")),
        description: value("Bundle-Name").or_else(|| value("Implementation-Title")),
        paths: vec![path.to_owned()],
        ..Package::default()
    })
}

/// `commons-lang3-3.12.0` is a name and a version: the version begins with the first digit behind a hyphen.
fn name_and_version(stem: &str) -> (&str, Option<&str>) {
    let hyphens = stem.match_indices('-').map(|(place, _)| place);
    for place in hyphens {
        if place > 0 && stem[place + 1..].starts_with(|c: char| c.is_ascii_digit()) {
            return (&stem[..place], Some(&stem[place + 1..]));
        }
    }
    (stem, None)
}

/// The main section of a manifest; a line that begins with a blank goes on the one before.
fn attributes(manifest: &str) -> Vec<(String, String)> {
    let mut attributes: Vec<(String, String)> = Vec::new();
    for line in manifest.lines() {
        if line.trim().is_empty() {
            break;
        }
        match (line.strip_prefix(' '), attributes.last_mut()) {
            (Some(more), Some((_, value))) => value.push_str(more),
            _ => {
                attributes.extend(line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())))
            }
        }
    }
    attributes.retain(|(_, value)| !value.is_empty());
    attributes
}

/// A reader that gives so many bytes and then fails, until the bound is lifted.
struct Bounded<R> {
    source: R,
    budget: std::rc::Rc<std::cell::Cell<Option<u64>>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if let Some(left) = self.budget.get() {
            let left = left.checked_sub(read as u64);
            self.budget.set(Some(left.ok_or_else(|| io::Error::other("its list of entries is too long"))?));
        }
        Ok(read)
    }
}

impl<R: Seek> Seek for Bounded<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.source.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_begin_with_a_digit() {
        for (stem, expected) in [
            ("commons-lang3-3.12.0", ("commons-lang3", Some("3.12.0"))),
            ("log4j-1.2-api-2.17.0", ("log4j", Some("1.2-api-2.17.0"))),
            ("app", ("app", None)),
            ("-1", ("-1", None)),
        ] {
            assert_eq!(name_and_version(stem), expected);
        }
    }

    #[test]
    fn manifests_say_what_maven_does_not() {
        let manifest = "Manifest-Version: 1.0\r\nBundle-License: https://www.apache.org/lic\r\n enses/LICENSE-2.0\r\nBundle-Version: 2.1\r\n\
                        Implementation-Vendor-Id: org.example\r\n\r\nName: x\r\nBundle-Version: 3\r\n";
        let package = named(manifest, "/app/lib.jar:inner.jar").unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("inner", "2.1"));
        assert_eq!(package.group.as_deref(), Some("org.example"));
        assert_eq!(package.licences, ["https://www.apache.org/licenses/LICENSE-2.0"]);
        let package = maven("#Generated\ngroupId=a.b\nartifactId=c\nversion=1\n", "/x.jar").unwrap();
        assert_eq!((package.group.as_deref(), package.name.as_str()), (Some("a.b"), "c"));
        assert!(maven("groupId=a\n", "/x.jar").is_none());
    }
}
