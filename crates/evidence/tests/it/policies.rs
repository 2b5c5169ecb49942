//! What a policy asks for, and what it says when it is not there.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use evidence::{Collected, Found, GateResult, KeyKind, Policy, PolicyFile, Signer, Sought, Statement};
use oci::Digest;

use crate::signed::{attached, beside_image, gate, provenance, resource, signer, summary};

/// 2026-11-20, noon.
const NOW: u64 = 1_795_176_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn policy(text: &str, keys: &BTreeMap<&str, &Signer>) -> Result<Policy, String> {
    let file: PolicyFile = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let read = |name: &str| {
        let key = keys.get(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(key.public().to_pem())
    };
    file.policy(&read).map_err(|error| error.to_string())
}

/// Each check as `+ what: detail` or `- what: detail`.
fn judged(policy: &Policy, collected: &Collected) -> Vec<String> {
    let report = policy.judge(Sought { collected, now: now() });
    let line =
        |check: &evidence::Check| format!("{} {}: {}", if check.passed { '+' } else { '-' }, check.what, check.detail);
    assert_eq!(report.passed(), report.missing().next().is_none());
    report.checks.iter().map(line).collect()
}

#[test]
fn what_is_there_passes_and_what_is_missing_is_named() {
    let (release, security, stranger) = (signer(KeyKind::Ecdsa), signer(KeyKind::Ed25519), signer(KeyKind::Ecdsa));
    let keys = BTreeMap::from([("keys/release.pub", &release), ("keys/security.pub", &security)]);
    let policy = policy(
        r#"{"keys": ["keys/release.pub", "keys/security.pub"], "require": ["signature", "provenance", "gates", "sbom"],
            "signed_by": ["security"], "gates": ["unit", "lint"], "max_age": "30d",
            "provenance": {"source": "https://git.example/acme/*", "ref": "refs/heads/main"}}"#,
        &keys,
    )
    .expect("a policy");
    let signature = Statement::signature(resource());
    let found = vec![
        attached(&signature, &release),
        attached(&signature, &stranger),
        attached(&provenance(NOW - 3 * 86_400), &release),
        attached(&summary(NOW - 3 * 86_400), &release),
        attached(&gate("unit", GateResult::Warned), &release),
        attached(&gate("lint", GateResult::Failed), &release),
    ];
    assert_eq!(
        judged(&policy, &beside_image(found)),
        [
            "+ signature: by release".to_owned(),
            "+ provenance: by release".into(),
            "+ gates: by release".into(),
            "- sbom: no list of packages (1 found that is not signed by a trusted key, or changed since)".into(),
            format!(
                "- signature by security: no signature by security ({}) (1 found that is not signed by a trusted key, or changed since)",
                security.public().fingerprint()
            ),
            "+ provenance source: https://git.example/acme/app".into(),
            "+ provenance ref: refs/heads/main".into(),
            "+ gate unit: by release".into(),
            "- gate lint: gate lint has failed (1 found that is not signed by a trusted key, or changed since)".into(),
            "+ age: 3 days old".into(),
        ]
    );
}

#[test]
fn other_sources_old_statements_and_dates_in_the_future_do_not_pass() {
    let release = signer(KeyKind::Ecdsa);
    let keys = BTreeMap::from([("release.pub", &release)]);
    let policy = policy(
        r#"{"keys": ["release.pub"], "max_age": "2d",
            "provenance": {"source": "https://git.example/acme/app-*", "builder": "https://ci.example/*"}}"#,
        &keys,
    )
    .expect("a policy");
    for (time, age) in [
        (NOW - 3 * 86_400, "- age: the newest statement is 3 days old, more than 2 days"),
        (NOW + 86_400, "- age: the newest statement is 0 s old, more than 2 days"),
    ] {
        assert_eq!(
            judged(&policy, &beside_image(vec![attached(&provenance(time), &release)])),
            [
                "- provenance source: the source is https://git.example/acme/app, not https://git.example/acme/app-*",
                "- provenance builder: the builder is https://seatrial.io/builder/v1, not https://ci.example/*",
                age,
            ]
        );
    }
}

#[test]
fn an_exception_lasts_until_its_day_and_then_fails_by_itself() {
    let release = signer(KeyKind::Ecdsa);
    let keys = BTreeMap::from([("release.pub", &release)]);
    let with = |until: &str| {
        let text = format!(
            r#"{{"keys": ["release.pub"], "gates": ["e2e"], "exceptions": [{{"for": "gate e2e", "until": "{until}", "reason": "browsers"}}]}}"#
        );
        policy(&text, &keys).expect("a policy")
    };
    assert_eq!(
        judged(&with("2026-11-20"), &beside_image(Vec::new())),
        ["+ gate e2e: no result of gate e2e; excepted until 2026-11-20"]
    );
    let expired = "- exceptions: the exception for `gate e2e` has expired on 2026-11-19";
    assert_eq!(judged(&with("2026-11-19"), &beside_image(Vec::new())), ["- gate e2e: no result of gate e2e", expired]);
    // Also where it is not needed: nobody looks at it otherwise.
    let passing = beside_image(vec![attached(&gate("e2e", GateResult::Passed), &release)]);
    assert_eq!(judged(&with("2026-11-19"), &passing), ["+ gate e2e: by release", expired]);
}

#[test]
fn an_index_passes_by_itself_or_by_all_of_its_images() {
    let release = signer(KeyKind::Ecdsa);
    let keys = BTreeMap::from([("release.pub", &release)]);
    let policy = policy(r#"{"keys": ["release.pub"], "require": ["signature"]}"#, &keys).expect("a policy");
    let (index, amd64, arm64) = (Digest::of(b"index"), Digest::of(b"amd64"), Digest::of(b"arm64"));
    let signed = |digest: &Digest| {
        let found = attached(&Statement::signature(evidence::Resource::content(digest)), &release);
        Found::bundle(found.digest, digest.clone(), found.bytes)
    };
    let judged = |found: Vec<Found>| {
        let platforms = vec![(amd64.clone(), None), (arm64.clone(), None)];
        judged(&policy, &Collected { root: index.clone(), platforms, found, content: None })
    };
    assert_eq!(judged(vec![signed(&index)]), ["+ signature: by release"]);
    assert_eq!(judged(vec![signed(&amd64), signed(&arm64)]), ["+ signature: by release"]);
    assert_eq!(judged(vec![signed(&amd64)]), ["- signature: no signature for some platforms"]);
    assert_eq!(judged(Vec::new()), ["- signature: no signature"]);
}

#[test]
fn policies_that_mean_nothing_are_refused() {
    let release = signer(KeyKind::Ecdsa);
    let keys = BTreeMap::from([("release.pub", &release)]);
    let cases = [
        (r#"{"keys": ["release.pub"]}"#, "the policy requires nothing"),
        (r#"{"require": "signature"}"#, "the policy names no key that is trusted: write `keys: [release.pub]`"),
        (r#"{"keys": ["other.pub"], "require": ["signature"]}"#, "cannot read the key other.pub"),
        (
            r#"{"require": ["signatures"]}"#,
            "`require`: `signatures` is not known; there are signature, provenance, sbom, gates, content",
        ),
        (r#"{"signed_by": ["ops"]}"#, "`signed_by`: there is no key `ops`"),
        (r#"{"max_age": "soon"}"#, "`max_age`: `soon` is no time such as `30d` or `12h`"),
        (
            r#"{"require": ["sbom"], "exceptions": [{"for": "gate e2e", "until": "2026-12-31"}]}"#,
            "`exceptions`: `gate e2e` is not required by this policy",
        ),
        (
            r#"{"require": ["sbom"], "exceptions": [{"for": "sbom", "until": "tomorrow"}]}"#,
            "`until`: `tomorrow` is no day such as `2026-12-31`",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(policy(text, &keys).map(|_| ()), Err(message.to_owned()));
    }
    assert!(policy(r#"{"requires": []}"#, &keys).is_err());
    assert!(policy(r#"{"keys": 7}"#, &keys).is_err_and(|error| error.contains("expected a file with a public key")));
    policy(r#"{"keys": "release.pub", "require": "signature", "gates": "unit"}"#, &keys).expect("one is a list of one");
    policy(r#"{"require": "content"}"#, &keys).expect("nobody has to sign what is only read");
}
