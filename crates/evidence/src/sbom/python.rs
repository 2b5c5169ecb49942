//! Installed Python distributions: core metadata in `.dist-info` (PEP 376, PEP 566) and `.egg-info` (setuptools, distutils).

use super::{Ecosystem, Package, layer::Malformed};

/// What stands in `License:` in place of a licence's name is often its whole text.
const LICENCE_NAME_BYTES_MAX: usize = 100;

/// Whether a file is the metadata of an installed distribution.
pub(crate) fn is_metadata(parent: &str, name: &str) -> bool {
    let directory = parent.rsplit('/').next().unwrap_or(parent);
    let ends_with = |suffix: &str| directory.len() > suffix.len() && directory.to_ascii_lowercase().ends_with(suffix);
    match name {
        "METADATA" => ends_with(".dist-info"),
        "PKG-INFO" => ends_with(".egg-info") || directory.eq_ignore_ascii_case("egg-info"),
        // distutils wrote a file where setuptools makes a directory.
        name => name.len() > ".egg-info".len() && name.ends_with(".egg-info"),
    }
}

/// The distribution that metadata is of. `path` is used where the metadata has no version, as distutils allowed.
pub(crate) fn parse(text: &str, path: &str) -> Result<Package, Malformed> {
    let mut package = Package { ecosystem: Ecosystem::Python, ..Package::default() };
    let (mut expression, mut named, mut classified) = (None, None, Vec::new());
    // Headers as in mail; the description follows a blank line.
    let headers = text.trim_start_matches('\u{feff}').lines().take_while(|line| !line.trim_end().is_empty());
    for line in headers.filter(|line| !line.starts_with([' ', '\t'])) {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if value.is_empty() || value == "UNKNOWN" {
            continue;
        }
        match name.to_ascii_lowercase().as_str() {
            "name" => package.name = value.to_owned(),
            "version" => package.version = value.to_owned(),
            "summary" => package.description = Some(value.to_owned()),
            "home-page" => package.homepage = Some(value.to_owned()),
            "author" | "author-email" | "maintainer" | "maintainer-email" => {
                package.supplier.get_or_insert_with(|| value.to_owned());
            }
            "license-expression" => expression = Some(value.to_owned()),
            "license" if value.len() <= LICENCE_NAME_BYTES_MAX => named = Some(value.to_owned()),
            "classifier" => classified.extend(licence_of(value)),
            _ => {}
        }
    }
    // PEP 639 supersedes the two older ways; a classifier says less than the name does.
    package.licences = match expression.or(named) {
        Some(one) => vec![one],
        None => classified,
    };
    if package.name.is_empty() {
        return Err(Malformed::new("it names no distribution"));
    }
    if package.version.is_empty() {
        package.version = version_in(path).unwrap_or_default();
    }
    Ok(package)
}

/// The licence of a classifier such as `License :: OSI Approved :: MIT License`.
fn licence_of(classifier: &str) -> Option<String> {
    let (topic, name) = classifier.rsplit_once(" :: ")?;
    let is_licence = topic.starts_with("License") && name != "OSI Approved";
    is_licence.then(|| name.to_owned())
}

/// `name-1.2.egg-info` and `name-1.2-py3.11.egg-info` have it in their name.
fn version_in(path: &str) -> Option<String> {
    let stem =
        path.split('/').rev().find_map(|part| part.strip_suffix(".egg-info").or(part.strip_suffix(".dist-info")))?;
    stem.split('-').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_known_by_its_place() {
        for (parent, name, expected) in [
            ("usr/lib/python3/dist-packages/PyYAML-6.0.dist-info", "METADATA", true),
            ("usr/lib/python3/dist-packages/PyYAML-6.0.egg-info", "PKG-INFO", true),
            ("usr/lib/python3/dist-packages", "lazr-1.0.egg-info", true),
            ("app/x.egg/EGG-INFO", "PKG-INFO", true),
            ("app/sdist", "PKG-INFO", false),
            ("app/.dist-info", "METADATA", false),
            ("app", "METADATA", false),
        ] {
            assert_eq!(is_metadata(parent, name), expected, "{parent}/{name}");
        }
    }

    #[test]
    fn headers_end_where_the_description_begins() {
        let text = "Metadata-Version: 2.1\nName: A_b\nVersion: 1.0\nLicense: UNKNOWN\nAuthor-email: a@b.c\n\
                    Classifier: License :: OSI Approved :: MIT License\n\nName: other\nVersion: 2\n";
        let package = parse(text, "x").unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("A_b", "1.0"));
        assert_eq!(package.licences, ["MIT License"]);
        assert_eq!(package.supplier.as_deref(), Some("a@b.c"));
        let package =
            parse("Name: a\nLicense-Expression: MIT OR Apache-2.0\nLicense: MIT\n", "x/a-1.2-py3.egg-info").unwrap();
        assert_eq!(
            (package.version.as_str(), package.licences.as_slice()),
            ("1.2", ["MIT OR Apache-2.0".to_owned()].as_slice())
        );
        assert!(parse("Version: 1\n", "x").is_err());
    }
}
