//! How an image was built (SLSA v1.0, "Provenance").

use std::{collections::BTreeMap, time::SystemTime};

use serde_json::{Map, Value, json};

use super::{Resource, Statement, git_uri, predicate, timestamp};

/// `buildType`: a build of a Dockerfile. docs/evidence.md says what each parameter means.
pub const BUILD_TYPE: &str = "https://seatrial.io/build/dockerfile/v1";
/// `builder.id` where nothing else is said: Seatrial on a machine that only its owner knows.
pub const BUILDER_ID: &str = "https://seatrial.io/builder/v1";

/// What is known of a build.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The image.
    pub subject: Resource,
    /// What was asked for.
    pub parameters: Parameters,
    /// What went into it: the commit, base images, contexts, downloads.
    pub dependencies: Vec<Resource>,
    /// Who built: [`BUILDER_ID`], or the address of a CI system's runner.
    pub builder: String,
    /// Version of Seatrial.
    pub version: String,
    /// `internalParameters`: what the builder decided, and what else is worth knowing of how it went.
    pub internal: Map<String, Value>,
    /// Which run it was; without it the same build gives the same statement.
    pub run: Option<Invocation>,
}

/// What is of one run only.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Names the run.
    pub id: String,
    /// When the run began.
    pub started: SystemTime,
    /// When the image was finished.
    pub finished: SystemTime,
}

/// `externalParameters`: what whoever asked for the build decided.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    /// Where the source is.
    pub repository: Option<String>,
    /// `refs/heads/main` or `refs/tags/v1`.
    pub reference: Option<String>,
    /// Path of the Dockerfile.
    pub dockerfile: String,
    /// Stage.
    pub target: Option<String>,
    /// Platform.
    pub platform: String,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Names of secrets; never what they hold.
    pub secrets: Vec<String>,
    /// Whether tracked files differed from the commit.
    pub is_dirty: bool,
}

impl Provenance {
    /// As a statement.
    pub fn statement(&self) -> Statement {
        let metadata = self.run.as_ref().map_or_else(
            || json!({}),
            |run| {
                json!({
                    "invocationId": run.id,
                    "startedOn": timestamp(run.started),
                    "finishedOn": timestamp(run.finished),
                })
            },
        );
        let predicate = json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": self.parameters.value(),
                "internalParameters": self.internal,
                "resolvedDependencies": self.dependencies,
            },
            "runDetails": {
                "builder": { "id": self.builder, "version": { "seatrial": self.version } },
                "metadata": metadata,
            },
        });
        Statement::new(vec![self.subject.clone()], predicate::PROVENANCE, predicate)
    }
}

impl Parameters {
    fn value(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        if let Some(repository) = &self.repository {
            put("source", json!({ "uri": git_uri(repository), "ref": self.reference }));
        } else if let Some(reference) = &self.reference {
            put("source", json!({ "ref": reference }));
        }
        put("dockerfile", json!(self.dockerfile));
        if let Some(target) = &self.target {
            put("target", json!(target));
        }
        put("platform", json!(self.platform));
        if !self.args.is_empty() {
            put("args", json!(self.args));
        }
        if !self.secrets.is_empty() {
            put("secrets", json!(self.secrets));
        }
        if self.is_dirty {
            put("modified", json!(true));
        }
        Value::Object(map)
    }
}
