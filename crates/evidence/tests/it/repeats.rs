//! The same digest published once more: what is the same but for its times is not said again, for a while.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evidence::{KeyKind, REPEAT_AFTER, Signer, Statement, Summary, repeated};
use oci::Digest;

use crate::signed::{attached, gate, image, provenance, resource, signer};

/// What a run says that ended then.
fn run(finished: u64, gates: &[&str]) -> Vec<Statement> {
    let mut said = vec![provenance(finished)];
    said.extend(gates.iter().map(|name| gate(name, evidence::GateResult::Passed)));
    let summary = Summary {
        subject: resource(),
        resource: "registry.example/acme/app".into(),
        verifier: evidence::BUILDER_ID.into(),
        time: UNIX_EPOCH + Duration::from_secs(finished),
        policy: "seatrial.yaml".into(),
        definition: Digest::of(b"definition"),
        inputs: said.iter().map(|statement| Digest::of(&statement.to_bytes())).collect(),
        passed: true,
    };
    said.push(summary.statement());
    said
}

fn check(before: &[Statement], by: &Signer, now: &[Statement], reader: &Signer, at: SystemTime) -> Vec<bool> {
    let found: Vec<_> = before.iter().map(|statement| attached(statement, by)).collect();
    repeated(now, &found, &image(), reader.public(), at)
}

#[test]
fn only_what_differs_in_more_than_times_is_said_again() {
    let (key, other) = (signer(KeyKind::Ecdsa), signer(KeyKind::Ed25519));
    const FIRST: u64 = 1_800_000_000;
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(FIRST + seconds);
    let before = run(FIRST, &["unit"]);
    let again = run(FIRST + 600, &["unit"]);
    assert_eq!(check(&before, &key, &again, &key, at(600)), [true; 3]);
    // Others' words are not ours, and after a while it is worth saying again.
    assert_eq!(check(&before, &other, &again, &key, at(600)), [false; 3]);
    assert_eq!(check(&before, &key, &again, &key, at(REPEAT_AFTER.as_secs())), [false, true, false]);
    // What is dated in the future says nothing of today.
    assert_eq!(check(&before, &key, &again, &key, at(0) - Duration::from_secs(1)), [false, true, false]);
    // A summary of something else is another one, also where the build was the same.
    let more = run(FIRST + 600, &["unit", "e2e"]);
    assert_eq!(check(&before, &key, &more, &key, at(600)), [true, true, false, false]);
    let mut moved = again.clone();
    moved[0].predicate["buildDefinition"]["externalParameters"]["source"]["ref"] = "refs/heads/other".into();
    assert!(!check(&before, &key, &moved, &key, at(600))[0]);
    assert_eq!(check(&[], &key, &again, &key, at(600)), [false; 3]);
}
