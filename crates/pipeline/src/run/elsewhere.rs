//! Verdicts that were found out elsewhere: they count when a trusted key has signed them.

use evidence::{PublicKey, Resource, Summary, TestResult, Trust, Trusted};

use super::{Run, health, publish::Sealed, record};
use crate::{Plan, RunError};

/// Whether a place that this file publishes to has, for this very digest, a signed result of each gate that stands in the
/// way of publishing, of this commit, and a signed summary of gates that are defined as here.
pub(super) async fn has_passed(run: Run<'_>, plan: &Plan, sealed: &Sealed) -> Result<bool, RunError> {
    let Some(publish) = plan.publish.as_ref().filter(|_| !plan.trust.is_empty()) else { return Ok(false) };
    let trust = plan.trust().map_err(|error| RunError::local("read the trusted keys", error))?;
    for repository in &publish.repositories {
        let keys = keys(&trust, repository);
        if keys.is_empty() {
            continue;
        }
        let digest = &sealed.manifest.digest;
        let Some(collected) = run.cx.registry.evidence(&repository.with_digest(digest.clone())).await? else {
            continue;
        };
        let believed: Vec<Trusted<'_>> =
            collected.found.iter().filter_map(|found| found.check(digest, &keys).ok()).collect();
        if suffices(run, plan, &believed) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn keys(trust: &Trust, repository: &oci::Reference) -> Vec<PublicKey> {
    let rule = trust.rule_for(repository);
    rule.map(|rule| rule.policy.keys.iter().map(|named| named.key.clone()).collect()).unwrap_or_default()
}

fn suffices(run: Run<'_>, plan: &Plan, believed: &[Trusted<'_>]) -> bool {
    let Some(sha) = &plan.source.sha else { return false };
    let commit = Resource::commit(None, sha).digest;
    let is_of_commit = |piece: &&Trusted<'_>| piece.statement.subject.iter().any(|subject| subject.digest == commit);
    let passed: Vec<&str> =
        believed.iter().filter(is_of_commit).flat_map(|piece| TestResult::passed_gates(piece.statement)).collect();
    let gates = plan.test.gates.iter().filter(|gate| !gate.allow_failure).map(|gate| gate.name.as_str());
    let definition = record::definition(run, plan);
    let has_summary =
        || believed.iter().any(|piece| Summary::passed_definition(piece.statement) == Some(definition.hex()));
    gates.chain(plan.health.enabled.then_some(health::STAGE)).all(|name| passed.contains(&name)) && has_summary()
}
