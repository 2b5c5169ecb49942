//! Signed statements about one image.

use std::time::{Duration, UNIX_EPOCH};

use evidence::{
    Attachment, Bundle, Collected, Found, GateResult, Invocation, KeyKind, Parameters, Provenance, Resource, Signer,
    SigningKey, Statement, Summary, TestResult,
};
use oci::{Descriptor, Digest};

pub(super) fn signer(kind: KeyKind) -> Signer {
    Signer::of(SigningKey::generate(kind).expect("random numbers"))
}

pub(super) fn image() -> Digest {
    Digest::of(b"the image's manifest")
}

pub(super) fn resource() -> Resource {
    Resource::image("registry.example/acme/app", &image())
}

pub(super) fn gate(name: &str, result: GateResult) -> Statement {
    let subjects = vec![resource(), Resource::commit(None, "d20ace7968ba43c0219f62d71334c1095bab1602")];
    let configuration = vec![Resource::content(&Digest::of(name.as_bytes())).named(name)];
    TestResult { subjects, gate: name.into(), result, configuration }.statement()
}

pub(super) fn provenance(finished: u64) -> Statement {
    Provenance {
        subject: resource(),
        parameters: Parameters {
            repository: Some("https://git.example/acme/app".into()),
            reference: Some("refs/heads/main".into()),
            dockerfile: "Dockerfile".into(),
            platform: "linux/amd64".into(),
            ..Parameters::default()
        },
        dependencies: vec![Resource::commit(
            Some("https://git.example/acme/app"),
            "d20ace7968ba43c0219f62d71334c1095bab1602",
        )],
        builder: evidence::BUILDER_ID.into(),
        version: "0.1.0".into(),
        internal: serde_json::Map::new(),
        run: Some(Invocation {
            id: format!("run-{finished}"),
            started: UNIX_EPOCH + Duration::from_secs(finished.saturating_sub(60)),
            finished: UNIX_EPOCH + Duration::from_secs(finished),
        }),
    }
    .statement()
}

pub(super) fn summary(finished: u64) -> Statement {
    Summary {
        subject: resource(),
        resource: "registry.example/acme/app".into(),
        verifier: evidence::BUILDER_ID.into(),
        time: UNIX_EPOCH + Duration::from_secs(finished),
        policy: "seatrial.yaml".into(),
        definition: Digest::of(b"definition"),
        inputs: vec![Digest::of(b"one")],
        passed: true,
    }
    .statement()
}

/// The statement as it is found beside the image once it was signed and attached.
pub(super) fn attached(statement: &Statement, signer: &Signer) -> Found {
    let bundle = Bundle::sign(statement, signer).expect("it signs");
    let subject = Descriptor::new(oci::media_type::MANIFEST, image(), 20);
    let attachment = Attachment::new(&bundle, statement, &subject);
    let (_, bytes) = attachment.blobs.last().expect("the bundle is a blob");
    Found::bundle(attachment.digest().clone(), image(), bytes.clone())
}

pub(super) fn beside_image(found: Vec<Found>) -> Collected {
    Collected { root: image(), platforms: Vec::new(), found, content: None }
}
