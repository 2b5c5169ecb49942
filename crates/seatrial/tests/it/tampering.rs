//! Whatever is changed in a registry beneath a signed image is noticed, and the missing piece is named: by somebody who
//! changes files of the registry, and by somebody who may push. Against our registry and docker's, which has no list of
//! referrers.

use std::{fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use evidence::{
    Attachment, Bundle, KeyKind, Parameters, Provenance, Resource, Signer, SigningKey, Statement, predicate,
};
use oci::{Descriptor, Digest, Manifest, ManifestOrIndex, Reference, media_type};
use registry::{Client, ClientOptions, NoProgress};
use serde_json::{Value, json};
use testkit::{DockerRegistry, Finished, World};

use crate::{
    evidence::{publish_to, verify},
    world_with_image,
};

const PRODUCTION: &str =
    "environments:\n  production: {require: [signature, gates, content], keys: [keys/release.pub], tag: live}\n";
const BYTES_MAX: u64 = 1 << 20;

/// A published image in a registry whose files and manifests are within reach.
struct Scene {
    world: World,
    docker: Option<DockerRegistry>,
    image: Reference,
    digest: Digest,
    manifest: Manifest,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

/// What is attached to the image: the manifest that attaches it, and the bundle.
struct Piece {
    digest: Digest,
    layer: Descriptor,
    bundle: Value,
    statement: Value,
}

impl Scene {
    fn new(docker: Option<DockerRegistry>) -> Self {
        let world = world_with_image();
        let registry = docker.as_ref().map_or_else(|| world.registry(), DockerRegistry::address).to_string();
        let image: Reference = publish_to(&world, &registry, PRODUCTION).parse().expect("a name");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = Client::new(ClientOptions::default());
        let found = runtime.block_on(client.fetch_manifest(&image, BYTES_MAX)).expect("it is there");
        let ManifestOrIndex::Manifest(manifest) = found.document else { panic!("one platform") };
        Self { world, docker, image, digest: found.descriptor.digest, manifest, client, runtime }
    }

    /// The registry's file with this content.
    fn file(&self, digest: &Digest) -> PathBuf {
        match &self.docker {
            Some(docker) => docker.content(&digest.to_string()),
            None => self.world.path("registry/blobs/sha256").join(digest.hex()),
        }
    }

    /// One bit of a file of the registry changed, while something is tried.
    fn with_flipped<T>(&self, digest: &Digest, at: usize, attempt: impl FnOnce() -> T) -> T {
        let path = self.file(digest);
        let whole = fs::read(&path).expect("the registry has it");
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&path, changed).expect("written");
        let outcome = attempt();
        fs::write(&path, whole).expect("written");
        outcome
    }

    fn pieces(&self) -> Vec<Piece> {
        self.runtime.block_on(async {
            let subject = self.image.with_digest(self.digest.clone());
            let mut pieces = Vec::new();
            for referrer in self.client.referrers(&subject, None).await.expect("they are listed") {
                let place = self.image.with_digest(referrer.digest.clone());
                let manifest = self.client.fetch_manifest(&place, BYTES_MAX).await.expect("it is there");
                let ManifestOrIndex::Manifest(manifest) = manifest.document else { panic!("no index") };
                let layer = manifest.layers[0].clone();
                let bytes = self.client.fetch_document(&self.image, &layer, BYTES_MAX).await.expect("it is there");
                let bundle: Value = serde_json::from_slice(&bytes).expect("JSON");
                let payload = bundle["dsseEnvelope"]["payload"].as_str().expect("a text");
                let statement = serde_json::from_slice(&STANDARD.decode(payload).expect("base64")).expect("JSON");
                pieces.push(Piece { digest: referrer.digest, layer, bundle, statement });
            }
            pieces
        })
    }

    fn piece(&self, kind: &str) -> Piece {
        let mut pieces = self.pieces().into_iter();
        pieces.find(|piece| piece.statement["predicateType"] == kind).unwrap_or_else(|| panic!("there is {kind}"))
    }

    /// Attaches a bundle as whoever may push could: all digests are right.
    fn attach(&self, bundle: &Value, subject: &Digest, size: u64) -> Digest {
        let bytes = bundle.to_string().into_bytes();
        let layer = Descriptor::of(evidence::BUNDLE_TYPE, &bytes);
        let empty = Descriptor::of(media_type::EMPTY, b"{}");
        let manifest = Manifest {
            artifact_type: Some(evidence::BUNDLE_TYPE.into()),
            subject: Some(Descriptor::new(media_type::MANIFEST, subject.clone(), size)),
            ..Manifest::image(empty, vec![layer.clone()])
        };
        let manifest = serde_json::to_vec(&manifest).expect("JSON");
        let digest = Digest::of(&manifest);
        self.runtime.block_on(async {
            let place = self.image.with_digest(digest.clone());
            self.client.upload_blob(&self.image, &layer, bytes, None, &NoProgress).await.expect("it is taken");
            self.client.put_manifest(&place, media_type::MANIFEST, manifest).await.expect("it is taken");
        });
        digest
    }

    fn delete(&self, digest: &Digest) {
        let place = self.image.with_digest(digest.clone());
        self.runtime.block_on(self.client.delete(&place)).expect("it is removed");
    }

    fn verify(&self, words: &[&str]) -> Finished {
        let name = self.image.to_string();
        verify(&self.world, &name, &[&["--key", "../release.pub"], words].concat())
    }

    fn promote(&self) -> Finished {
        self.world.seatrial(["promote", "1.0", "production"]).run()
    }

    fn pull(&self) -> Finished {
        let home = self.world.path("elsewhere");
        let pulled = self.world.seatrial(["pull", "-q", &self.image.to_string()]).env("SEATRIAL_HOME", &home).run();
        let _ = fs::remove_dir_all(home);
        pulled
    }

    /// Nothing may have moved, whatever was tried.
    fn is_untouched(&self) {
        let tag = self.image.with_tag("live");
        let found = self.runtime.block_on(self.client.resolve(&tag));
        assert!(found.is_err_and(|error| error.is_not_found()), "the environment's tag is not written");
    }
}

fn scenes() -> impl Iterator<Item = Scene> {
    std::iter::once_with(|| Some(Scene::new(None)))
        .chain(std::iter::once_with(|| DockerRegistry::start().map(|docker| Scene::new(Some(docker)))))
        .flatten()
}

#[test]
fn a_changed_byte_in_the_registry_is_noticed() {
    for scene in scenes() {
        let (layer, config) = (scene.manifest.layers[0].digest.clone(), scene.manifest.config.digest.clone());
        for (what, digest) in [("layer", layer), ("config", config)] {
            let missing = format!("{what} [ID]: its digest is sha256:");
            scene.with_flipped(&digest, 20, || {
                scene.verify(&["--content"]).exits(1).stderr_has(&format!("is not verified: {missing}"));
                scene.promote().exits(1).stderr_has(&format!("✗ content: {missing}"));
                scene.pull().exits(3).stderr_has("wrong content for sha256:");
            });
            fs::rename(scene.file(&digest), scene.file(&digest).with_extension("away")).expect("moved");
            scene.verify(&["--content"]).exits(1).stderr_has(&format!("{what} [ID]: it is not there"));
            fs::rename(scene.file(&digest).with_extension("away"), scene.file(&digest)).expect("moved");
        }
        // The signature, where it is and where what it signs is.
        let signature = scene.piece(predicate::SIGNATURE);
        let text = fs::read_to_string(scene.file(&signature.layer.digest)).expect("a text");
        for field in ["\"payload\":\"", "\"sig\":\"", "\"hint\":\""] {
            let at = text.find(field).expect("the field is there") + field.len() + 5;
            let missing = "no signature (1 found that is not readable)";
            scene.with_flipped(&signature.layer.digest, at, || {
                scene.verify(&[]).exits(1).stderr_has(missing);
                scene.promote().exits(1).stderr_has(missing);
            });
        }
        for (kind, wanted, missing) in
            [(predicate::SPDX, "sbom", "no list of packages"), (predicate::PROVENANCE, "provenance", "no provenance")]
        {
            let flipped = scene.piece(kind).layer.digest;
            let changed = scene.with_flipped(&flipped, 300, || scene.verify(&["--require", wanted]));
            changed.exits(1).stderr_has(&format!("{missing} (1 found that is not readable)"));
        }
        // What attaches it. Our server keeps manifests in memory, where nobody reaches them.
        if scene.docker.is_some() {
            // Within the word for what a layer is: it stays a manifest that docker's registry gives away.
            let word = |digest: &Digest| {
                let text = fs::read_to_string(scene.file(digest)).expect("a text");
                let layers = text.find("\"layers\"").expect("it has layers");
                layers + text[layers..].find("application/").expect("of a type") + 3
            };
            scene.with_flipped(&signature.digest, word(&signature.digest), || {
                scene.verify(&[]).exits(1).stderr_has("no signature (1 found that is not readable)");
            });
            scene.with_flipped(&scene.digest, word(&scene.digest), || {
                let wrong = "wrong content for sha256:";
                scene.verify(&[]).exits(3).stderr_has(wrong);
                scene.promote().exits(3).stderr_has(wrong);
                scene.pull().exits(3).stderr_has(wrong);
            });
        }
        scene.is_untouched();
        // As it was, everything holds.
        scene.verify(&["--content", "--require", "signature,gates,sbom,provenance"]).exits(0).stderr_has("✓ content: ");
        scene.pull().exits(0);
        scene.promote().exits(0);
    }
}

#[test]
fn whoever_may_push_cannot_make_evidence() {
    for scene in scenes() {
        let signature = scene.piece(predicate::SIGNATURE);
        let size = 500;
        let encode = |statement: &Value| Value::from(STANDARD.encode(statement.to_string()));
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut bundle = signature.bundle.clone();
            change(&mut bundle["dsseEnvelope"]);
            bundle
        };
        let other = Digest::of(b"another image");
        let payload = |swap: &dyn Fn(&mut Value)| {
            let mut statement = signature.statement.clone();
            swap(&mut statement);
            changed(&|envelope| envelope["payload"] = encode(&statement))
        };
        // The signature of the SBOM below another statement, and the SBOM called a signature.
        let sbom = scene.piece(predicate::SPDX);
        let mut renamed = sbom.statement.clone();
        renamed["predicateType"] = predicate::SIGNATURE.into();
        let mut swapped = sbom.bundle.clone();
        swapped["dsseEnvelope"]["payload"] = encode(&renamed);
        let not_signed = "not signed by a trusted key, or changed since";
        let flip = |text: &Value| {
            let text = text.as_str().expect("a text");
            // Within the text: the last character may carry bits that mean nothing.
            let flipped = if text[10..].starts_with('A') { 'B' } else { 'A' };
            Value::from(format!("{}{flipped}{}", &text[..10], &text[11..]))
        };
        let cases = [
            (
                "swapped subject",
                payload(&|said| said["subject"][0]["digest"]["sha256"] = other.hex().into()),
                not_signed,
            ),
            ("one byte of the statement", payload(&|said| said["subject"][0]["name"] = "x".into()), not_signed),
            (
                "one byte of the signature",
                changed(&|one| one["signatures"][0]["sig"] = flip(&one["signatures"][0]["sig"])),
                not_signed,
            ),
            ("another type of payload", changed(&|one| one["payloadType"] = "text/plain".into()), "not readable"),
            ("another type of statement", swapped, not_signed),
            (
                "another key's name",
                {
                    let mut bundle = signature.bundle.clone();
                    bundle["verificationMaterial"]["publicKey"]["hint"] = "someone else".into();
                    bundle
                },
                "not readable",
            ),
            ("no signature at all", changed(&|one| one["signatures"] = json!([])), not_signed),
        ];
        scene.delete(&signature.digest);
        for (what, bundle, reason) in cases {
            let attached = scene.attach(&bundle, &scene.digest, size);
            let missing = format!("no signature (1 found that is {reason})");
            let told = scene.verify(&[]).exits(1).stderr();
            assert!(told.contains(&missing), "{what}: {told}");
            let told = scene.promote().exits(1).stderr();
            assert!(told.contains(&missing), "{what}: {told}");
            scene.delete(&attached);
        }
        // Nothing is left of it, in the list either.
        assert_eq!(scene.pieces().len(), 5);

        // Replayed for another image: attached to it, and attached here with what was said there.
        let tiny = scene.image.with_tag("tiny");
        scene.world.seatrial(["tag", "tiny:1", &tiny.to_string()]).run().exits(0);
        scene.world.seatrial(["push", "-q", &tiny.to_string()]).cwd(scene.world.path("home")).run().exits(0);
        let there = scene.runtime.block_on(scene.client.resolve(&tiny)).expect("it is there");
        scene.attach(&signature.bundle, &there.digest, there.size);
        verify(&scene.world, &tiny.to_string(), &["--key", "../release.pub"])
            .exits(1)
            .stderr_has("no signature (1 found that is about another image)");
        scene.is_untouched();
        // The signature itself counts wherever it comes from.
        scene.attach(&signature.bundle, &scene.digest, size);
        scene.verify(&[]).exits(0);
    }
}

#[test]
fn what_was_said_long_ago_is_too_old() {
    let world = world_with_image();
    let name = format!("{}/team/tiny:1", world.registry());
    world.seatrial(["tag", "tiny:1", &name]).run().exits(0);
    let pushed = world.seatrial(["push", "-q", &name]).run().exits(0).stdout();
    let digest: Digest = pushed.trim().rsplit('@').next().expect("a digest").parse().expect("a digest");
    let signer = Signer::of(SigningKey::generate(KeyKind::Ecdsa).expect("random numbers"));
    let subject = Resource::image("team/tiny", &digest);
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let provenance = Provenance {
        subject: subject.clone(),
        parameters: Parameters::default(),
        dependencies: Vec::new(),
        builder: evidence::BUILDER_ID.into(),
        version: "0".into(),
        internal: serde_json::Map::new(),
        run: Some(evidence::Invocation { id: "1".into(), started: long_ago, finished: long_ago }),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (client, image): (Client, Reference) = (Client::new(ClientOptions::default()), name.parse().expect("a name"));
    for statement in [provenance.statement(), Statement::signature(subject)] {
        let bundle = Bundle::sign(&statement, &signer).expect("it signs");
        let attachment =
            Attachment::new(&bundle, &statement, &Descriptor::new(media_type::MANIFEST, digest.clone(), 500));
        runtime.block_on(evidence::promotion::attach(&client, &image, &attachment)).expect("it is taken");
    }
    world.file("old.pub", &signer.public().to_pem());
    world.file("policy.yaml", "keys: [old.pub]\nrequire: [signature, provenance]\n");
    verify(&world, &name, &["--policy", "policy.yaml"]).exits(0);
    world.file("policy.yaml", "keys: [old.pub]\nrequire: [signature]\nmax_age: 30d\n");
    verify(&world, &name, &["--policy", "policy.yaml"]).exits(1).stderr_has("✗ age: the newest statement is ");
    world.file(
        "policy.yaml",
        "keys: [old.pub]\nrequire: [signature, sbom]\nexceptions: [{for: sbom, until: 2024-01-01}]\n",
    );
    verify(&world, &name, &["--policy", "policy.yaml"])
        .exits(1)
        .stderr_has("no list of packages; the exception for `sbom` has expired on 2024-01-01");
}

/// What `cosign attest` (before 3) puts below `sha256-….att`: a layer for each envelope, with its annotations.
struct OlderAttestations<'a> {
    runtime: &'a tokio::runtime::Runtime,
    client: &'a Client,
    image: &'a Reference,
    layers: Vec<Descriptor>,
}

impl OlderAttestations<'_> {
    /// Adds a layer, and lets the tag name all that there are.
    fn push(&mut self, envelope: &Value, predicate_type: &str, about: &Digest) {
        let bytes = envelope.to_string().into_bytes();
        let mut layer = Descriptor::of("application/vnd.dsse.envelope.v1+json", &bytes);
        layer.annotations = [("dev.cosignproject.cosign/signature", ""), ("predicateType", predicate_type)]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        self.layers.push(layer.clone());
        let diff_ids: Vec<&Digest> = self.layers.iter().map(|layer| &layer.digest).collect();
        let config = json!({
            "architecture": "", "created": "0001-01-01T00:00:00Z", "os": "", "config": {},
            "history": vec![json!({"created": "0001-01-01T00:00:00Z"}); diff_ids.len()],
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let descriptor = Descriptor::of(media_type::CONFIG, &config);
        let manifest = serde_json::to_vec(&Manifest::image(descriptor.clone(), self.layers.clone())).expect("JSON");
        let tag = self.image.with_tag(&format!("sha256-{}.att", about.hex()));
        self.runtime.block_on(async {
            self.client.upload_blob(&tag, &layer, bytes, None, &NoProgress).await.expect("it is taken");
            self.client.upload_blob(&tag, &descriptor, config, None, &NoProgress).await.expect("it is taken");
            self.client.put_manifest(&tag, media_type::MANIFEST, manifest).await.expect("it is taken");
        });
    }
}

#[test]
fn attestations_of_cosigns_older_layout_count_and_changed_ones_do_not() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nCOPY Dockerfile /other\n");
    world.seatrial(["build", "-q", "-t", "other:1"]).run().exits(0);
    let push = |from: &str, name: &str| -> (String, Digest) {
        let name = format!("{}/team/{name}:1", world.registry());
        world.seatrial(["tag", from, &name]).run().exits(0);
        let pushed = world.seatrial(["push", "-q", &name]).run().exits(0).stdout();
        (name, pushed.trim().parse().expect("a digest"))
    };
    let ((name, digest), (other, other_digest)) = (push("tiny:1", "tiny"), push("other:1", "tiny-other"));
    let signer = Signer::of(SigningKey::generate(KeyKind::Ecdsa).expect("random numbers"));
    world.file("cosign.pub", &signer.public().to_pem());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (client, image): (Client, Reference) = (Client::new(ClientOptions::default()), name.parse().expect("a name"));
    // As cosign writes it: an envelope whose key has no name, around a statement of version 0.1.
    let envelope = |predicate_type: &str, predicate: Value, about: &Digest| {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v0.1", "predicateType": predicate_type,
            "subject": [{"name": format!("{}/team/tiny", world.registry()), "digest": {"sha256": about.hex()}}],
            "predicate": predicate,
        });
        let payload = statement.to_string().into_bytes();
        let signature =
            signer.sign(&evidence::pre_authentication(evidence::STATEMENT_PAYLOAD, &payload)).expect("it signs");
        json!({
            "payloadType": evidence::STATEMENT_PAYLOAD, "payload": STANDARD.encode(payload),
            "signatures": [{"keyid": "", "sig": STANDARD.encode(signature)}],
        })
    };
    let source = json!({"uri": "git+https://git.example/team/tiny@refs/heads/main"});
    let provenance = json!({
        "buildType": "https://example.org/build", "builder": {"id": "https://ci.example"}, "materials": [],
        "invocation": {"configSource": source}, "metadata": {"buildFinishedOn": "2023-11-14T22:13:20Z"},
    });
    let list = json!({"spdxVersion": "SPDX-2.3", "packages": []});
    let old_provenance = "https://slsa.dev/provenance/v0.2";
    let spdx = |about: &Digest| envelope(predicate::SPDX, list.clone(), about);
    let check = |name: &str, require: &str| verify(&world, name, &["--key", "cosign.pub", "--require", require]);

    let beside = |image| OlderAttestations { runtime: &runtime, client: &client, image, layers: Vec::new() };
    let mut attached = beside(&image);
    attached.push(&envelope(old_provenance, provenance, &digest), old_provenance, &digest);
    check(&name, "provenance").exits(0);
    check(&name, "sbom").exits(1).stderr_has("no list of packages");
    // One byte of the statement, one of the signature, a swapped subject, no signature: each is there and does not count.
    let mut renamed = spdx(&digest);
    renamed["payload"] = spdx(&other_digest)["payload"].clone();
    let mut flipped = spdx(&digest);
    let signature = flipped["signatures"][0]["sig"].as_str().expect("a text").to_owned();
    let letter = if signature.as_bytes()[20] == b'A' { "B" } else { "A" };
    flipped["signatures"][0]["sig"] = format!("{}{letter}{}", &signature[..20], &signature[21..]).into();
    let mut bare = spdx(&digest);
    bare["signatures"] = json!([]);
    for changed in [renamed, flipped, bare] {
        attached.push(&changed, predicate::SPDX, &digest);
    }
    attached.push(&spdx(&other_digest), predicate::SPDX, &digest);
    attached.push(&json!({"payload": "%"}), predicate::SPDX, &digest);
    check(&name, "sbom").exits(1).stderr_has(
        "no list of packages (3 found that are not signed by a trusted key, or changed since, 1 found that is about \
         another image, 1 found that is not readable)",
    );
    // None of it hides what is whole.
    attached.push(&spdx(&digest), predicate::SPDX, &digest);
    check(&name, "sbom,provenance").exits(0);
    world.file(
        "policy.yaml",
        "keys: [cosign.pub]\nprovenance: {source: \"https://git.example/team/*\", builder: \"https://ci.example\"}\n",
    );
    verify(&world, &name, &["--policy", "policy.yaml"]).exits(0);
    world.file("policy.yaml", "keys: [cosign.pub]\nrequire: [provenance]\nmax_age: 30d\n");
    verify(&world, &name, &["--policy", "policy.yaml"]).exits(1).stderr_has("✗ age: the newest statement is ");
    let listed =
        world.seatrial(["evidence", &name, "--key", "cosign.pub", "--format", "{{.Kind}} {{.Form}} {{.Verified}}"]);
    let listed = listed.run().exits(0).stdout();
    assert_eq!(listed.lines().filter(|line| *line == "sbom (SPDX) legacy attestation true").count(), 1, "{listed}");
    assert!(listed.contains("provenance (SLSA 0.2) legacy attestation true"), "{listed}");
    world.seatrial(["sbom", "--attached", &name, "--key", "cosign.pub", "--format", "spdx-json"]).run().exits(0);
    // A copy takes them along; below another image's tag they are replayed, and do not count.
    let copy = format!("{}/elsewhere/tiny:1", world.registry());
    world.seatrial(["copy", &name, &copy]).run().exits(0);
    check(&copy, "sbom,provenance").exits(0);
    let other_image: Reference = other.parse().expect("a name");
    beside(&other_image).push(&spdx(&digest), predicate::SPDX, &other_digest);
    check(&other, "sbom").exits(1).stderr_has("no list of packages (1 found that is about another image)");
}
