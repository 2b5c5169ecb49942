//! Versions from package files, and their order.

pub use registry::{Ordered, of_tag};

use std::{io::Read, path::Path};

/// Package files are small; a version beyond the first mebibyte is not looked for.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why there is no version.
#[derive(Debug, thiserror::Error)]
pub enum VersionFileError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// The file has no version where its kind has one.
    #[error("{0}")]
    NotFound(String),
}

/// The version in `package.json`, `Cargo.toml`, `pyproject.toml`, other JSON and TOML files with `version` at the top,
/// `setup.cfg`, or a file that holds nothing else.
///
/// # Errors
/// The file is unreadable or has no version.
pub fn from_file(path: &Path) -> Result<String, VersionFileError> {
    let mut text = String::new();
    fs_err::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let not_found = |what: &str| VersionFileError::NotFound(format!("`{name}` has no {what}"));
    if name.ends_with(".json") {
        let json: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| VersionFileError::NotFound(format!("`{name}`: {error}")))?;
        return json["version"].as_str().map(str::to_owned).ok_or_else(|| not_found("`version`"));
    }
    if name.ends_with(".toml") {
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| VersionFileError::NotFound(format!("`{name}`: {}", error.message())))?;
        let places: [&[&str]; 5] = [
            &["project", "version"],
            &["package", "version"],
            &["workspace", "package", "version"],
            &["tool", "poetry", "version"],
            &["version"],
        ];
        let find = |path: &[&str]| {
            let (last, parents) = path.split_last()?;
            let table = parents.iter().try_fold(&table, |table, key| table.get(*key)?.as_table())?;
            table.get(*last)?.as_str().map(str::to_owned)
        };
        return places.iter().find_map(|path| find(path)).ok_or_else(|| not_found("`version` where it is usual"));
    }
    if name.ends_with(".cfg") || name.ends_with(".ini") {
        return text
            .lines()
            .filter_map(|line| line.split_once('='))
            .find(|(key, _)| key.trim() == "version")
            .map(|(_, value)| value.trim().to_owned())
            .ok_or_else(|| not_found("`version =`"));
    }
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(VersionFileError::NotFound(format!("`{name}` holds more than a version alone")));
    }
    Ok(text.to_owned())
}

/// For ordering: anything that reads as a semantic version is higher than anything that does not.
pub(crate) fn semantic(tag: &str) -> Option<semver::Version> {
    let version = of_tag(tag);
    semver::Version::parse(version).ok().or_else(|| {
        let (main, rest) = version.split_at(version.find(['-', '+']).unwrap_or(version.len()));
        let parts = main.split('.').count();
        (parts < 3).then(|| semver::Version::parse(&format!("{main}{}{rest}", ".0".repeat(3 - parts))).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_package_files() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, text, expected) in [
            ("package.json", r#"{"name": "a", "version": "1.2.3"}"#, Some("1.2.3")),
            ("Cargo.toml", "[package]\nversion = \"0.1.0\"\n", Some("0.1.0")),
            ("pyproject.toml", "[project]\nname='x'\nversion='2.0'\n", Some("2.0")),
            ("setup.cfg", "[metadata]\nname = a\nversion = 3.1\n", Some("3.1")),
            ("VERSION", "4.5.6\n", Some("4.5.6")),
            ("package.json", "{}", None),
            ("package.json", "{", None),
            ("pyproject.toml", "[project]\ndynamic=['version']\n", None),
            ("README", "not a version", None),
        ] {
            let path = dir.path().join(name);
            fs_err::write(&path, text).expect("written");
            assert_eq!(from_file(&path).ok().as_deref(), expected, "{name}: {text}");
        }
        assert!(from_file(&dir.path().join("absent.json")).is_err());
    }

    #[test]
    fn tags_name_versions() {
        for (tag, version) in [
            ("v1.2.3", "1.2.3"),
            ("1.2", "1.2"),
            ("release-2.0", "2.0"),
            ("app/v1.0", "1.0"),
            ("vnext", "vnext"),
            ("latest", "latest"),
        ] {
            assert_eq!(of_tag(tag), version);
        }
        assert!(semantic("v1.10.0") > semantic("v1.9.0"));
        assert!(semantic("v1.0.0") > semantic("v1.0.0-rc1"));
        assert!(semantic("1.2") > semantic("nightly"));
    }
}
