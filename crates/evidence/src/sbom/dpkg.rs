//! Debian's package database (deb-control(5), dpkg(1)) and the copyright files beside it.

use std::collections::BTreeSet;

use super::{
    Ecosystem, Package, SourcePackage,
    layer::{Malformed, PACKAGES_MAX},
    licence,
};

/// Licences of one package; the longest copyright files name some dozens.
const LICENCES_MAX: usize = 1000;

/// States in which a package's files are there, fully or in part (dpkg(1), "Package states").
const STATES: [&str; 6] =
    ["installed", "triggers-pending", "triggers-awaited", "half-configured", "unpacked", "half-installed"];

/// The installed packages of a `status` file, or the one of a file in `status.d`.
pub(crate) fn parse(text: &str) -> Result<Vec<Package>, Malformed> {
    let mut packages = Vec::new();
    let mut paragraphs = 0;
    for paragraph in paragraphs_of(text) {
        paragraphs += 1;
        packages.extend(package(paragraph));
        if packages.len() > PACKAGES_MAX {
            return Err(Malformed::new(format!("it has more than {PACKAGES_MAX} packages")));
        }
    }
    if paragraphs > 0 && packages.is_empty() && !text.contains("Package:") {
        return Err(Malformed::new("it is no database of packages"));
    }
    Ok(packages)
}

/// The paths that a package's `.list` names, or (in `status.d`) its `.md5sums`.
pub(crate) fn files<'a>(text: &'a str, path: &str) -> impl Iterator<Item = String> + 'a {
    let has_sums = path.ends_with(".md5sums");
    let paths = text
        .lines()
        .filter_map(move |line| if has_sums { line.split_once("  ").map(|(_, path)| path) } else { Some(line) });
    paths.map(|path| format!("/{}", path.trim_start_matches(['.', '/'])))
}

/// Fields of paragraphs that blank lines separate.
fn paragraphs_of(text: &str) -> impl Iterator<Item = &str> {
    // dpkg itself writes "\n\n"; lines of blanks separate as well.
    text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty())
}

/// `Name: value` of a paragraph, without continuation lines.
fn fields(paragraph: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = paragraph.lines().filter(|line| !line.starts_with([' ', '\t']));
    lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim()))
}

fn package(paragraph: &str) -> Option<Package> {
    let mut package = Package { ecosystem: Ecosystem::Deb, ..Package::default() };
    let mut source = None;
    for (name, value) in fields(paragraph) {
        let text = || (!value.is_empty()).then(|| value.to_owned());
        match name {
            "Package" => package.name = value.to_owned(),
            "Version" => package.version = value.to_owned(),
            "Architecture" => package.architecture = text(),
            "Maintainer" => package.supplier = text(),
            "Homepage" => package.homepage = text(),
            "Description" => package.description = text(),
            "Source" => source = text(),
            "Status" if !value.split_whitespace().next_back().is_some_and(|state| STATES.contains(&state)) => {
                return None;
            }
            _ => {}
        }
    }
    package.source = source.map(|source| match source.split_once(" (") {
        Some((name, version)) => {
            SourcePackage { name: name.to_owned(), version: Some(version.trim_end_matches(')').to_owned()) }
        }
        None => SourcePackage { name: source, version: None },
    });
    (!package.name.is_empty() && !package.version.is_empty()).then_some(package)
}

/// The licences that a copyright file names (Debian's machine-readable format 1.0), in the words of SPDX where these are
/// known; without that format, those whose text it points at in `/usr/share/common-licenses`.
pub(crate) fn licences(text: &str) -> Vec<String> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    let mut add = |name: String| {
        if !name.is_empty() && found.len() < LICENCES_MAX {
            found.insert(name);
        }
    };
    let is_machine_readable =
        text.lines().take(5).any(|line| line.starts_with("Format:") && line.contains("copyright-format"))
            || text.lines().any(|line| line.starts_with("License:"));
    if is_machine_readable {
        text.lines()
            .filter_map(|line| line.strip_prefix("License:"))
            .for_each(|name| add(licence::of_debian(name.trim())));
    } else {
        const PLACE: &str = "/usr/share/common-licenses/";
        for rest in text.split(PLACE).skip(1) {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-.+".contains(c))).unwrap_or(rest.len());
            add(licence::of_debian(rest[..end].trim_end_matches(['.', '-'])));
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_counts() {
        let text = "Package: a\nStatus: install ok installed\nVersion: 1:2-3\nArchitecture: amd64\nSource: aa (2-3)\n\
                    Description: one\n Package: not this\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                    Package: c\nVersion: 3\n";
        let packages = parse(text).unwrap();
        let names: Vec<_> = packages.iter().map(|package| (package.name.as_str(), package.version.as_str())).collect();
        assert_eq!(names, [("a", "1:2-3"), ("c", "3")]);
        let source = packages[0].source.as_ref().unwrap();
        assert_eq!((source.name.as_str(), source.version.as_deref()), ("aa", Some("2-3")));
        assert!(parse("\0\0\0").is_err());
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn licences_come_from_both_forms_of_copyright_files() {
        let machine = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-2+\n \
                       text\n\nFiles: a\nLicense: Expat\n\nLicense: GPL-2+\n";
        assert_eq!(licences(machine), ["GPL-2.0-or-later", "MIT"]);
        let prose = "On Debian systems see `/usr/share/common-licenses/GPL-3'. Or /usr/share/common-licenses/LGPL-2.1.";
        assert_eq!(licences(prose), ["GPL-3.0-only", "LGPL-2.1-only"]);
    }
}
