//! The inventory as SPDX 2.3 JSON (spdx.github.io/spdx-spec/v2.3).

use std::collections::BTreeMap;

use oci::Digest;
use serde_json::{Map, Value, json};

use super::{About, Algorithm, Inventory, OsRelease, Package, document, licence, purl};

const NONE_SAID: &str = "NOASSERTION";
/// What others write too where a distribution's package brought the files of another ecosystem's package.
const OWNERSHIP: &str =
    "ownership-by-file-overlap: the parent package's list of files has a file by which the child package was found";

impl Inventory {
    /// An SPDX 2.3 document about an image.
    pub fn spdx(&self, about: &About<'_>) -> Value {
        let name = about.name();
        let root = format!("SPDXRef-Image-{}", &about.digest.hex()[..ID_DIGITS]);
        let mut extracted = Extracted::default();
        let mut packages = vec![image(about, &name, &root)];
        let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", &root)];
        if let Some(os) = &self.os {
            let value = operating_system(os);
            relationships.push(relationship(&root, "CONTAINS", value["SPDXID"].as_str().unwrap_or_default()));
            packages.push(value);
        }
        for found in &self.packages {
            let id = id(found);
            relationships.push(relationship(&root, "CONTAINS", &id));
            packages.push(package(found, &id, &mut extracted));
        }
        for found in &self.packages {
            let Some(owner) = found.owner.as_ref().and_then(|owner| self.by_purl(owner)) else { continue };
            let mut owns = relationship(&id(owner), "OTHER", &id(found));
            owns["comment"] = OWNERSHIP.into();
            relationships.push(owns);
        }
        let mut document = json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": name,
            "documentNamespace": format!("https://spdx.org/spdxdocs/seatrial-{}", about.uuid("spdx")),
            "creationInfo": {
                "created": about.created(),
                "creators": [concat!("Tool: seatrial-", env!("CARGO_PKG_VERSION"))],
            },
            "packages": packages,
            "relationships": relationships,
        });
        if !extracted.0.is_empty() {
            document["hasExtractedLicensingInfos"] = extracted.0.into_values().collect();
        }
        if !self.warnings.is_empty() {
            let lines: Vec<String> =
                self.warnings.iter().map(|warning| format!("{}: {}", warning.path, warning.message)).collect();
            document["comment"] = format!("could not be read:\n{}", lines.join("\n")).into();
        }
        document
    }

    fn by_purl(&self, purl: &str) -> Option<&Package> {
        self.packages
            .binary_search_by(|package| package.purl.as_str().cmp(purl))
            .ok()
            .map(|place| &self.packages[place])
    }
}

/// Digits of a hash in an identifier: enough among some thousand packages.
const ID_DIGITS: usize = 16;

/// Letters, digits, `.` and `-`; the hash tells apart what looks the same then.
fn id(package: &Package) -> String {
    let kind = package.ecosystem.as_str();
    let hash = Digest::of(package.purl.as_bytes());
    format!("SPDXRef-Package-{kind}-{}-{}", idstring(&package.name), &hash.hex()[..ID_DIGITS])
}

fn idstring(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '-' }).collect()
}

fn image(about: &About<'_>, name: &str, id: &str) -> Value {
    json!({
        "SPDXID": id,
        "name": name,
        "versionInfo": about.digest,
        "downloadLocation": NONE_SAID,
        "filesAnalyzed": false,
        "licenseConcluded": NONE_SAID,
        "licenseDeclared": NONE_SAID,
        "copyrightText": NONE_SAID,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": "SHA256", "checksumValue": about.digest.hex()}],
        "externalRefs": [reference(&purl::of_image(about.reference, about.digest, about.architecture))],
    })
}

fn operating_system(os: &OsRelease) -> Value {
    let mut value = json!({
        "SPDXID": format!("SPDXRef-OperatingSystem-{}", idstring(&os.id)),
        "name": os.id,
        "downloadLocation": NONE_SAID,
        "filesAnalyzed": false,
        "licenseConcluded": NONE_SAID,
        "licenseDeclared": NONE_SAID,
        "copyrightText": NONE_SAID,
        "primaryPackagePurpose": "OPERATING_SYSTEM",
    });
    set(&mut value, "versionInfo", os.version_id.clone().or_else(|| os.codename.clone()));
    set(&mut value, "summary", os.pretty_name.clone());
    set(&mut value, "homepage", os.homepage.as_deref().and_then(document::web).map(str::to_owned));
    value
}

fn package(package: &Package, id: &str, extracted: &mut Extracted) -> Value {
    let name = package.group.as_ref().map_or_else(|| package.name.clone(), |group| format!("{group}:{}", package.name));
    let supplier = package.supplier.as_deref().map(document::person).filter(|(name, _)| !name.is_empty());
    let mut value = json!({
        "SPDXID": id,
        "name": name,
        "supplier": match supplier {
            Some((name, Some(mail))) => format!("Person: {name} ({mail})"),
            Some((name, None)) => format!("Organization: {name}"),
            None => NONE_SAID.to_owned(),
        },
        "downloadLocation": NONE_SAID,
        "filesAnalyzed": false,
        "sourceInfo": source_info(package),
        "licenseConcluded": NONE_SAID,
        "licenseDeclared": extracted.declared(&package.licences),
        "copyrightText": NONE_SAID,
        "externalRefs": [reference(&package.purl)],
    });
    set(&mut value, "versionInfo", Some(package.version.clone()).filter(|version| !version.is_empty()));
    set(&mut value, "homepage", package.homepage.as_deref().and_then(document::web).map(str::to_owned));
    set(&mut value, "summary", package.description.clone());
    if !package.checksums.is_empty() {
        let checksum = |of: &super::Checksum| json!({"algorithm": algorithm(of.algorithm), "checksumValue": of.hex});
        value["checksums"] = package.checksums.iter().map(checksum).collect();
    }
    value
}

/// Where the package was found, and what it was built from.
fn source_info(package: &Package) -> String {
    let mut text = format!("found by {}", package.paths.join(", "));
    if let Some(layer) = &package.layer {
        text.push_str(&format!(" of layer {layer}"));
    }
    if let Some(source) = &package.source {
        let version = source.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        text.push_str(&format!("; built from {}{version}", source.name));
    }
    text
}

fn set(value: &mut Value, key: &str, text: Option<String>) {
    if let Some(text) = text {
        value[key] = text.into();
    }
}

fn reference(purl: &str) -> Value {
    json!({"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl})
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Md5 => "MD5",
        Algorithm::Sha1 => "SHA1",
        Algorithm::Sha256 => "SHA256",
        Algorithm::Sha384 => "SHA384",
        Algorithm::Sha512 => "SHA512",
    }
}

/// Licences that SPDX's list does not have, by the reference that stands for them.
#[derive(Default)]
struct Extracted(BTreeMap<String, Value>);

impl Extracted {
    /// The expression of all licences that a package declares: it holds that each of them applies.
    fn declared(&mut self, licences: &[String]) -> String {
        let mut terms: Vec<String> = Vec::new();
        for declared in licences {
            let term = licence::expression(declared).unwrap_or_else(|| self.reference(declared));
            if !terms.contains(&term) {
                terms.push(term);
            }
        }
        match terms.as_slice() {
            [] => NONE_SAID.to_owned(),
            [one] => one.clone(),
            many => many
                .iter()
                .map(|term| if term.contains(' ') { format!("({term})") } else { term.clone() })
                .collect::<Vec<_>>()
                .join(" AND "),
        }
    }

    fn reference(&mut self, declared: &str) -> String {
        let plain = idstring(declared);
        let id = if plain == declared {
            format!("LicenseRef-{plain}")
        } else {
            let short: String = plain.chars().take(NAME_CHARACTERS_MAX).collect();
            format!("LicenseRef-{short}-{}", Digest::of(declared.as_bytes()).short())
        };
        let mut info = Map::new();
        info.insert("licenseId".into(), id.clone().into());
        info.insert("extractedText".into(), declared.into());
        info.insert("name".into(), declared.into());
        self.0.insert(id.clone(), info.into());
        id
    }
}

/// Of a licence's name in its reference; the hash after it tells the rest.
const NAME_CHARACTERS_MAX: usize = 40;
