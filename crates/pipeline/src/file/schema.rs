//! The JSON Schema of the file, from its types.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{
    JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema, transform::RecursiveTransform,
};
use serde_json::Value;

use super::{
    Before, Build, Environment, Flavor, Gate, Health, ImageEntry, PipelineFile, Publish, PublishFiles, SetupStep, Sign,
    Tag, TrustRule, VersionRule, WhenRule,
};
use crate::version::DescribeForm;

/// Name of the schema, for the modeline `# yaml-language-server: $schema=…` and `$id`.
pub const SCHEMA_ID: &str = "seatrial.schema.json";

/// The JSON Schema (draft 2020-12) of `seatrial.yaml`.
pub fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let mut schema = generator.into_root_schema_for::<PipelineFile>();
    schemars::transform::transform_subschemas(&mut RecursiveTransform(allow_own_keys), &mut schema);
    allow_own_keys(&mut schema);
    schema.insert("$id".into(), SCHEMA_ID.into());
    schema.to_value()
}

/// `x-…` may stand in every map of ours.
fn allow_own_keys(schema: &mut Schema) {
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        schema.insert("patternProperties".into(), serde_json::json!({"^x-": {}}));
    }
}

/// Defines a form that is written down rather than derived.
macro_rules! form {
    ($name:ident, $schema:tt) => {
        pub(super) struct $name;
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

form!(DurationForm, { "type": "string", "pattern": r"^(0|([0-9.]+(ns|us|µs|ms|s|m|h|d))+)$", "examples": ["2s", "1m30s"] });
form!(SizeForm, { "type": ["string", "integer"], "examples": ["300MB"] });
form!(TextsForm, {
    "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": ["string", "number", "boolean"] } }]
});
form!(EventsForm, {
    "anyOf": [
        { "enum": ["push", "tag", "pull_request", "schedule"] },
        { "type": "array", "items": { "enum": ["push", "tag", "pull_request", "schedule"] } }
    ]
});
form!(PairsForm, {
    "anyOf": [
        { "type": "object", "additionalProperties": { "type": ["string", "number", "boolean", "null"] } },
        { "type": "array", "items": { "type": "string" } },
        { "type": "string" }
    ]
});
form!(NumberForm, { "type": ["number", "string"] });
form!(UlimitsForm, {
    "type": "object",
    "additionalProperties": {
        "anyOf": [
            { "type": "integer" },
            {
                "type": "object",
                "properties": { "soft": { "type": "integer" }, "hard": { "type": "integer" } },
                "required": ["soft", "hard"],
                "additionalProperties": false
            }
        ]
    }
});
form!(SecretForm, {
    "anyOf": [
        { "type": "string" },
        {
            "type": "object",
            "properties": {
                "source": { "type": "string", "description": "Name of the secret." },
                "target": { "type": "string", "description": "Name below `/run/secrets`, or absolute path. Default: the secret's name." },
                "uid": { "type": ["string", "integer"], "description": "Owner. Default: 0." },
                "gid": { "type": ["string", "integer"], "description": "Group. Default: 0." },
                "mode": { "type": ["string", "integer"], "description": "Permission bits, octal. Default: 0444." }
            },
            "required": ["source"],
            "additionalProperties": false
        }
    ]
});
form!(MatrixForm, {
    "type": "object",
    "properties": {
        "include": { "type": "array", "items": { "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } } },
        "exclude": { "type": "array", "items": { "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] } } }
    },
    "additionalProperties": { "type": "array", "items": { "type": ["string", "number", "boolean"] } }
});
form!(UsesForm, {
    "anyOf": [
        { "type": "string" },
        { "type": "array", "items": { "type": "string" } },
        {
            "type": "object",
            "properties": {
                "fresh": {
                    "description": "Started for this gate alone, with all that they need.",
                    "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
                }
            },
            "required": ["fresh"],
            "additionalProperties": false
        }
    ]
});
form!(NetworkForm, { "enum": ["default", "none", "host"] });
form!(MountForm, {
    "anyOf": [
        { "type": "string" },
        {
            "type": "object",
            "properties": {
                "source": { "type": "string", "description": "Path relative to the pipeline file." },
                "target": { "type": "string", "description": "Path inside. Default: the source, below the working directory." },
                "read_only": { "type": "boolean", "description": "Whether writing is refused. Default: true." }
            },
            "required": ["source"],
            "additionalProperties": false
        }
    ]
});
form!(ReportsForm, {
    "type": "object",
    "properties": {
        "junit": {
            "description": "JUnit XML files, as globs below `$SEATRIAL_REPORTS`.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        },
        "sarif": {
            "description": "SARIF files with findings of linters and scanners.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        },
        "coverage": {
            "description": "Coverage of lines: Cobertura XML, JaCoCo XML or LCOV files.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        }
    },
    "additionalProperties": false
});

/// Defines a form that is one of several types, in the schema only.
macro_rules! one_of {
    ($name:ident = $($form:ty),+) => {
        pub(super) struct $name;
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let forms = vec![$(generator.subschema_for::<$form>()),+];
                json_schema!({ "anyOf": forms })
            }
        }
    };
}

one_of!(BuildForm = String, Build);
one_of!(VersionForm = String, VersionRule);
one_of!(BeforeForm = Before, Vec<Before>);
one_of!(FilesForm = PublishFiles, Vec<PublishFiles>);
one_of!(HealthForm = bool, Health);
one_of!(SignForm = String, Sign);
one_of!(TrustForm = TrustRule, BTreeMap<String, TrustRule>);
form!(RequirementsForm, {
    "anyOf": [
        { "enum": ["signature", "provenance", "sbom", "gates", "content"] },
        { "type": "array", "items": { "enum": ["signature", "provenance", "sbom", "gates", "content"] } }
    ]
});
form!(SbomForm, { "enum": ["spdx", "cyclonedx", false] });
one_of!(PublishForm = bool, Publish);
one_of!(ImageForm = String, ImageEntry);
one_of!(GateForm = String, Vec<String>, Gate);
one_of!(SetupCommandForm = String, SetupStep);
one_of!(SetupForm = SetupCommandForm, Vec<SetupCommandForm>);
one_of!(WhenForm = WhenRule, Vec<WhenRule>);
one_of!(TagForm = ScalarForm, Tag);
one_of!(TagsForm = TagForm, Vec<TagForm>);
form!(InForm, { "enum": ["image"] });
form!(ScalarForm, { "type": ["string", "number"] });
form!(TagKindForm, { "enum": ["raw", "schedule", "semver", "pep440", "match", "edge", "ref", "sha", "date", "build"] });
form!(RefEventForm, { "enum": ["branch", "tag", "pr"] });
form!(DateOfForm, { "enum": ["commit", "run"] });
form!(EnableForm, { "type": ["string", "boolean"] });
form!(LatestForm, { "enum": ["auto", true, false, "true", "false"] });
one_of!(FlavorForm = Flavor, TextsForm);
form!(NullForm, { "type": "null" });
one_of!(EnvironmentForm = Environment, NullForm);

impl JsonSchema for VersionRule {
    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let text = |description: &str| serde_json::json!({ "type": "string", "description": description });
        let words =
            |words: &[&str], description: &str| serde_json::json!({ "enum": words, "description": description });
        let properties = BTreeMap::from([
            ("arg", text("Value of this build argument.")),
            ("command", text("What this command prints: in the built image, for `/bin/sh -e`.")),
            ("env", text("Value of this ENV of the built image.")),
            (
                "file",
                text(
                    "A package file: Cargo.toml, pyproject.toml, setup.cfg, setup.py, package.json, pom.xml, other JSON and TOML \
                     files, a module with `__version__`, or a file with the version alone.",
                ),
            ),
            (
                "form",
                words(
                    &DescribeForm::NAMES,
                    "How `git: describe` is said: `1.2.3-4-gabc`, as a SemVer pre-release of the next patch, as a PEP 440 development release of it, or with a local part (build metadata). Default: `git`.",
                ),
            ),
            ("git", words(&["describe", "tag"], "The Git tag at the commit, or `git describe --tags`.")),
            (
                "in",
                words(
                    &["image", "host"],
                    "Where `command` runs; on this machine only where it permits `before.host`. Default: `image`.",
                ),
            ),
            ("label", text("Value of this label of the built image.")),
            ("prefix", text("What the Git tags begin with, before the version: `api-v`.")),
            (
                "regex",
                text("What is looked for in `file`: the group `version`, else the first group, else all that matches."),
            ),
            (
                "tag",
                text(
                    "Which Git tags count, as a glob: `api-v*`. What it says before the first wildcard is no part of the version.",
                ),
            ),
        ]);
        json_schema!({
            "type": "object",
            "description": "Where the version comes from; one of the keys.",
            "properties": properties,
            "additionalProperties": false,
            "minProperties": 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{before, bounds, files, gates, images, sections, sign, trust},
        *,
    };

    fn properties(schema: &Value, name: &str) -> Vec<String> {
        let definition = if name.is_empty() { schema } else { &schema["$defs"][name] };
        let mut keys: Vec<String> =
            definition["properties"].as_object().unwrap_or_else(|| panic!("{name}")).keys().cloned().collect();
        keys.sort();
        keys
    }

    #[test]
    fn the_schema_has_exactly_the_keys_that_the_reader_takes() {
        let schema = schema();
        for (name, keys) in [
            ("", &sections::FILE),
            ("ImageEntry", &images::IMAGE),
            ("Before", &super::super::before::BEFORE),
            ("Before", &before::BEFORE),
            ("Build", &sections::BUILD),
            ("Version", &super::super::version::VERSION),
            ("Test", &gates::TEST),
            ("Gate", &gates::GATE),
            ("SetupStep", &gates::SETUP),
            ("SecretSource", &bounds::SECRET),
            ("Health", &sections::HEALTH),
            ("Publish", &sections::PUBLISH),
            ("Sign", &sign::SIGN),
            ("PublishFiles", &files::FILES),
            ("Trust", &trust::TRUST),
            ("Tag", &super::super::tags::TAG),
            ("Flavor", &super::super::tags::FLAVOR),
            ("WhenRule", &sections::WHEN),
            ("Keep", &sections::KEEP),
            ("Environment", &super::super::environments::ENVIRONMENT),
            ("Limits", &sections::LIMITS),
        ] {
            let mut known: Vec<String> = keys.known.iter().map(|key| (*key).to_owned()).collect();
            known.sort();
            assert_eq!(properties(&schema, name), known, "{name}");
            assert!(keys.later.iter().all(|later| !keys.known.contains(later)), "{name}");
            assert!(keys.foreign.iter().all(|(_, ours)| keys.known.contains(ours)), "{name}");
        }
    }

    #[test]
    fn every_key_is_described() {
        let schema = schema();
        let mut maps: Vec<&Value> = vec![&schema];
        maps.extend(schema["$defs"].as_object().into_iter().flat_map(|defs| defs.values()));
        for map in maps {
            for (key, property) in map["properties"].as_object().into_iter().flatten() {
                assert!(property["description"].is_string(), "{key}: {property}");
            }
        }
    }
}
