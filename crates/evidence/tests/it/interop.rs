//! What others make of our bundles: sigstore's own models and DSSE, securesystemslib, and the official protos of in-toto and SLSA.

use std::{fs, path::Path, process::Command};

use evidence::{Bundle, GateResult, KeyKind, Statement};

use crate::signed::{gate, provenance, resource, signer, summary};

/// `pip install sigstore securesystemslib[crypto] in-toto-attestation`, as `.ci/run` does.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/sigstore/bin/python3");

const SCRIPT: &str = r#"
import base64, json, sys
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
from sigstore import dsse
from sigstore_models.bundle.v1 import Bundle

# The published proto of the verification summary has one level where SLSA has a list, so it is not asked.
messages = {
    "https://slsa.dev/provenance/v1": provenance_pb2.Provenance,
    "https://in-toto.io/attestation/test-result/v0.1": test_result_pb2.TestResult,
}
key = load_pem_public_key(open(sys.argv[1], "rb").read())
for name in sys.argv[2:]:
    text = open(name, "rb").read()
    bundle = Bundle.from_json(text)
    assert bundle.verification_material.public_key.hint
    if "ecdsa" in name:
        payload = dsse._verify(key, dsse.Envelope(bundle.dsse_envelope))
    envelope = json.loads(text)["dsseEnvelope"]
    known = SSlibKey.from_crypto(key)
    signatures = [{**signature, "keyid": known.keyid} for signature in envelope["signatures"]]
    Envelope.from_dict({**envelope, "signatures": signatures}).verify([known], 1)
    payload = json.loads(base64.b64decode(envelope["payload"]))
    json_format.ParseDict(payload, statement_pb2.Statement())
    message = messages.get(payload["predicateType"])
    if message:
        json_format.ParseDict(payload["predicate"], message())
    print(payload["predicateType"])
"#;

#[test]
fn sigstore_securesystemslib_and_the_official_protos_accept_our_bundles() {
    if !Path::new(PYTHON).exists() {
        let missing = "sigstore, securesystemslib[crypto] and in-toto-attestation from PyPI";
        return testkit::skip(format_args!("no `target/sigstore` with {missing}"));
    }
    let directory = tempfile::tempdir().expect("a directory");
    for (kind, name) in [(KeyKind::Ecdsa, "ecdsa"), (KeyKind::Ed25519, "ed25519")] {
        let signer = signer(kind);
        let statements = [
            Statement::signature(resource()),
            gate("unit", GateResult::Passed),
            gate("lint", GateResult::Warned),
            provenance(1_700_000_000),
            summary(1_700_000_000),
        ];
        let key = directory.path().join(format!("{name}.pub"));
        fs::write(&key, signer.public().to_pem()).expect("written");
        let mut command = Command::new(PYTHON);
        command.args(["-c", SCRIPT]).arg(&key);
        for (number, statement) in statements.iter().enumerate() {
            let path = directory.path().join(format!("{name}-{number}.json"));
            fs::write(&path, Bundle::sign(statement, &signer).expect("it signs").to_bytes()).expect("written");
            command.arg(path);
        }
        let output = command.output().expect("python starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(said.lines().count(), statements.len(), "{said}");
    }
}
