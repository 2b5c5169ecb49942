//! Whatever is changed between the signature and its reader is noticed.

use evidence::{Flaw, Found, GateResult, KeyKind};
use oci::Digest;

use crate::signed::{attached, gate, image, provenance, resource, signer, summary};

#[test]
fn the_same_statement_has_the_same_bundle() {
    let signer = signer(KeyKind::Ecdsa);
    let one = attached(&gate("unit", GateResult::Passed), &signer);
    assert_eq!(one.bytes, attached(&gate("unit", GateResult::Passed), &signer).bytes);
    assert_ne!(one.bytes, attached(&gate("lint", GateResult::Passed), &signer).bytes);
}

#[test]
fn no_byte_of_a_bundle_can_be_changed() {
    // Each byte once, and a sample with the other kind of key.
    for (kind, step) in [(KeyKind::Ecdsa, 1), (KeyKind::Ed25519, 7)] {
        let signer = signer(kind);
        let keys = [signer.public().clone()];
        let whole = attached(&evidence::Statement::signature(resource()), &signer);
        whole.check(&image(), &keys).expect("as it is, it holds");
        let said = whole.statement().expect("it is read").clone();
        for at in (0..whole.bytes.len()).step_by(step) {
            let mut bytes = whole.bytes.clone();
            bytes[at] ^= 1;
            let changed = Found::bundle(whole.digest.clone(), image(), bytes);
            // What is not signed may change: names of fields that nobody reads, the hint. What is said may not.
            if let Ok(trusted) = changed.check(&image(), &keys) {
                assert_eq!(*trusted.statement, said, "byte {at} changes what is said");
            }
        }
    }
}

#[test]
fn another_key_another_image_and_another_place_do_not_count() {
    let (ours, theirs) = (signer(KeyKind::Ecdsa), signer(KeyKind::Ecdsa));
    let keys = [ours.public().clone()];
    let other = Digest::of(b"another manifest");
    for statement in [
        gate("unit", GateResult::Passed),
        provenance(1_700_000_000),
        summary(1_700_000_000),
        evidence::Statement::signature(resource()),
    ] {
        let found = attached(&statement, &ours);
        let check =
            |found: &Found, image: &Digest| found.check(image, &keys).map(|_| ()).expect_err("it does not count");
        assert_eq!(check(&attached(&statement, &theirs), &image()), Flaw::NotTrusted);
        // Copied beside another image.
        assert_eq!(check(&found, &other), Flaw::OtherSubject);
        let moved = Found::bundle(found.digest.clone(), other.clone(), found.bytes.clone());
        assert_eq!(check(&moved, &other), Flaw::OtherSubject);
        assert_eq!(check(&moved, &image()), Flaw::Misplaced);
    }
}

#[test]
fn the_subject_cannot_be_swapped_under_the_signature() {
    let signer = signer(KeyKind::Ecdsa);
    let keys = [signer.public().clone()];
    let other = Digest::of(b"another manifest");
    let found = attached(&evidence::Statement::signature(resource()), &signer);
    let bundle: serde_json::Value = serde_json::from_slice(&found.bytes).expect("JSON");
    let swap = |payload: Vec<u8>, payload_type: &str| {
        use base64::Engine as _;
        let mut bundle = bundle.clone();
        bundle["dsseEnvelope"]["payload"] = base64::engine::general_purpose::STANDARD.encode(payload).into();
        bundle["dsseEnvelope"]["payloadType"] = payload_type.into();
        Found::bundle(found.digest.clone(), other.clone(), bundle.to_string().into_bytes())
    };
    let statement = found.statement().expect("it is read").to_bytes();
    let swapped = String::from_utf8(statement.clone()).expect("text").replace(image().hex(), other.hex()).into_bytes();
    let check = |found: Found| found.check(&other, &keys).map(|_| ()).expect_err("it does not count");
    assert_eq!(check(swap(swapped, evidence::STATEMENT_PAYLOAD)), Flaw::NotTrusted);
    assert!(matches!(check(swap(statement, "text/plain")), Flaw::Unreadable(_)));
}

#[test]
fn signatures_of_cosigns_older_layout_are_read() {
    use base64::Engine as _;
    let signer = signer(KeyKind::Ecdsa);
    let keys = [signer.public().clone()];
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"registry.example/acme/app"}},"image":{{"docker-manifest-digest":"{}"}},"type":"cosign container image signature"}},"optional":null}}"#,
        image()
    );
    let signature =
        base64::engine::general_purpose::STANDARD.encode(signer.sign(payload.as_bytes()).expect("it signs"));
    let found = |payload: &str, signature: Option<&str>| {
        Found::legacy_signature(Digest::of(payload.as_bytes()), image(), payload.as_bytes().to_vec(), signature)
    };
    found(&payload, Some(&signature)).check(&image(), &keys).expect("it holds");
    let other = Digest::of(b"another manifest");
    let swapped = payload.replace(image().hex(), other.hex());
    assert_eq!(found(&swapped, Some(&signature)).check(&other, &keys).err(), Some(Flaw::NotTrusted));
    assert_eq!(found(&payload, Some(&signature)).check(&other, &keys).err(), Some(Flaw::OtherSubject));
    assert!(matches!(found(&payload, None).check(&image(), &keys), Err(Flaw::Unreadable(_))));
}
