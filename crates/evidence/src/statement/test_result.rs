//! That a gate passed or failed (in-toto, predicate "Test Result" v0.1).

use serde_json::json;

use super::{Resource, Statement, predicate};

/// The result of one gate, or of the health check.
#[derive(Clone, Debug)]
pub struct TestResult {
    /// The image, and the commit that it was built from.
    pub subjects: Vec<Resource>,
    /// Name of the gate.
    pub gate: String,
    /// How it ended.
    pub result: GateResult,
    /// What the result depends on beside the image: the gate's definition, mounted files, services.
    pub configuration: Vec<Resource>,
}

/// How a gate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateResult {
    /// At the first attempt.
    Passed,
    /// At a later attempt.
    Warned,
    /// It did not.
    Failed,
}

impl TestResult {
    /// As a statement. It holds no time: the same result is the same statement, whoever finds it out and when.
    pub fn statement(&self) -> Statement {
        let (word, list) = match self.result {
            GateResult::Passed => ("PASSED", "passedTests"),
            GateResult::Warned => ("WARNED", "warnedTests"),
            GateResult::Failed => ("FAILED", "failedTests"),
        };
        let mut predicate = json!({ "result": word, "configuration": self.configuration });
        predicate[list] = json!([self.gate]);
        Statement::new(self.subjects.clone(), predicate::TEST_RESULT, predicate)
    }

    /// The gates that a statement says have passed; none when it is another kind of statement, or says no.
    pub fn passed_gates(statement: &Statement) -> Vec<&str> {
        let result = statement.predicate.get("result").and_then(|result| result.as_str());
        if statement.predicate_type != predicate::TEST_RESULT || !matches!(result, Some("PASSED" | "WARNED")) {
            return Vec::new();
        }
        Self::named(statement, &["passedTests", "warnedTests"])
    }

    /// The gates that a statement says have failed.
    pub fn failed_gates(statement: &Statement) -> Vec<&str> {
        if statement.predicate_type != predicate::TEST_RESULT {
            return Vec::new();
        }
        Self::named(statement, &["failedTests"])
    }

    fn named<'a>(statement: &'a Statement, lists: &[&str]) -> Vec<&'a str> {
        let names = lists.iter().filter_map(|list| statement.predicate.get(list)?.as_array());
        names.flatten().filter_map(|name| name.as_str()).collect()
    }
}
