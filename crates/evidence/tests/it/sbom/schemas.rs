//! Validation against the formats' own schemas (see `tests/schemas/README.md`).

use std::sync::LazyLock;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

const SPDX: &str = "http://spdx.org/rdf/terms/2.3";
const CYCLONEDX: &str = "http://cyclonedx.org/schema/bom-1.6.schema.json";

struct Known {
    schemas: Schemas,
    spdx: SchemaIndex,
    cyclonedx: SchemaIndex,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let mut compiler = Compiler::new();
    // Times and addresses are checked as well.
    compiler.enable_format_assertions();
    for (name, text) in [
        (SPDX, include_str!("../../schemas/spdx-2.3.schema.json")),
        (CYCLONEDX, include_str!("../../schemas/bom-1.6.schema.json")),
        ("http://cyclonedx.org/schema/spdx.schema.json", include_str!("../../schemas/spdx.schema.json")),
        ("http://cyclonedx.org/schema/jsf-0.82.schema.json", include_str!("../../schemas/jsf-0.82.schema.json")),
    ] {
        compiler.add_resource(name, serde_json::from_str(text).unwrap()).unwrap();
    }
    let mut schemas = Schemas::new();
    let spdx = compiler.compile(SPDX, &mut schemas).unwrap();
    let cyclonedx = compiler.compile(CYCLONEDX, &mut schemas).unwrap();
    Known { schemas, spdx, cyclonedx }
});

fn validate(document: &Value, schema: SchemaIndex) {
    if let Err(error) = KNOWN.schemas.validate(document, schema) {
        panic!("{error:#}");
    }
}

/// SPDX 2.3; beyond the schema, every reference has to lead somewhere.
pub(crate) fn spdx(document: &Value) {
    validate(document, KNOWN.spdx);
    let packages = document["packages"].as_array().unwrap();
    let ids: Vec<&str> = packages.iter().map(|package| package["SPDXID"].as_str().unwrap()).collect();
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "an identifier is used twice");
    for relationship in document["relationships"].as_array().unwrap() {
        for end in ["spdxElementId", "relatedSpdxElement"] {
            let id = relationship[end].as_str().unwrap();
            assert!(id == "SPDXRef-DOCUMENT" || unique.binary_search(&id).is_ok(), "{id} is nowhere");
        }
    }
    let text = document["packages"].to_string();
    for info in document["hasExtractedLicensingInfos"].as_array().into_iter().flatten() {
        assert!(text.contains(info["licenseId"].as_str().unwrap()));
    }
}

/// CycloneDX 1.6.
pub(crate) fn cyclonedx(document: &Value) {
    validate(document, KNOWN.cyclonedx);
}
