//! Packages as a list that compares: from an inventory, or from a document about the image, ours or another tool's.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Inventory;

/// A package of a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// `deb`, `python`, …: our words where we have one ([`super::Ecosystem::as_str`]), else the purl's type.
    pub kind: String,
    /// Its name, with npm's scope, Go's path, or Maven's group before a colon.
    pub name: String,
    /// Its version, with an epoch before a colon.
    pub version: String,
}

/// Packages of one document; more is an attempt to fill memory.
const PACKAGES_MAX: usize = 200_000;
/// Types of purls that are no packages of an image but images.
const IMAGES: [&str; 2] = ["oci", "docker"];

impl Inventory {
    /// The packages as a list.
    pub fn listed(&self) -> BTreeSet<Listed> {
        self.packages.iter().filter_map(|package| Listed::of_purl(&package.purl)).collect()
    }
}

/// The packages that an SPDX 2 or CycloneDX document lists by their purls; `None` for what is neither.
pub fn read_document(document: &Value) -> Option<BTreeSet<Listed>> {
    let list = |name: &str| document[name].as_array().map(Vec::as_slice).unwrap_or_default();
    if document["spdxVersion"].as_str().is_some_and(|version| version.starts_with("SPDX-2")) {
        let purl = |package: &Value| {
            let references = package["externalRefs"].as_array()?;
            let found = references.iter().find(|reference| reference["referenceType"] == "purl")?;
            Listed::of_purl(found["referenceLocator"].as_str()?)
        };
        return Some(list("packages").iter().take(PACKAGES_MAX).filter_map(purl).collect());
    }
    if document["bomFormat"] == "CycloneDX" {
        let purl = |component: &Value| Listed::of_purl(component["purl"].as_str()?);
        return Some(list("components").iter().take(PACKAGES_MAX).filter_map(purl).collect());
    }
    None
}

impl Listed {
    /// Reads a purl (purl-spec, "How to parse a purl string in its components").
    fn of_purl(purl: &str) -> Option<Self> {
        let rest = purl.strip_prefix("pkg:")?.trim_start_matches('/');
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (rest, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
        let (kind, rest) = rest.split_once('/')?;
        let (path, version) = rest.rsplit_once('@').filter(|(path, _)| !path.is_empty()).unwrap_or((rest, ""));
        let (namespace, name) = path.trim_matches('/').rsplit_once('/').unwrap_or(("", path.trim_matches('/')));
        let (kind, namespace, name) = (kind.to_ascii_lowercase(), decode(namespace), decode(name));
        if name.is_empty() || IMAGES.contains(&kind.as_str()) {
            return None;
        }
        let full_name = match kind.as_str() {
            // The namespace is the distribution.
            "deb" | "apk" | "rpm" => name,
            _ if namespace.is_empty() => name,
            "maven" => format!("{namespace}:{name}"),
            _ => format!("{namespace}/{name}"),
        };
        let epoch = qualifiers.split('&').find_map(|pair| pair.strip_prefix("epoch=")).filter(|epoch| *epoch != "0");
        let version = match epoch {
            Some(epoch) => format!("{}:{}", decode(epoch), decode(version)),
            None => decode(version),
        };
        let kind = match kind.as_str() {
            "pypi" => "python".to_owned(),
            "golang" => "go".to_owned(),
            _ => kind,
        };
        Some(Self { kind, name: full_name, version })
    }
}

/// Percent-decodes.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn purls_of_all_kinds_are_read() {
        for (purl, expected) in [
            ("pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12", "deb libc6 2.36-9+deb12u4"),
            ("pkg:deb/debian/zlib1g@1:1.2.13?arch=amd64", "deb zlib1g 1:1.2.13"),
            ("pkg:rpm/fedora/bash@5.2-1.fc40?arch=x86_64&epoch=1", "rpm bash 1:5.2-1.fc40"),
            ("pkg:pypi/flask@3.0.1", "python flask 3.0.1"),
            ("pkg:npm/%40types/node@20.1.0", "npm @types/node 20.1.0"),
            ("pkg:npm/@types/node@20.1.0", "npm @types/node 20.1.0"),
            ("pkg:golang/golang.org/x/net@v0.1.0#http2", "go golang.org/x/net v0.1.0"),
            ("pkg:maven/org.slf4j/slf4j-api@2.0", "maven org.slf4j:slf4j-api 2.0"),
            ("pkg:gem/rails@7", "gem rails 7"),
            ("pkg:cargo/serde", "cargo serde "),
        ] {
            let found = Listed::of_purl(purl).map(|found| format!("{} {} {}", found.kind, found.name, found.version));
            assert_eq!(found.as_deref(), Some(expected), "{purl}");
        }
        for purl in ["pkg:oci/app@sha256:00", "libc6", "pkg:deb", "pkg:deb/"] {
            assert_eq!(Listed::of_purl(purl), None, "{purl}");
        }
    }

    #[test]
    fn documents_of_both_formats_are_read() {
        let purl = "pkg:npm/a@1";
        let spdx = json!({"spdxVersion": "SPDX-2.3", "packages": [
            {"externalRefs": [{"referenceType": "cpe23Type", "referenceLocator": "cpe"},
                              {"referenceType": "purl", "referenceLocator": purl}]},
            {"name": "without"},
        ]});
        let cyclonedx = json!({"bomFormat": "CycloneDX", "components": [{"purl": purl}, {"name": "without"}]});
        assert_eq!(read_document(&spdx), read_document(&cyclonedx));
        assert_eq!(read_document(&spdx).map(|found| found.len()), Some(1));
        assert_eq!(read_document(&json!({"packages": []})), None);
    }
}
