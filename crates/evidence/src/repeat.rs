//! Saying the same again: a digest that is published once more needs no second statement that differs in its times only.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oci::Digest;
use serde_json::Value;

use crate::{Found, PublicKey, Statement, predicate};

/// What was said so long ago is said again, so that the newest statement keeps telling when the image was last built and
/// tried: policies ask for an age in days or hours (`max_age`). An image gets one more at most for each such time.
pub const REPEAT_AFTER: Duration = Duration::from_secs(60 * 60);

/// The predicates that tell times. All others are the same bytes when they say the same, and so the same artefact where the
/// key makes the same signature of them ([`crate::Signer::is_repeatable`]).
pub const TIMED: [&str; 2] = [predicate::PROVENANCE, predicate::SUMMARY];

/// Which of these statements need not be attached again: for each whether the key has signed it, or, of those that tell
/// times, within [`REPEAT_AFTER`] one that differs in times and the number of the run only. A summary is a repetition only when all that it sums up is one.
pub fn repeated(
    statements: &[Statement],
    found: &[Found],
    image: &Digest,
    key: &PublicKey,
    now: SystemTime,
) -> Vec<bool> {
    let keys = std::slice::from_ref(key);
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let is_recent = |statement: &Statement| {
        statement.time().and_then(|time| now.checked_sub(time)).is_some_and(|age| age < REPEAT_AFTER.as_secs())
    };
    let said = found.iter().filter_map(|found| found.check(image, keys).ok()).map(|trusted| trusted.statement);
    let said: Vec<&Statement> = said.collect();
    let same = |new: &Statement| {
        let new = new.without_times();
        said.iter().copied().filter(|old| is_recent(old)).filter(move |old| old.without_times() == new)
    };
    // A summary names what it sums up by digests: where an older provenance stands for the new one, so does its digest.
    let digest = |statement: &Statement| Digest::of(&statement.to_bytes()).hex().to_owned();
    let stands_for: Vec<(String, String)> = statements
        .iter()
        .filter(|new| new.predicate_type == predicate::PROVENANCE)
        .flat_map(|new| same(new).map(|old| (digest(new), digest(old))).collect::<Vec<_>>())
        .collect();
    let sums_up_the_same = |new: &Statement, old: &Statement| {
        let (new, old) = (inputs(new), inputs(old));
        let is_in_old = |input: &&str| {
            old.contains(input) || stands_for.iter().any(|(new, known)| new == input && old.contains(&known.as_str()))
        };
        new.len() == old.len() && new.iter().all(is_in_old)
    };
    let is_repeated = |new: &Statement| match new.predicate_type.as_str() {
        predicate::PROVENANCE => same(new).next().is_some(),
        predicate::SUMMARY => same(new).any(|old| sums_up_the_same(new, old)),
        _ => said.contains(&new),
    };
    statements.iter().map(is_repeated).collect()
}

fn inputs(summary: &Statement) -> Vec<&str> {
    let inputs = summary.predicate["inputAttestations"].as_array();
    inputs.into_iter().flatten().filter_map(|input| input.pointer("/digest/sha256")?.as_str()).collect()
}

impl Statement {
    /// The same, without when it was made, in which run, and, of a summary, of which statements.
    fn without_times(&self) -> Self {
        let mut statement = self.clone();
        match self.predicate_type.as_str() {
            predicate::PROVENANCE => {
                if let Some(Value::Object(details)) = statement.predicate.get_mut("runDetails") {
                    details.remove("metadata");
                }
            }
            predicate::SUMMARY => {
                if let Value::Object(predicate) = &mut statement.predicate {
                    predicate.remove("timeVerified");
                    predicate.remove("inputAttestations");
                }
            }
            _ => {}
        }
        statement
    }
}
