//! Packages that npm and its kin installed: `package.json` in `node_modules`.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Algorithm, Checksum, Ecosystem, Package, layer::Malformed};

/// Where Debian puts its packages of Node.js: they are found there as in `node_modules`.
const DEBIAN: [&str; 2] = ["usr/share/nodejs/", "usr/lib/nodejs/"];

/// Whether a `package.json` in this directory is that of an installed package: the directory is an entry of `node_modules`,
/// not one of a package's own examples and tests.
pub(crate) fn is_install(directory: &str) -> bool {
    let name = match directory.rsplit_once("node_modules/") {
        Some((before, name)) if before.is_empty() || before.ends_with('/') => name,
        _ => match DEBIAN.iter().find_map(|place| directory.strip_prefix(place)) {
            Some(name) => name,
            None => return false,
        },
    };
    match name.strip_prefix('@') {
        Some(scoped) => scoped.split('/').filter(|part| !part.is_empty()).count() == 2,
        None => !name.is_empty() && !name.contains('/') && !name.starts_with('.'),
    }
}

/// The package of a `package.json`; `None` when that has no name or version, as files that only say how to load a directory.
pub(crate) fn parse(text: &str) -> Result<Option<Package>, Malformed> {
    let text = text.trim_start_matches('\u{feff}');
    let json: Value = serde_json::from_str(text).map_err(|error| Malformed::new(format!("it is no JSON: {error}")))?;
    let words = |value: &Value| value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let (Some(name), Some(version)) = (words(&json["name"]), words(&json["version"])) else { return Ok(None) };
    // A licence is a text, an object with a type, or (long ago) a list of these.
    let licence = |value: &Value| words(value).or_else(|| words(&value["type"]));
    let mut licences: Vec<String> = licence(&json["license"]).into_iter().collect();
    licences.extend(json["licenses"].as_array().into_iter().flatten().filter_map(licence));
    licences.dedup();
    let person = |value: &Value| {
        words(value).or_else(|| {
            let name = words(&value["name"])?;
            Some(words(&value["email"]).map_or_else(|| name.clone(), |email| format!("{name} <{email}>")))
        })
    };
    Ok(Some(Package {
        ecosystem: Ecosystem::Npm,
        name,
        version: version.trim_start_matches(['v', '=']).to_owned(),
        licences,
        supplier: person(&json["author"]),
        homepage: words(&json["homepage"]),
        description: words(&json["description"]),
        ..Package::default()
    }))
}

/// What a lockfile says of a package that is unpacked in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Locked {
    /// From the root, without a leading slash.
    pub(crate) directory: String,
    pub(crate) version: String,
    /// Of the archive that it came from.
    pub(crate) checksum: Checksum,
}

/// Whether a file says what npm installed beside it: `package-lock.json`, or what npm keeps within `node_modules`.
pub(crate) fn is_lock(directory: &str, name: &str) -> bool {
    match name {
        ".package-lock.json" => directory == "node_modules" || directory.ends_with("/node_modules"),
        "package-lock.json" | "npm-shrinkwrap.json" => {
            !directory.starts_with("node_modules/") && !directory.contains("/node_modules/")
        }
        _ => false,
    }
}

/// The packages of a lockfile of version 2 or 3 (npm, `package-lock.json`, "packages"); version 1 has no directories.
pub(crate) fn locked(text: &str, path: &str) -> Result<Vec<Locked>, Malformed> {
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        packages: BTreeMap<String, Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        version: Option<String>,
        integrity: Option<String>,
    }
    let lock: Lock = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| Malformed::new(format!("it is no lockfile: {error}")))?;
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    // Paths are those of the project, also in the file that lies within `node_modules`.
    let is_hidden = path.ends_with("/.package-lock.json") || path == ".package-lock.json";
    let project = if is_hidden { parent.strip_suffix("node_modules").unwrap_or(parent) } else { parent };
    let project = project.trim_end_matches('/');
    let entry = |(place, entry): (String, Entry)| {
        let directory = if project.is_empty() { place } else { format!("{project}/{place}") };
        Some(Locked { directory, version: entry.version?, checksum: integrity(&entry.integrity?)? })
    };
    Ok(lock.packages.into_iter().filter_map(entry).collect())
}

/// The strongest hash of `sha512-…` in base64 (W3C, "Subresource Integrity"); several are separated by blanks.
fn integrity(text: &str) -> Option<Checksum> {
    let one = |text: &str| {
        let (name, encoded) = text.split_once('-')?;
        let (algorithm, length) = match name {
            "sha512" => (Algorithm::Sha512, 64),
            "sha384" => (Algorithm::Sha384, 48),
            "sha256" => (Algorithm::Sha256, 32),
            "sha1" => (Algorithm::Sha1, 20),
            _ => return None,
        };
        let encoded = encoded.split('?').next()?;
        let bytes = STANDARD.decode(encoded).ok().filter(|bytes| bytes.len() == length)?;
        Some(Checksum { algorithm, hex: hex::encode(bytes) })
    };
    text.split_whitespace().filter_map(one).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockfiles_name_directories_of_the_project() {
        let text = r#"{"lockfileVersion":3,"packages":{"":{"version":"1.0.0"},
            "node_modules/@a/b":{"version":"2.0.0","integrity":"sha1-AAAAAAAAAAAAAAAAAAAAAAAAAAA= sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},
            "node_modules/c":{"version":"1.0.0","link":true},"node_modules/d":{"version":"1.0.0","integrity":"sha512-AAAA"}}}"#;
        for path in ["app/package-lock.json", "app/node_modules/.package-lock.json"] {
            let found = locked(text, path).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].directory.as_str(), found[0].version.as_str()), ("app/node_modules/@a/b", "2.0.0"));
            assert_eq!(found[0].checksum, Checksum { algorithm: Algorithm::Sha256, hex: "00".repeat(32) });
        }
        assert_eq!(locked(text, "node_modules/.package-lock.json").unwrap()[0].directory, "node_modules/@a/b");
        assert!(locked(r#"{"lockfileVersion":1,"dependencies":{"a":{"version":"1.0.0"}}}"#, "x").unwrap().is_empty());
        assert!(locked("[", "x").is_err());
        for (directory, name, expected) in [
            ("app/node_modules", ".package-lock.json", true),
            ("app", "package-lock.json", true),
            ("", "npm-shrinkwrap.json", true),
            ("app/node_modules/a", "package-lock.json", false),
            ("app", ".package-lock.json", false),
        ] {
            assert_eq!(is_lock(directory, name), expected, "{directory}/{name}");
        }
    }

    #[test]
    fn entries_of_node_modules_are_installed() {
        for (directory, expected) in [
            ("app/node_modules/left-pad", true),
            ("app/node_modules/@types/node", true),
            ("app/node_modules/a/node_modules/b", true),
            ("node_modules/a", true),
            ("usr/share/nodejs/ansi-regex", true),
            ("app/node_modules/a/test/fixture", false),
            ("app/node_modules/@types", false),
            ("app/node_modules/.cache", false),
            ("app/my_node_modules/a", false),
            ("app", false),
        ] {
            assert_eq!(is_install(directory), expected, "{directory}");
        }
    }

    #[test]
    fn licences_and_people_have_several_forms() {
        let package = |text| parse(text).unwrap().unwrap();
        let one = package(
            r#"{"name":"@a/b","version":"v1.0.0","license":{"type":"MIT"},"author":{"name":"N","email":"e@x"}}"#,
        );
        assert_eq!((one.version.as_str(), one.licences.as_slice()), ("1.0.0", ["MIT".to_owned()].as_slice()));
        assert_eq!(one.supplier.as_deref(), Some("N <e@x>"));
        assert_eq!(package(r#"{"name":"a","version":"1","licenses":[{"type":"MIT"},"ISC"]}"#).licences, ["MIT", "ISC"]);
        assert!(parse(r#"{"type":"commonjs"}"#).unwrap().is_none());
        assert!(parse("{").is_err());
        assert!(parse("[1]").unwrap().is_none());
    }
}
