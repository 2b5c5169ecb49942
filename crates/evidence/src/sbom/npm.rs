//! Packages that npm and its kin installed: `package.json` in `node_modules`.

use serde_json::Value;

use super::{Ecosystem, Package, layer::Malformed};

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

#[cfg(test)]
mod tests {
    use super::*;

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
