//! Package URLs (purl-spec): one name for a package everywhere.

use std::fmt::Write as _;

use oci::{Digest, Platform, Reference};

use super::{Ecosystem, OsRelease, Package};

/// The purl of a package in an image of this distribution.
pub(crate) fn of(package: &Package, os: Option<&OsRelease>) -> String {
    let distribution = os.map(|os| os.id.to_lowercase());
    let (kind, namespace, name) = match package.ecosystem {
        Ecosystem::Deb => ("deb", distribution.unwrap_or_else(|| "debian".into()), package.name.to_lowercase()),
        Ecosystem::Apk => ("apk", distribution.unwrap_or_else(|| "alpine".into()), package.name.to_lowercase()),
        Ecosystem::Rpm => ("rpm", distribution.unwrap_or_default(), package.name.clone()),
        Ecosystem::Python => ("pypi", String::new(), package.name.to_lowercase().replace('_', "-")),
        // Older packages of npm have capitals; the purl-spec lowers them nonetheless.
        Ecosystem::Npm => scoped("npm", &package.name.to_lowercase()),
        Ecosystem::Cargo => ("cargo", String::new(), package.name.clone()),
        Ecosystem::Go => scoped("golang", &package.name.to_lowercase()),
        Ecosystem::Maven => ("maven", package.group.clone().unwrap_or_default(), package.name.clone()),
    };
    let mut purl = Purl::new(kind, &namespace, &name);
    let mut version = package.version.as_str();
    let mut qualifiers = Vec::new();
    if package.ecosystem == Ecosystem::Rpm
        && let Some((epoch, rest)) = version.split_once(':')
    {
        qualifiers.push(("epoch", epoch.to_owned()));
        version = rest;
    }
    if package.ecosystem.is_of_distribution() {
        qualifiers.extend(package.architecture.clone().map(|architecture| ("arch", architecture)));
        qualifiers.extend(os.map(|os| ("distro", distro(os))));
        // Not in the purl-spec, but what scanners look vulnerabilities up by.
        qualifiers.extend(package.source.as_ref().map(|source| {
            let version = source.version.as_ref().map(|version| format!("@{version}"));
            ("upstream", format!("{}{}", source.name, version.unwrap_or_default()))
        }));
    }
    purl.version(version);
    purl.qualifiers(qualifiers);
    purl.0
}

/// The purl of an image by its digest.
pub(crate) fn of_image(reference: Option<&Reference>, digest: &Digest, architecture: &str) -> String {
    let repository = reference.map(|reference| reference.repository().to_string());
    let name = repository.as_deref().and_then(|repository| repository.rsplit('/').next()).unwrap_or("image");
    let mut purl = Purl::new("oci", "", &name.to_lowercase());
    purl.version(&digest.to_string());
    let mut qualifiers = vec![("arch", architecture.to_owned())];
    qualifiers.extend(repository.clone().map(|repository| ("repository_url", repository)));
    qualifiers.extend(reference.and_then(Reference::tag).map(|tag| ("tag", tag.to_owned())));
    purl.qualifiers(qualifiers);
    purl.0
}

/// The purl of an image by its name, as BuildKit names materials: `pkg:docker/alpine@3.17?digest=…&platform=linux%2Famd64`.
pub(crate) fn of_docker(reference: &Reference, digest: &Digest, platform: &Platform) -> String {
    let plain = Reference::with_tag(reference, "latest").familiar();
    let (kind, namespace, name) = scoped("docker", plain.trim_end_matches(":latest"));
    let mut purl = Purl::new(kind, &namespace, &name);
    purl.version(reference.tag_or_latest().unwrap_or_default());
    purl.qualifiers(vec![("digest", digest.to_string()), ("platform", platform.to_string())]);
    purl.0
}

/// `debian-12`; Debian's testing has no number and goes by its name.
fn distro(os: &OsRelease) -> String {
    match os.version_id.as_ref().or(os.codename.as_ref()) {
        Some(version) => format!("{}-{version}", os.id),
        None => os.id.clone(),
    }
}

/// All but the last part of a name is the namespace.
fn scoped(kind: &'static str, name: &str) -> (&'static str, String, String) {
    match name.rsplit_once('/') {
        Some((namespace, name)) => (kind, namespace.to_owned(), name.to_owned()),
        None => (kind, String::new(), name.to_owned()),
    }
}

struct Purl(String);

impl Purl {
    fn new(kind: &str, namespace: &str, name: &str) -> Self {
        let mut purl = format!("pkg:{kind}/");
        for part in namespace.split('/').filter(|part| !part.is_empty()) {
            encode(&mut purl, part);
            purl.push('/');
        }
        encode(&mut purl, name);
        Self(purl)
    }

    fn version(&mut self, version: &str) {
        if !version.is_empty() {
            self.0.push('@');
            encode(&mut self.0, version);
        }
    }

    /// Sorted by key; those without a value are left out.
    fn qualifiers(&mut self, mut qualifiers: Vec<(&str, String)>) {
        qualifiers.sort();
        qualifiers.retain(|(_, value)| !value.is_empty());
        for (number, (key, value)) in qualifiers.iter().enumerate() {
            self.0.push(if number == 0 { '?' } else { '&' });
            self.0.push_str(key);
            self.0.push('=');
            encode(&mut self.0, value);
        }
    }
}

/// Percent-encodes all but letters, digits, `.-_~` and the colon (purl-spec, "Character encoding").
fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => out.push(char::from(byte)),
            byte => write!(out, "%{byte:02X}").expect("writing to a string cannot fail"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::SourcePackage, *};

    fn check(ecosystem: Ecosystem, name: &str, version: &str, expected: &str) {
        let package = Package { ecosystem, name: name.into(), version: version.into(), ..Package::default() };
        assert_eq!(of(&package, None), expected);
    }

    #[test]
    fn purls_follow_their_types_rules() {
        check(Ecosystem::Python, "Jaraco_Text.x", "1.0+local", "pkg:pypi/jaraco-text.x@1.0%2Blocal");
        check(Ecosystem::Npm, "@types/node", "1.0.0-rc.1", "pkg:npm/%40types/node@1.0.0-rc.1");
        check(
            Ecosystem::Go,
            "github.com/Azure/x",
            "v2.0.0+incompatible",
            "pkg:golang/github.com/azure/x@v2.0.0%2Bincompatible",
        );
        check(Ecosystem::Cargo, "Inflector", "0.11.4", "pkg:cargo/Inflector@0.11.4");
        check(Ecosystem::Deb, "g++", "1:4-1~x", "pkg:deb/debian/g%2B%2B@1:4-1~x");
        check(Ecosystem::Rpm, "a", "", "pkg:rpm/a");
    }

    #[test]
    fn a_distributions_packages_say_of_which_one() {
        let os = OsRelease { id: "fedora".into(), version_id: Some("40".into()), ..OsRelease::default() };
        let package = Package {
            ecosystem: Ecosystem::Rpm,
            name: "curl".into(),
            version: "2:7.50.3-1.fc40".into(),
            architecture: Some("x86_64".into()),
            source: Some(SourcePackage { name: "curl-7.50.3-1.fc40.src.rpm".into(), version: None }),
            ..Package::default()
        };
        let expected = "pkg:rpm/fedora/curl@7.50.3-1.fc40?arch=x86_64&distro=fedora-40&epoch=2&upstream=curl-7.50.3-1.fc40.src.rpm";
        assert_eq!(of(&package, Some(&os)), expected);
    }

    #[test]
    fn images_are_named_as_buildkit_names_them() {
        let digest = Digest::of(b"");
        let platform = "linux/arm64".parse().expect("a platform");
        let purl = |text: &str| of_docker(&text.parse().expect("a reference"), &digest, &platform);
        let rest = format!("?digest={digest}&platform=linux%2Farm64");
        assert_eq!(purl("alpine:3.17"), format!("pkg:docker/alpine@3.17{rest}"));
        assert_eq!(purl("moby/buildkit"), format!("pkg:docker/moby/buildkit@latest{rest}"));
        assert_eq!(purl("localhost:5000/team/base:1"), format!("pkg:docker/localhost:5000/team/base@1{rest}"));
        assert_eq!(purl(&format!("alpine@{digest}")), format!("pkg:docker/alpine{rest}"));
    }
}
