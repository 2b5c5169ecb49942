//! Alpine's database of installed packages (apk-tools, `lib/apk/db/installed`): one letter, a colon and a value a line.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    Algorithm, Checksum, Ecosystem, Package, SourcePackage,
    layer::{Installed, Malformed, PACKAGES_MAX},
};

/// The packages of the database, each with the paths of its files.
pub(crate) fn parse(text: &str) -> Result<Vec<Installed>, Malformed> {
    let packages: Vec<Installed> = text.split("\n\n").filter_map(package).take(PACKAGES_MAX + 1).collect();
    if packages.len() > PACKAGES_MAX {
        return Err(Malformed::new(format!("it has more than {PACKAGES_MAX} packages")));
    }
    if packages.is_empty() && !text.trim().is_empty() {
        return Err(Malformed::new("it is no database of packages"));
    }
    Ok(packages)
}

fn package(paragraph: &str) -> Option<Installed> {
    let (mut directory, mut files) = ("", Vec::new());
    let mut package = Package { ecosystem: Ecosystem::Apk, ..Package::default() };
    for line in paragraph.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let text = || (!value.is_empty()).then(|| value.to_owned());
        match name {
            "P" => package.name = value.to_owned(),
            "V" => package.version = value.to_owned(),
            "A" => package.architecture = text(),
            "L" => package.licences.extend(text()),
            "m" => package.supplier = text(),
            "U" => package.homepage = text(),
            "T" => package.description = text(),
            "o" => package.source = text().map(|name| SourcePackage { name, version: None }),
            "C" => package.checksums.extend(checksum(value)),
            "F" => directory = value,
            "R" => files.push(format!("/{directory}/{value}")),
            _ => {}
        }
    }
    package.source = package.source.filter(|source| source.name != package.name);
    (!package.name.is_empty() && !package.version.is_empty()).then_some((package, files))
}

/// `Q1` and base64 of a SHA-1, `Q2` and base64 of a SHA-256: the hash of the package's control part.
fn checksum(value: &str) -> Option<Checksum> {
    let (kind, encoded) = value.split_at_checked(2)?;
    let (algorithm, length) = match kind {
        "Q1" => (Algorithm::Sha1, 20),
        "Q2" => (Algorithm::Sha256, 32),
        _ => return None,
    };
    let bytes = STANDARD.decode(encoded).ok().filter(|bytes| bytes.len() == length)?;
    Some(Checksum { algorithm, hex: hex::encode(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_and_their_files_are_told_apart() {
        let text = "C:Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\nF:lib\nR:ld\nZ:Q1\n\n\
                    P:ssl_client\nV:1.36.1-r2\nA:x86_64\nL:GPL-2.0-only\no:busybox\n\n";
        let (packages, files): (Vec<_>, Vec<_>) = parse(text).unwrap().into_iter().unzip();
        assert_eq!(files, [vec!["/lib/ld".to_owned()], Vec::new()]);
        assert_eq!(
            (packages[0].name.as_str(), packages[0].licences.as_slice()),
            ("musl", ["MIT".to_owned()].as_slice())
        );
        assert_eq!(packages[0].checksums[0].hex, "00".repeat(20));
        assert_eq!(packages[0].source, None);
        assert_eq!(packages[1].source.as_ref().unwrap().name, "busybox");
        assert!(parse("rubbish").is_err());
        assert!(parse("\n").unwrap().is_empty());
    }
}
