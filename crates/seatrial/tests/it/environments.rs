//! `promote`, `approve`, `rollback`, `history`, `where`: a digest walks through environments of a real registry.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
};

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
    check_reading(world, address, [&one, &two]);
    world.seatrial(["promote", "1.0", "prodction"]).run().exits(2).stderr_has("did you mean `production`?");
}

/// `history` and `where` about images, here and where no pipeline file is.
fn check_reading(world: &World, address: &str, [one, two]: [&str; 2]) {
    let repository = format!("{address}/team/app");
    let outside = world.path("home");
    let ask = |words: &[&str]| world.seatrial(words.iter().copied());
    let lines = |session: testkit::Session| session.run().exits(0).stdout();
    let format = "{{.Environment}} {{.Action}} {{.By}}";
    // One image: where it came, the newest first.
    let of_two = "production rollback eve\nproduction promote ann\nstaging promote ann\ndevelop promote ann\n";
    assert_eq!(lines(ask(&["history", "2.0", "--format", format])), of_two);
    assert_eq!(lines(ask(&["history", &format!("{repository}@{two}"), "--format", format]).cwd(&outside)), of_two);
    // A repository: its environments are found by their records, and are those that the file has.
    let all = lines(ask(&["history", "--format", "{{.Digest}} {{.Environment}} {{.Time}}", "--limit", "0"]));
    let by_records =
        ask(&["history", &repository, "--format", "{{.Digest}} {{.Environment}} {{.Time}}", "--limit", "0"]);
    assert_eq!(lines(by_records.cwd(&outside)), all);
    let times: Vec<&str> = all.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert!(times.len() == 9 && times.is_sorted_by(|newer, older| newer >= older), "{all}");
    let newest = ask(&["history", &repository, "--limit", "3"]).cwd(&outside).run().exits(0);
    assert_eq!(newest.stdout().lines().count(), 4, "{}", newest.stdout());
    assert!(newest.stderr().contains("the newest 3 records"), "{}", newest.stderr());
    let value: serde_json::Value =
        serde_json::from_str(&lines(ask(&["history", "production", "--limit", "1", "--json"]))).expect("JSON");
    assert_eq!((value["Digest"].as_str(), value["From"].as_str()), (Some(two), Some(one)), "{value}");
    let found = lines(
        ask(&["where", &format!("{repository}:live"), "--format", "{{.Environment}} {{.Current}}"]).cwd(&outside),
    );
    assert_eq!(found, "develop true\nproduction true\nstaging false\n");
    let told = ask(&["where", one]).cwd(&outside).run().exits(2);
    assert!(told.stderr().contains("a digest alone does not tell its repository"), "{}", told.stderr());
    ask(&["where", &repository]).cwd(&outside).run().exits(2).stderr_has("names no image");
    ask(&["history"]).cwd(&outside).run().exits(2).stderr_has("there is no pipeline file here");
    ask(&["history", "prodction"]).run().exits(2).stderr_has("did you mean `production`?");
}

#[test]
fn one_digest_walks_from_environment_to_environment() {
    let world = world_with_image();
    let address = world.registry().to_string();
    walk(&world, &address);
}

/// A tag that somebody moves by hand, and one whose mover was killed before it could record the move, look the same.
#[test]
fn a_move_without_a_record_is_told_and_made_up_for() {
    let world = world_with_image();
    let address = world.registry().to_string();
    let [one, two] = pushed(&world, &address, "  live: {}\n");
    let run = |words: &[&str]| world.seatrial(words.iter().copied()).run().exits(0);
    let move_by_hand = |version: &str| {
        run(&["copy", &format!("{address}/team/app:{version}"), &format!("{address}/team/app:live")]);
    };
    let history = |expected: &[(&String, &str)]| {
        let lines = expected.iter().map(|(digest, how)| format!("{digest} {how}\n")).collect::<String>();
        assert_eq!(run(&["history", "live", "--format", "{{.Digest}} {{.Action}}"]).stdout(), lines);
    };
    run(&["promote", "1.0", "live"]);
    move_by_hand("2.0");
    history(&[(&two, "unrecorded"), (&one, "promote")]);
    let table = run(&["history"]).stdout();
    assert!(table.lines().nth(1).is_some_and(|line| line.contains("unrecorded") && line.contains("none")), "{table}");
    // Back to what is recorded, also by name.
    for words in [&["rollback", "live", "-n"][..], &["rollback", "live", "-n", "--to", "1.0"]] {
        assert!(run(words).stderr().contains("live would go back to "), "{words:?}");
    }
    // What is there already is recorded by being promoted.
    let promote = || run(&["promote", "2.0", "live", "--format", "{{.Moved}}"]);
    let told = promote();
    assert!(told.stdout() == "false\n" && told.stderr().contains("not recorded: now it is"), "{}", told.stderr());
    history(&[(&two, "promote"), (&one, "promote")]);
    assert!(!promote().stderr().contains("not recorded"));
    history(&[(&two, "promote"), (&one, "promote")]);
    // A rollback that was cut off before its record is completed by the next one, which goes no further back.
    move_by_hand("1.0");
    history(&[(&one, "unrecorded"), (&two, "promote"), (&one, "promote")]);
    assert_eq!(run(&["rollback", "live"]).stdout(), format!("{address}/team/app:live@{one}\n"));
    history(&[(&one, "rollback"), (&two, "promote"), (&one, "promote")]);
}

/// A way to a registry on which tags are listed for nobody.
fn without_lists(registry: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    // Only what asks is looked at; answers go back as they are.
    let carry = |mut from: TcpStream, mut to: TcpStream, answers: Option<TcpStream>| {
        let mut bytes = [0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            let asked = String::from_utf8_lossy(&bytes[..length]);
            let asks_for_tags = asked.lines().next().is_some_and(|line| line.contains("/tags/list"));
            let written = match &answers {
                Some(answers) if asks_for_tags => {
                    (&*answers).write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                }
                _ => to.write_all(&bytes[..length]),
            };
            if written.is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    };
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { break };
            let server = TcpStream::connect(registry).expect("the registry listens");
            let copy = |stream: &TcpStream| stream.try_clone().expect("a stream");
            let (asking, asked, answers) = (copy(&client), copy(&server), copy(&client));
            thread::spawn(move || carry(asking, asked, Some(answers)));
            thread::spawn(move || carry(server, client, None));
        }
    });
    address
}

#[test]
fn who_may_not_list_tags_goes_back_by_the_images_own_records() {
    let world = world_with_image();
    let address = without_lists(world.registry()).to_string();
    let [one, two] = pushed(&world, &address, "  live: {}\n");
    for image in ["1.0", "2.0", "2.0"] {
        world.seatrial(["promote", image, "live"]).run().exits(0);
    }
    let back = world.seatrial(["rollback", "live"]).run().exits(0);
    assert_eq!(back.stdout(), format!("{address}/team/app:live@{one}\n"));
    assert!(back.stderr().contains("may not be listed"), "{}", back.stderr());
    // What its own record tells needs no list.
    let named = world.seatrial(["rollback", "live", "--to", "2.0"]).run().exits(0);
    assert_eq!(named.stdout(), format!("{address}/team/app:live@{two}\n"));
    assert!(!named.stderr().contains("may not be listed"), "{}", named.stderr());
}

/// Who may push can write records of any environment: with a pipeline file of their own, where the same name has another tag,
/// and without a key.
#[test]
fn nobody_elses_records_steer_an_environment() {
    let world = world_with_image();
    let address = world.registry().to_string();
    std::fs::create_dir(world.repo().join("keys")).expect("made");
    key(&world.repo().join("keys"), "rel");
    let [one, two] = pushed(&world, &address, "  live: {keys: [keys/rel.pub]}\n");
    world.file("evil.yaml", &format!("image: {address}/team/app\nenvironments:\n  live: {{tag: evil-env}}\n"));
    world.file("open.yaml", &format!("image: {address}/team/app\nenvironments:\n  live: {{}}\n"));
    let run = |words: &[&str]| world.seatrial(words.iter().copied()).run();
    let history = |file: &str| {
        run(&["history", "live", "-f", file, "--format", "{{.Digest}} {{.Action}} {{.Record}}"]).exits(0).stdout()
    };
    for version in ["1.0", "2.0"] {
        run(&["promote", version, "live", "--key", "keys/rel.key"]).exits(0);
    }
    // The name of the victim's environment, and a tag of their own.
    let evil = format!("{address}/team/app:evil");
    run(&["tag", "tiny:1", &evil]).exits(0);
    world.seatrial(["push", "-q", &evil]).cwd(world.path("home")).run().exits(0);
    for image in ["evil", "1.0", "evil"] {
        run(&["promote", image, "live", "-f", "evil.yaml"]).exits(0);
    }
    let signed = format!("{two} promote signed by rel\n{one} promote signed by rel\n");
    assert_eq!(history("seatrial.yaml"), signed);
    assert_eq!(history("evil.yaml").lines().count(), 3);
    let promote = || run(&["promote", "2.0", "live", "--key", "keys/rel.key"]).exits(0);
    let told = promote().stderr();
    assert!(!told.contains("not recorded"), "{told}");
    let rollback = || run(&["rollback", "live", "--key", "keys/rel.key"]).exits(0).stdout();
    assert_eq!(rollback(), format!("{address}/team/app:live@{one}\n"));
    promote();

    // The victim's own tag, moved there and back: shown, as nobody's, and followed by nothing that is done.
    for image in ["evil", "2.0"] {
        run(&["promote", image, "live", "-f", "open.yaml"]).exits(0);
    }
    assert_eq!(history("seatrial.yaml").matches(" unsigned\n").count(), 2);
    run(&["rollback", "live", "--to", "evil"]).exits(1).stderr_has(" was never in live");
    assert_eq!(rollback(), format!("{address}/team/app:live@{one}\n"));
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

/// A repository whose production asks for everything, with two versions published and signed by its pipeline.
fn guarded(world: &World) -> String {
    let repository = format!("{}/team/app", world.registry());
    std::fs::create_dir(world.repo().join("keys")).expect("made");
    ["ops", "release", "other"].iter().for_each(|name| key(&world.repo().join("keys"), name));
    // What is private is in no image, and in no commit.
    world.file(".gitignore", "keys/*.key\n").file(".dockerignore", "keys\n");
    world.file("Dockerfile", "FROM tiny:1\nCOPY VERSION /\n").file("VERSION", "1.0.0");
    world.file(
        "seatrial.yaml",
        &format!(
            "image: {repository}\nversion: {{file: VERSION}}\nhealth: false\n\
             test: {{gates: {{unit: test -f /VERSION}}}}\n\
             publish: {{tags: [\"${{version}}\"], sign: {{key: \"env://RELEASE_KEY\"}}}}\n\
             environments:\n  dev: {{}}\n  prod:\n    after: dev\n    approve: [ops]\n    \
             require: [signature, provenance, sbom, gates]\n    keys: [keys/ops.pub, keys/release.pub]\n"
        ),
    );
    world.commit();
    let key = std::fs::read_to_string(world.repo().join("keys/release.key")).expect("the key was made");
    let publish = || world.seatrial(["run", "--publish"]).env("RELEASE_KEY", &key).run().exits(0);
    publish();
    world.file("VERSION", "2.0.0").git(&["commit", "--quiet", "--all", "--message", "Second"]);
    publish();
    repository
}

#[test]
fn what_a_pipeline_published_walks_to_production_and_back() {
    let world = world_with_image();
    let repository = guarded(&world);
    let promote = |image: &str, environment: &str| {
        world.seatrial(["promote", image, environment, "--key", "keys/release.key", "--by", "ann"]).run()
    };
    // Each missing piece is named, and only those.
    let refused = promote("1.0.0", "prod").exits(1).stderr();
    assert!(refused.contains(" may not come into prod: after dev, approval by ops\n"), "{refused}");
    for words in ["✗ after dev: it has not been in dev", "✓ signature: ", "✓ gates: ", "✓ provenance: ", "✓ sbom: "]
    {
        assert!(refused.contains(words), "`{words}` is missing in:\n{refused}");
    }
    let approve = |image: &str| world.seatrial(["approve", image, "prod", "--key", "keys/ops.key"]).run().exits(0);
    for version in ["1.0.0", "2.0.0"] {
        promote(version, "dev").exits(0);
        let refused = promote(version, "prod").exits(1).stderr();
        assert!(refused.contains(" may not come into prod: approval by ops\n"), "{refused}");
        approve(version);
        promote(version, "prod").exits(0);
    }
    let format = "{{.Action}} {{.By}} {{.ApprovedBy}} {{.Record}}";
    let history = || world.seatrial(["history", "prod", "--format", format]).run().exits(0).stdout();
    let came = "promote ann [\"ops\"] signed by release\n";
    assert_eq!(history(), came.repeat(2));
    let back = world.seatrial(["rollback", "prod", "--key", "keys/ops.key", "--by", "ops"]).run().exits(0).stdout();
    let digest = |tag: &str| {
        let shown = world.seatrial(["registry", "inspect", "-f", "{{.Digest}}", &format!("{repository}:{tag}")]);
        shown.run().exits(0).stdout().trim().to_owned()
    };
    assert_eq!(back, format!("{repository}:prod@{}\n", digest("1.0.0")));
    assert_eq!(digest("prod"), digest("1.0.0"));
    assert_eq!(history(), format!("rollback ops [] signed by ops\n{}", came.repeat(2)));

    // What nobody signed, and no gate has seen, has nothing of what is asked for.
    let plain = format!("{repository}:plain");
    world.seatrial(["tag", "tiny:1", &plain]).run().exits(0);
    world.seatrial(["push", "-q", &plain]).cwd(world.path("home")).run().exits(0);
    promote("plain", "dev").exits(0);
    let refused = promote("plain", "prod").exits(1).stderr();
    let missing = " may not come into prod: signature, provenance, sbom, gates, approval by ops\n";
    assert!(refused.contains(missing), "{refused}");
    // Nor counts what another key signed: the approval, the evidence, the record of the former environment.
    let trusted = std::fs::read_to_string(world.repo().join("seatrial.yaml")).expect("written");
    let other =
        trusted.replace("keys/release.pub", "keys/other.pub").replace("dev: {}", "dev: {keys: [keys/other.pub]}");
    world.file("seatrial.yaml", &other);
    let refused = promote("1.0.0", "prod").exits(1).stderr();
    let missing = " may not come into prod: after dev, signature, provenance, sbom, gates\n";
    assert!(refused.contains(missing), "{refused}");
    assert!(
        refused.contains("is not signed by a trusted key") || refused.contains("not signed by a trusted key"),
        "{refused}"
    );
    assert_eq!(digest("prod"), digest("1.0.0"), "nothing that was refused has moved anything");
}
