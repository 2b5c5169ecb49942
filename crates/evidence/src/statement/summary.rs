//! That everything that was asked of an image holds (SLSA v1.0, "Verification Summary Attestation").

use std::time::SystemTime;

use oci::Digest;
use serde_json::json;

use super::{Resource, Statement, predicate, timestamp};

/// In `verifiedLevels`: all gates and the health check that the policy asks for have passed.
pub const GATES_LEVEL: &str = "SEATRIAL_GATES_PASSED";

/// The summary of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The image.
    pub subject: Resource,
    /// Where the image is published.
    pub resource: String,
    /// Who says so.
    pub verifier: String,
    /// When.
    pub time: SystemTime,
    /// The pipeline file's name.
    pub policy: String,
    /// Digest of the definition of all gates and the health check.
    pub definition: Digest,
    /// Digests of the statements that it sums up.
    pub inputs: Vec<Digest>,
    /// Whether everything passed.
    pub passed: bool,
}

impl Summary {
    /// As a statement.
    pub fn statement(&self) -> Statement {
        let inputs: Vec<Resource> = self.inputs.iter().map(Resource::content).collect();
        // Level 1 asks for provenance, which is attached with this (SLSA v1.0, "Build track").
        let levels = if self.passed { vec!["SLSA_BUILD_LEVEL_1", GATES_LEVEL] } else { vec!["FAILED"] };
        let predicate = json!({
            "verifier": { "id": self.verifier },
            "timeVerified": timestamp(self.time),
            "resourceUri": self.resource,
            "policy": Resource { uri: Some(self.policy.clone()), ..Resource::content(&self.definition) },
            "inputAttestations": inputs,
            "verificationResult": if self.passed { "PASSED" } else { "FAILED" },
            "verifiedLevels": levels,
            "slsaVersion": "1.0",
        });
        Statement::new(vec![self.subject.clone()], predicate::SUMMARY, predicate)
    }

    /// The definition of gates that a statement says have all passed; `None` for other statements.
    pub fn passed_definition(statement: &Statement) -> Option<&str> {
        let predicate = &statement.predicate;
        let says_yes = statement.predicate_type == predicate::SUMMARY
            && predicate.get("verificationResult").and_then(|result| result.as_str()) == Some("PASSED")
            && predicate["verifiedLevels"].as_array().is_some_and(|levels| levels.iter().any(|l| l == GATES_LEVEL));
        if says_yes { predicate.pointer("/policy/digest/sha256")?.as_str() } else { None }
    }
}
