//! What images need before they are used, by the pipeline file that stands nearest: one answer for all that builds and starts.

use std::{collections::BTreeMap, path::Path};

use evidence::{PolicyError, Trust};
use pipeline::{Plan, PrepareRequest};

use crate::failure::{self, Failure};

/// The rules of the pipeline file that a directory belongs to. Files without rules are not read any further: whoever
/// builds beside an unfinished pipeline file is not held up by it.
pub(crate) fn nearest(directory: &Path, env: &BTreeMap<String, String>) -> Result<Trust, Failure> {
    let Some(file) = pipeline::find_file(directory) else { return Ok(Trust::default()) };
    let text = std::fs::read_to_string(&file).map_err(|error| {
        Failure::surroundings(format!("cannot read {}, which may have `trust`", file.display())).because(&error)
    })?;
    if !text.contains(KEY) {
        return Ok(Trust::default());
    }
    let directory = file.parent().unwrap_or(directory).to_owned();
    let request = PrepareRequest { directory, file: Some(file), env: env.clone(), run_number: None };
    of(&pipeline::prepare(&request).map_err(super::prepare_failure)?.plan)
}

/// As the section is called, wherever it stands.
const KEY: &str = "trust";

/// The rules of a plan with their keys.
pub(crate) fn of(plan: &Plan) -> Result<Trust, Failure> {
    plan.trust().map_err(policy_failure)
}

/// A policy or key that says nothing is the user's mistake.
pub(super) fn policy_failure(error: PolicyError) -> Failure {
    let mut causes = failure::chain(&error);
    causes.remove(0);
    Failure { causes, ..Failure::usage(error.to_string()) }
}
