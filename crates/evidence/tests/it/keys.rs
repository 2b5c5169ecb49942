//! Keys that others made are read, and others read ours.

use std::{fs, process::Command, time::Duration};

use evidence::{KeyFileError, KeyKind, KeySource, PROGRAM_TIME, PublicKey, Secrets, SigningKey, pre_authentication};
use zeroize::Zeroizing;

fn openssl(directory: &std::path::Path, args: &[&str]) -> bool {
    let output = Command::new("openssl").args(args).current_dir(directory).output().expect("openssl is installed");
    output.status.success()
}

#[test]
fn what_is_signed_has_the_lengths_of_its_parts() {
    // DSSE, protocol.md, "Test Vectors".
    let message = pre_authentication("http://example.com/HelloWorld", b"hello world");
    assert_eq!(message, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
}

#[test]
fn openssl_verifies_our_signatures_and_we_read_its_keys() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    fs::write(at.join("message"), b"a message").expect("written");
    for kind in [KeyKind::Ecdsa, KeyKind::Ed25519] {
        let key = SigningKey::generate(kind).expect("a key");
        fs::write(at.join("key.pub"), key.public().to_pem()).expect("written");
        fs::write(at.join("signature"), key.sign(b"a message")).expect("written");
        // What is written is read by others as well.
        fs::write(at.join("key.key"), key.to_pem(None).expect("a PEM").as_bytes()).expect("written");
        assert!(openssl(at, &["pkey", "-in", "key.key", "-pubout", "-out", "again.pub"]), "{kind:?}");
        assert_eq!(fs::read_to_string(at.join("again.pub")).expect("read"), key.public().to_pem());
        let verify: &[&str] = match kind {
            KeyKind::Ecdsa => &["dgst", "-sha256", "-verify", "key.pub", "-signature", "signature", "message"],
            KeyKind::Ed25519 => &[
                "pkeyutl",
                "-verify",
                "-pubin",
                "-inkey",
                "key.pub",
                "-rawin",
                "-in",
                "message",
                "-sigfile",
                "signature",
            ],
        };
        assert!(openssl(at, verify), "{kind:?}");
        fs::write(at.join("message"), b"A message").expect("written");
        assert!(!openssl(at, verify), "{kind:?}: another message is noticed");
        fs::write(at.join("message"), b"a message").expect("written");
    }
    let made: [(&[&str], KeyKind); 3] = [
        (&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "made.key"], KeyKind::Ecdsa),
        (&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "made.key"], KeyKind::Ecdsa),
        (&["genpkey", "-algorithm", "ED25519", "-out", "made.key"], KeyKind::Ed25519),
    ];
    for (make, kind) in made {
        assert!(openssl(at, make));
        assert!(openssl(at, &["pkey", "-in", "made.key", "-pubout", "-out", "made.pub"]));
        let key =
            SigningKey::from_pem(&fs::read_to_string(at.join("made.key")).expect("read"), &|| None).expect("a key");
        let public =
            PublicKey::from_pem(&fs::read_to_string(at.join("made.pub")).expect("read")).expect("a public key");
        assert_eq!((public.kind(), &key.public()), (kind, &public), "{make:?}");
        assert!(public.verifies(b"m", &key.sign(b"m")));
        assert!(!public.verifies(b"n", &key.sign(b"m")));
    }
    assert!(openssl(at, &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "made.key"]));
    let rsa = SigningKey::from_pem(&fs::read_to_string(at.join("made.key")).expect("read"), &|| None);
    assert!(matches!(rsa, Err(KeyFileError::OtherKind)));
}

#[test]
fn a_password_is_needed_and_has_to_be_right() {
    let key = SigningKey::generate(KeyKind::Ecdsa).expect("a key");
    let pem = key.to_pem(Some("open sesame")).expect("random numbers");
    assert!(pem.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"));
    let with = |password: Option<&'static str>| {
        SigningKey::from_pem(&pem, &|| password.map(|password| Zeroizing::new(password.to_owned())))
    };
    assert_eq!(with(Some("open sesame")).expect("it opens").public(), key.public());
    assert!(matches!(with(Some("open barley")), Err(KeyFileError::WrongPassword)));
    assert!(matches!(with(None), Err(KeyFileError::NoPassword)));
    assert!(!format!("{key:?}").contains(key.to_pem(None).expect("a PEM").lines().nth(1).expect("a line")));
}

#[test]
fn keys_come_from_files_variables_and_programs() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let key = SigningKey::generate(KeyKind::Ecdsa).expect("a key");
    let pem = key.to_pem(None).expect("a PEM");
    fs::write(at.join("release.key"), pem.as_bytes()).expect("written");
    fs::write(at.join("release.pub"), key.public().to_pem()).expect("written");
    // What stands in for a key service: it keeps the key, and signs what it is given.
    let program = "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit\nif [ \"$2\" = public-key ]; then cat release.pub; else \
                   [ \"$1\" = mine ] && openssl dgst -sha256 -sign release.key | base64; fi\n";
    fs::write(at.join("kms"), program).expect("written");
    fs::write(at.join("liar"), program.replace("-sign release.key", "-sign other.key")).expect("written");
    fs::write(
        at.join("other.key"),
        SigningKey::generate(KeyKind::Ecdsa).expect("a key").to_pem(None).expect("a PEM").as_bytes(),
    )
    .expect("written");
    let env = |name: &str| (name == "COSIGN_KEY").then(|| pem.to_string());
    let secrets = Secrets { env: &env, password: &|| None, directory: at, program_time: PROGRAM_TIME };
    for source in ["release.key", "env://COSIGN_KEY", "exec://sh kms mine"] {
        let signer = source.parse::<KeySource>().expect("a source").open(secrets).expect(source);
        assert_eq!(*signer.public(), key.public());
        let signature = signer.sign(b"what is signed").expect(source);
        assert!(key.public().verifies(b"what is signed", &signature), "{source}");
    }
    let failing = [
        ("none.key", "cannot sign with none.key: the file cannot be read"),
        ("env://OTHER", "cannot sign with env://OTHER: the variable is not set"),
        ("exec://sh kms theirs", "cannot sign with exec://sh kms theirs: the program ended with exit status: 1"),
        (
            "exec://sh liar mine",
            "cannot sign with exec://sh liar mine: what the program wrote is no signature by its key",
        ),
    ];
    for (source, message) in failing {
        let source: KeySource = source.parse().expect("a source");
        let error = source.open(secrets).and_then(|signer| signer.sign(b"m")).expect_err(message);
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert_eq!(format!("{error}: {cause}"), message);
    }
    // What gives its bytes once, as a pipe does, is read by who signs, and not by who only looks.
    let pipe: KeySource = "/dev/null".parse().expect("a source");
    assert!(pipe.look(secrets).is_ok() && pipe.open(secrets).is_err());
    for wrong in ["", "env://", "exec:// ", "awskms:///alias/key", &pem] {
        let error = wrong.parse::<KeySource>().expect_err("it is no source").to_string();
        assert!(!error.contains("MI"), "{error}");
    }
}

#[test]
fn programs_that_hang_or_never_stop_talking_are_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let public = SigningKey::generate(KeyKind::Ecdsa).expect("a key").public().to_pem();
    fs::write(at.join("release.pub"), public).expect("written");
    let program = "#!/bin/sh\nif [ \"$2\" = public-key ]; then cat release.pub; exit; fi\necho $$ >pid\n. \"$1\"\n";
    fs::write(at.join("kms"), program).expect("written");
    // One never answers, one closes its output and stays, one writes for ever.
    fs::write(at.join("silent"), "exec sleep 1000\n").expect("written");
    fs::write(at.join("closing"), "exec >&-; exec sleep 1000\n").expect("written");
    fs::write(at.join("talking"), "exec yes\n").expect("written");
    let secrets = Secrets { env: &|_| None, password: &|| None, directory: at, program_time: Duration::from_secs(1) };
    for (source, message) in [
        ("exec://sh kms ./silent", "the program gave no answer within 1 s"),
        ("exec://sh kms ./closing", "the program gave no answer within 1 s"),
        ("exec://sh kms ./talking", "the program wrote more than 65536 bytes"),
    ] {
        let signer = source.parse::<KeySource>().expect("a source").open(secrets).expect(source);
        let error = signer.sign(b"m").expect_err(source);
        assert_eq!(error.kind.to_string(), message, "{source}");
        // `exec` and `.`: the program that hangs is the very process that was started.
        let pid = fs::read_to_string(at.join("pid")).expect("it was started");
        assert!(!std::path::Path::new("/proc").join(pid.trim()).exists(), "{source} is still there");
    }
}
