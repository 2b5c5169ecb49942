//! Packages of Debian, Alpine and Python that differ, read from their own databases where these changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use store::{FileDifference, Image, Store};

use crate::terminal::{table, text};

/// Databases of package managers are some megabytes; larger ones are none.
const DATABASE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Debian's database (dpkg(1)).
const DPKG: &str = "/var/lib/dpkg/status";
/// One file for each package, as images without a package manager have them.
const DPKG_DIRECTORY: &str = "/var/lib/dpkg/status.d/";
/// Alpine's database (apk-v2).
const APK: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];
/// A Python distribution is known by the name of this directory (PEP 376).
const DIST_INFO: &str = ".dist-info";
/// Distributions that are remembered; an image has hundreds.
const DISTRIBUTIONS_MAX: usize = 100_000;

/// What was noticed while files were compared.
#[derive(Default)]
pub(super) struct Packages {
    databases: BTreeSet<String>,
    /// Python distributions that only one image has: name and place to version.
    old_python: BTreeMap<(String, String), String>,
    new_python: BTreeMap<(String, String), String>,
}

/// A package that differs.
pub(super) struct Difference {
    kind: &'static str,
    name: String,
    old: Option<String>,
    new: Option<String>,
}

type Versions = BTreeMap<String, String>;

impl Packages {
    /// Looks whether a file that differs belongs to a database.
    pub(super) fn notice(&mut self, difference: &FileDifference) {
        let path = difference.path.as_str();
        if path == DPKG || APK.contains(&path) || path.starts_with(DPKG_DIRECTORY) {
            self.databases.insert(path.to_owned());
        }
        let Some(stem) = path.strip_suffix(DIST_INFO) else { return };
        let (place, stem) = stem.rsplit_once('/').unwrap_or(("", stem));
        let Some((name, version)) = stem.split_once('-') else { return };
        let side = match (&difference.old, &difference.new) {
            (None, Some(_)) => &mut self.new_python,
            (Some(_), None) => &mut self.old_python,
            _ => return,
        };
        if side.len() < DISTRIBUTIONS_MAX {
            side.insert((name.to_owned(), place.to_owned()), version.to_owned());
        }
    }

    /// Packages that were added, removed, or have another version.
    pub(super) fn differences(self, store: &Store, old: &Image, new: &Image) -> anyhow::Result<Vec<Difference>> {
        let mut found = Vec::new();
        let is_dpkg = |path: &&String| !APK.contains(&path.as_str());
        let dpkg: Vec<&String> = self.databases.iter().filter(is_dpkg).collect();
        let apk: Vec<&String> = self.databases.iter().filter(|path| !is_dpkg(path)).collect();
        for (kind, paths, parse) in [("deb", dpkg, parse_dpkg as fn(&str, &mut Reader)), ("apk", apk, parse_apk)] {
            let (mut before, mut now) = (Versions::new(), Versions::new());
            for path in paths {
                read(store, old, path, &mut before, parse)?;
                read(store, new, path, &mut now, parse)?;
            }
            found.extend(compare(kind, &before, &now));
        }
        // A distribution is the same one only in the same place.
        let flat = |side: BTreeMap<(String, String), String>| -> Versions {
            side.into_iter().map(|((name, place), version)| (format!("{name}\0{place}"), version)).collect()
        };
        let python = compare("python", &flat(self.old_python), &flat(self.new_python));
        found.extend(python.into_iter().map(|difference| Difference {
            name: difference.name.split('\0').next().unwrap_or_default().to_owned(),
            ..difference
        }));
        Ok(found)
    }
}

/// A database line by line: the package that is being read, and all so far.
#[derive(Default)]
struct Reader {
    name: Option<String>,
    version: Option<String>,
    is_installed: bool,
    all: Versions,
}

impl Reader {
    /// The package's paragraph is over.
    fn end(&mut self) {
        if let (Some(name), Some(version), true) = (self.name.take(), self.version.take(), self.is_installed) {
            self.all.insert(name, version);
        }
        (self.name, self.version, self.is_installed) = (None, None, true);
    }
}

/// deb-control(5): `Package:`, `Architecture:`, `Version:`, `Status:`, blank lines between.
fn parse_dpkg(line: &str, reader: &mut Reader) {
    match line.split_once(": ") {
        Some(("Package", name)) => reader.name = Some(name.trim().to_owned()),
        Some(("Version", version)) => reader.version = Some(version.trim().to_owned()),
        Some(("Status", status)) => reader.is_installed = status.trim().ends_with(" installed"),
        _ if line.is_empty() => reader.end(),
        _ => {}
    }
}

/// apk's index: `P:` name, `V:` version, blank lines between.
fn parse_apk(line: &str, reader: &mut Reader) {
    match line.split_once(':') {
        Some(("P", name)) => reader.name = Some(name.trim().to_owned()),
        Some(("V", version)) => reader.version = Some(version.trim().to_owned()),
        _ if line.is_empty() => reader.end(),
        _ => {}
    }
}

fn read(
    store: &Store,
    image: &Image,
    path: &str,
    versions: &mut Versions,
    parse: fn(&str, &mut Reader),
) -> anyhow::Result<()> {
    let attempt = || format!("cannot read {path} of an image");
    let Some(top) = image.top() else { return Ok(()) };
    let Some(file) = store.open_in(top, path).with_context(attempt)? else { return Ok(()) };
    let mut lines = BufReader::new(file.take(DATABASE_BYTES_MAX));
    let mut reader = Reader { is_installed: true, ..Reader::default() };
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).with_context(attempt)? == 0 {
            break;
        }
        parse(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']), &mut reader);
    }
    reader.end();
    versions.extend(reader.all);
    Ok(())
}

fn compare(kind: &'static str, old: &Versions, new: &Versions) -> Vec<Difference> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differing = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    let difference = |name: &String| Difference {
        kind,
        name: name.clone(),
        old: old.get(name).cloned(),
        new: new.get(name).cloned(),
    };
    differing.map(difference).collect()
}

/// Lines for people.
pub(super) fn lines(differences: &[Difference]) -> String {
    let rows: Vec<Vec<String>> = differences.iter().map(Difference::row).collect();
    table::columns(&rows)
}

impl Difference {
    fn row(&self) -> Vec<String> {
        let change = match (&self.old, &self.new) {
            (Some(old), Some(new)) => format!("{} → {}", text::one_line(old), text::one_line(new)),
            (None, Some(new)) => format!("new: {}", text::one_line(new)),
            (Some(old), None) => format!("gone, was {}", text::one_line(old)),
            (None, None) => String::new(),
        };
        vec![self.kind.to_owned(), text::one_line(&self.name), change]
    }

    pub(super) fn value(&self) -> Value {
        json!({"Kind": self.kind, "Name": self.name, "Old": self.old, "New": self.new})
    }
}
