//! `promote`, `approve`, `rollback`, `history`, `where`: a digest walks through environments of a real registry.

use std::{path::Path, process::Command};

use testkit::World;

use crate::world_with_image;

/// A key pair by openssl, as anybody would make it.
fn key(directory: &Path, name: &str) {
    let openssl = |arguments: &[&str]| {
        let status =
            Command::new("openssl").args(arguments).current_dir(directory).status().expect("openssl is installed");
        assert!(status.success(), "openssl {arguments:?}");
    };
    let (private, public) = (format!("{name}.key"), format!("{name}.pub"));
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", &private]);
    openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
}

/// A repository with two pushed versions; their digests.
fn pushed(world: &World, address: &str, environments: &str) -> [String; 2] {
    world
        .file("Dockerfile", "FROM tiny:1\nARG VERSION\nLABEL version=$VERSION\n")
        .file("seatrial.yaml", &format!("image: {address}/team/app\nenvironments:\n{environments}"));
    ["1.0", "2.0"].map(|version| {
        let (name, argument) = (format!("{address}/team/app:{version}"), format!("VERSION={version}"));
        world.seatrial(["build", "-q", "--build-arg", &argument, "-t", &name, "."]).run().exits(0);
        let pushed = world.seatrial(["push", "-q", &name]).run().exits(0).stdout();
        let digest = pushed.trim().rsplit('@').next().unwrap_or_default().to_owned();
        assert!(digest.starts_with("sha256:"), "{pushed}");
        digest
    })
}

fn walk(world: &World, address: &str) {
    let [one, two] = pushed(
        world,
        address,
        "  develop: {}\n  staging: {after: develop}\n  production: {after: staging, tag: live}\n",
    );
    let promote = |image: &str, environment: &str| {
        world.seatrial(["promote", image, environment, "--by", "ann", "--format", "{{.Digest}} {{.Moved}}"]).run()
    };
    // Nothing is jumped over, and refusing names what is missing.
    let refused = promote("1.0", "staging").exits(1);
    assert!(refused.stderr().contains("✗ after develop: it has not been in develop"), "{}", refused.stderr());
    assert!(refused.stderr().contains("`seatrial promote sha256:[DIGEST] develop`"), "{}", refused.stderr());
    for environment in ["develop", "staging", "production"] {
        assert_eq!(promote("1.0", environment).exits(0).stdout(), format!("{one} true\n"));
        assert_eq!(promote("1.0", environment).exits(0).stdout(), format!("{one} false\n"));
    }
    // The next one; what has been in an environment counts also when that has gone on.
    promote("2.0", "develop").exits(0);
    promote(&two, "staging").exits(0);
    promote("1.0", "staging").exits(0);
    let told = world.seatrial(["promote", "2.0", "production", "-n"]).run().exits(0).stderr();
    assert!(told.contains("✓ after staging: it was there at "), "{told}");
    let where_is = |image: &str| {
        world.seatrial(["where", image, "--format", "{{.Environment}} {{.Current}}"]).run().exits(0).stdout()
    };
    assert_eq!(where_is("1.0"), "develop false\nstaging true\nproduction true\n");
    promote("2.0", "production").exits(0);
    assert_eq!(where_is(&format!("{address}/team/app:live")), "develop true\nstaging false\nproduction true\n");

    // Back, and not forth again.
    let back = world.seatrial(["rollback", "production", "--by", "bob"]).run().exits(0).stdout();
    assert_eq!(back, format!("{address}/team/app:live@{one}\n"));
    world.seatrial(["rollback", "production"]).run().exits(1).stderr_has("what production had before is not recorded");
    world.seatrial(["rollback", "production", "--to", "2.0", "--by", "eve"]).run().exits(0);
    let history = world.seatrial(["history", "production", "--format", "{{.Digest}} {{.Action}} {{.By}} {{.Record}}"]);
    let expected = [(&two, "rollback eve"), (&one, "rollback bob"), (&two, "promote ann"), (&one, "promote ann")];
    let expected: String = expected.iter().map(|(digest, how)| format!("{digest} {how} unsigned\n")).collect();
    assert_eq!(history.run().exits(0).stdout(), expected);
    world.seatrial(["promote", "1.0", "prodction"]).run().exits(2).stderr_has("did you mean `production`?");
}

#[test]
fn one_digest_walks_from_environment_to_environment() {
    let world = world_with_image();
    let address = world.registry().to_string();
    walk(&world, &address);
}

#[test]
fn what_an_environment_asks_for_is_asked_for() {
    let world = world_with_image();
    let address = world.registry().to_string();
    std::fs::create_dir(world.repo().join("keys")).expect("made");
    ["ops", "release", "other"].iter().for_each(|name| key(&world.repo().join("keys"), name));
    let [one, _] = pushed(
        &world,
        &address,
        "  production: {approve: [ops], require: [signature], keys: [keys/ops.pub, keys/release.pub]}\n",
    );
    let promote = || world.seatrial(["promote", "1.0", "production", "--key", "keys/release.key", "--by", "ann"]).run();
    let refused = promote().exits(1).stderr();
    assert!(refused.contains("✗ signature: "), "{refused}");
    assert!(refused.contains("✗ approval by ops: ops has not approved it"), "{refused}");
    let approve = |key: &str| world.seatrial(["approve", &one, "production", "--key", key]).run();
    approve("keys/other.key").exits(1).stderr_has("this key approves nothing for production");
    world.seatrial(["approve", "1.0", "production"]).run().exits(2).stderr_has("an approval needs a key");
    // The approval of another image is none for this one.
    world.seatrial(["approve", "2.0", "production", "--key", "keys/ops.key"]).run().exits(0);
    assert!(promote().exits(1).stderr().contains("ops has not approved it"));
    approve("keys/ops.key").exits(0);
    let refused = promote().exits(1).stderr();
    assert!(refused.contains("✓ approval by ops: approved, and signed"), "{refused}");
    assert!(refused.contains("may not come into production: signature"), "{refused}");
    // Without that requirement it may, and the record is signed.
    world.file(
        "seatrial.yaml",
        &format!("image: {address}/team/app\nenvironments:\n  production: {{approve: [ops], keys: [keys/ops.pub, keys/release.pub]}}\n"),
    );
    promote().exits(0);
    let told = world.seatrial(["history", "--format", "{{.By}} {{.ApprovedBy}} {{.Record}}"]).run().exits(0).stdout();
    assert_eq!(told, "ann [\"ops\"] signed by release\n");
    // Whoever does not know the key cannot tell who signed.
    world.file(
        "seatrial.yaml",
        &format!("image: {address}/team/app\nenvironments:\n  production: {{keys: [keys/ops.pub]}}\n"),
    );
    let told = world.seatrial(["history", "--format", "{{.Record}}"]).run().exits(0).stdout();
    assert_eq!(told, "signed by an unknown key\n");
}
