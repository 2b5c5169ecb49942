//! The inventory as CycloneDX 1.6 JSON (cyclonedx.org/docs/1.6/json).

use serde_json::{Value, json};

use super::{About, Algorithm, Inventory, OsRelease, Package, document, licence, purl};

impl Inventory {
    /// A CycloneDX 1.6 document about an image.
    pub fn cyclonedx(&self, about: &About<'_>) -> Value {
        let image = purl::of_image(about.reference, about.digest, about.architecture);
        let mut components: Vec<Value> = self.os.iter().map(operating_system).collect();
        components.extend(self.packages.iter().map(component));
        // What a distribution's package brought depends on that package being there.
        let mut dependencies = vec![json!({"ref": image, "dependsOn": []})];
        for package in &self.packages {
            dependencies.push(json!({"ref": package.purl, "dependsOn": package.owner.iter().collect::<Vec<_>>()}));
        }
        dependencies.retain(|entry| entry["dependsOn"].as_array().is_some_and(|on| !on.is_empty()));
        let mut document = json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": format!("urn:uuid:{}", about.uuid("cyclonedx")),
            "version": 1,
            "metadata": {
                "timestamp": about.created(),
                "lifecycles": [{"phase": "post-build"}],
                "tools": {"components": [{
                    "type": "application", "name": "seatrial", "version": env!("CARGO_PKG_VERSION"),
                }]},
                "component": {
                    "type": "container",
                    "bom-ref": image,
                    "name": about.name(),
                    "version": about.digest,
                    "purl": image,
                    "hashes": [{"alg": "SHA-256", "content": about.digest.hex()}],
                },
            },
            "components": components,
            // The reader knows the usual places and names of packages; what was merely copied in is not among them.
            "compositions": [{"aggregate": "incomplete", "assemblies": [image]}],
        });
        if !dependencies.is_empty() {
            document["dependencies"] = dependencies.into();
        }
        if !self.warnings.is_empty() {
            let warning = |warning: &super::Warning| {
                property("seatrial:unreadable", format!("{}: {}", warning.path, warning.message))
            };
            document["properties"] = self.warnings.iter().map(warning).collect();
        }
        document
    }
}

fn operating_system(os: &OsRelease) -> Value {
    let mut value = json!({"type": "operating-system", "bom-ref": format!("os:{}", os.id), "name": os.id});
    if let Some(version) = os.version_id.as_ref().or(os.codename.as_ref()) {
        value["version"] = version.as_str().into();
    }
    if let Some(name) = &os.pretty_name {
        value["description"] = name.as_str().into();
    }
    value
}

fn component(package: &Package) -> Value {
    let mut value = json!({
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "purl": package.purl,
    });
    if let Some(group) = &package.group {
        value["group"] = group.as_str().into();
    }
    if !package.version.is_empty() {
        value["version"] = package.version.as_str().into();
    }
    if let Some((name, mail)) = package.supplier.as_deref().map(document::person).filter(|(name, _)| !name.is_empty()) {
        value["supplier"] = match mail {
            Some(mail) => json!({"name": name, "contact": [{"email": mail}]}),
            None => json!({"name": name}),
        };
    }
    if let Some(description) = &package.description {
        value["description"] = description.as_str().into();
    }
    if !package.checksums.is_empty() {
        let hash = |of: &super::Checksum| json!({"alg": algorithm(of.algorithm), "content": of.hex});
        value["hashes"] = package.checksums.iter().map(hash).collect();
    }
    let licences = licences(&package.licences);
    if !licences.is_empty() {
        value["licenses"] = licences.into();
    }
    if let Some(homepage) = package.homepage.as_deref().and_then(document::web) {
        value["externalReferences"] = json!([{"type": "website", "url": homepage}]);
    }
    value["evidence"] =
        json!({"occurrences": package.paths.iter().map(|path| json!({"location": path})).collect::<Vec<_>>()});
    value["properties"] = properties(package).into();
    value
}

fn properties(package: &Package) -> Vec<Value> {
    let mut properties = vec![property("seatrial:ecosystem", package.ecosystem.as_str().to_owned())];
    properties.extend(package.layer.iter().map(|layer| property("seatrial:layer", layer.to_string())));
    properties.extend(package.owner.iter().map(|owner| property("seatrial:owner", owner.clone())));
    if let Some(source) = &package.source {
        let version = source.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        properties.push(property("seatrial:source", format!("{}{version}", source.name)));
    }
    properties
}

fn property(name: &str, value: String) -> Value {
    json!({"name": name, "value": value})
}

/// One expression, or a list of licences: the format takes no list of expressions.
fn licences(declared: &[String]) -> Vec<Value> {
    if let [one] = declared
        && let Some(expression) = licence::expression(one)
        && expression.contains(' ')
    {
        return vec![json!({"expression": expression, "acknowledgement": "declared"})];
    }
    let one = |declared: &String| {
        let mut licence = match licence::expression(declared) {
            Some(id) if licence::is_listed(&id) => json!({"id": id}),
            _ => json!({"name": declared}),
        };
        licence["acknowledgement"] = "declared".into();
        json!({"license": licence})
    };
    let mut all: Vec<Value> = declared.iter().map(one).collect();
    all.dedup();
    all
}

fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Md5 => "MD5",
        Algorithm::Sha1 => "SHA-1",
        Algorithm::Sha256 => "SHA-256",
        Algorithm::Sha384 => "SHA-384",
        Algorithm::Sha512 => "SHA-512",
    }
}
