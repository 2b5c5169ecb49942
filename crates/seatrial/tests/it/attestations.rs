//! What `build` says of an image in its index, as BuildKit does; images of several platforms that are signed.

use std::{fs, process::Command};

use serde_json::Value;
use testkit::{GitServer, World};

use crate::{world, world_with_image};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn skopeo(args: &[&str]) -> String {
    let output = Command::new("skopeo").args(args).output().expect("skopeo is installed");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn pieces(world: &World, image: &str) -> Vec<Value> {
    let lines = world.seatrial(["evidence", image, "--format", "json"]).run().exits(0).stdout();
    lines.lines().map(json).collect()
}

fn build(world: &World, words: &[&str]) -> testkit::Finished {
    world.seatrial(["build", "--progress=none"].iter().chain(words)).run()
}

fn make_key(world: &World) {
    world.seatrial(["keys", "generate", "../release"]).run().exits(0);
}

#[test]
fn an_index_says_how_its_image_was_built_and_what_it_holds() {
    let world = world_with_image();
    let git = GitServer::start();
    let commit = git.repository("r.git").commit(&[("f", "1")]);
    let base = format!("{}/team/base:1", world.registry());
    world.seatrial(["tag", "tiny:1", &base]).run().exits(0);
    world.seatrial(["push", &base]).run().exits(0);
    let base_digest = world.seatrial(["registry", "inspect", "-f", "{{.Digest}}", &base]).run().exits(0).stdout();
    let (web, repository) = (format!("http://{}/v2/team/base/tags/list", world.registry()), git.url("r.git"));
    let dockerfile = format!(
        "FROM {base} AS base\nFROM base\nARG COLOUR\nADD {web} /list\nADD {repository} /r/\nCOPY --from=other . /other/\n"
    );
    world.file("Dockerfile", &dockerfile).file("more/x", "x").commit();
    let name = format!("{}/team/app:1", world.registry());
    let other = format!("other={repository}");
    let words = ["--sbom", "--provenance=mode=max", "--build-arg", "COLOUR=red", "--build-context", &other];
    let push = ["--push", "-t", &name, "--metadata-file", "../meta.json", "--format", "{{.Digest}}"];
    let digest = build(&world, &[&words[..], &push].concat()).exits(0).stdout();

    // The layout is BuildKit's, and others find the image in it.
    let remote = format!("docker://{name}");
    let index = json(&skopeo(&["inspect", "--tls-verify=false", "--raw", &remote]));
    let listed = index["manifests"].as_array().unwrap();
    assert_eq!(listed.len(), 2, "{index}");
    let (image, attestation) = (&listed[0], &listed[1]);
    assert_eq!(attestation["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(attestation["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    assert_eq!(attestation["platform"], serde_json::json!({"architecture": "unknown", "os": "unknown"}));
    let at = |digest: &Value| format!("docker://{}/team/app@{}", world.registry(), digest.as_str().unwrap());
    let manifest = json(&skopeo(&["inspect", "--tls-verify=false", "--raw", &at(&attestation["digest"])]));
    let kinds: Vec<(&str, &str)> = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| {
            let kind = layer["annotations"]["in-toto.io/predicate-type"].as_str().unwrap();
            (layer["mediaType"].as_str().unwrap(), kind)
        })
        .collect();
    let in_toto = "application/vnd.in-toto+json";
    assert_eq!(kinds, [(in_toto, "https://spdx.dev/Document"), (in_toto, "https://slsa.dev/provenance/v1")]);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    let config = json(&skopeo(&["inspect", "--tls-verify=false", "--config", &remote]));
    assert_eq!(config["os"], "linux");

    // It is shown, and counts for nothing: nobody has signed it.
    let found = pieces(&world, &name);
    let of =
        |kind: &str| found.iter().find(|piece| piece["Kind"] == kind).unwrap_or_else(|| panic!("{kind}: {found:?}"));
    assert_eq!(found.len(), 2);
    assert_eq!(of("sbom (SPDX)")["Status"], "not verified: nobody has signed it");
    assert_eq!(of("provenance")["Form"], "in index");
    make_key(&world);
    let verify = world.seatrial(["verify", &name, "--key", "../release.pub", "--require", "sbom"]).run();
    verify.exits(1).stderr_has("no list of packages (2 found that are not signed at all)");

    // Every thing that came from elsewhere is named by what cannot change.
    let predicate = &of("provenance")["Statement"]["predicate"];
    let parameters = &predicate["buildDefinition"]["externalParameters"];
    assert_eq!(parameters["args"]["COLOUR"], "red");
    assert!(predicate["buildDefinition"]["internalParameters"]["dockerfile"].as_str().unwrap().contains("ADD http"));
    let dependencies = predicate["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    let uri = |start: &str| {
        let found = dependencies.iter().find(|known| known["uri"].as_str().is_some_and(|uri| uri.starts_with(start)));
        found.unwrap_or_else(|| panic!("{start}: {dependencies:?}"))
    };
    let manifest = base_digest.trim();
    let from = uri(&format!("pkg:docker/{}/team/base@1?digest={manifest}&platform=linux%2F", world.registry()));
    assert_eq!(format!("sha256:{}", from["digest"]["sha256"].as_str().unwrap()), manifest);
    let list = oci::Digest::of(&fs_of_registry(&web));
    assert_eq!(uri(&web)["digest"]["sha256"], list.hex());
    assert_eq!(uri(&format!("git+{repository}"))["digest"]["gitCommit"], commit.as_str());
    assert_eq!(dependencies.iter().filter(|known| known["digest"]["gitCommit"].is_string()).count(), 2);
    let told = json(&fs::read_to_string(world.path("meta.json")).unwrap());
    assert_eq!(told["containerimage.digest"], digest.trim());
    assert_eq!(
        told["buildx.build.provenance"]["buildDefinition"]["buildType"],
        predicate["buildDefinition"]["buildType"]
    );

    // Without what is of one run the same build is the same index, and least is said unless more is asked for.
    let same = ["--provenance=reproducible=true", "--build-arg", "COLOUR=red", "--build-context", &other];
    let same = [&same[..], &["--push", "-t", &name, "--format", "{{.Digest}}"]].concat();
    let one = build(&world, &same).exits(0).stdout();
    assert_eq!(build(&world, &same).exits(0).stdout(), one);
    let found = pieces(&world, &name);
    let least = &found[0]["Statement"]["predicate"]["buildDefinition"];
    assert!(
        least["externalParameters"].get("args").is_none() && least["internalParameters"].get("dockerfile").is_none()
    );
}

/// The body of a web page.
fn fs_of_registry(url: &str) -> Vec<u8> {
    let output = Command::new("curl").args(["--silent", "--fail", url]).output().expect("curl is installed");
    assert!(output.status.success(), "{url}");
    output.stdout
}

#[test]
fn archives_hold_what_is_said_and_outputs_that_cannot_are_refused() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nCOPY Dockerfile /\n");
    build(&world, &["-t", "app:1", "--sbom", "-o", "type=oci,tar=false,dest=layout"]).exits(0);
    let index = json(&fs::read_to_string(world.repo().join("layout/index.json")).unwrap());
    assert_eq!(index["manifests"][0]["mediaType"], "application/vnd.oci.image.index.v1+json");
    // Our own and others' readers take the image, and a copy takes all of it.
    skopeo(&["inspect", &format!("oci:{}:1", world.repo().join("layout").display())]);
    world.seatrial(["rmi", "app:1"]).run().exits(0);
    world.seatrial(["load", "layout"]).run().exits(0).stdout_has("app:1");
    let name = format!("{}/team/app:1", world.registry());
    world.seatrial(["copy", "oci:layout:1", &name]).run().exits(0);
    assert_eq!(pieces(&world, &name)[0]["Kind"], "sbom (SPDX)");
    // What is attached is shown as it is, and as what it is.
    let shown = world.seatrial(["sbom", "--attached", &name, "--format", "spdx-json"]).run().exits(0);
    assert_eq!(json(&shown.stdout())["spdxVersion"], "SPDX-2.3");
    shown.stderr_has("nobody has signed this list");

    for (words, message) in [
        (&["--sbom"][..], "attestations are kept with the name of an image, and this one has none"),
        (&["--provenance", "-o", "type=docker,dest=x.tar"], "no output of this build can hold attestations"),
        (&["--sign-key", "../release.key"], "`--sign-key` signs what is pushed, and nothing is"),
        (&["--sbom=generator=x", "-o", "type=oci,dest=x.tar"], "the generator `x` is not started"),
    ] {
        build(&world, words).exits(2).stderr_has(message);
    }
    build(&world, &["--sbom=false", "--provenance=false", "--attest=type=provenance,disabled=true"]).exits(2);
    build(&world, &["--sbom=false", "--provenance", "false", "."]).exits(0);
}

#[test]
fn a_name_keeps_what_is_said_until_it_is_pushed() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nCOPY Dockerfile /\n");
    let at = |name: &str| format!("{}/team/{name}:1", world.registry());
    let (first, second) = (at("first"), at("second"));
    let push = |name: &str| world.seatrial(["push", "-q", name]).run().exits(0).stdout();
    let wanted = ["--sbom", "--provenance", "mode=min,reproducible=true", "--format", "{{.Digest}}", "."];
    let own = build(&world, &[&wanted[..], &["-t", "app:1"]].concat()).exits(0).stdout();
    // Every name of it takes them along, and the digest is that of the build.
    world.seatrial(["tag", "app:1", &first]).run().exits(0);
    assert_eq!(push(&first), own);
    let kinds = |name: &str| -> Vec<String> {
        pieces(&world, name).iter().map(|piece| piece["Kind"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(kinds(&first), ["sbom (SPDX)", "provenance"]);
    world.seatrial(["save", "--format", "oci-dir", "-o", "saved", "app:1"]).run().exits(0);
    world.seatrial(["copy", "oci:saved:1", &second]).run().exits(0);
    assert_eq!(kinds(&second).len(), 2);
    // What was pushed by the build is what is pushed again by its name; another manifest that the image comes with changes nothing.
    let pushed =
        [&["--push", "-o", "type=image,compression=zstd,force-compression=true"][..], &wanted, &["-t", &second]]
            .concat();
    let digest = build(&world, &pushed).exits(0).stdout();
    world.seatrial(["pull", "-q", &first]).run().exits(0);
    assert_eq!(push(&second), digest);
    // So it is where another build has pulled the name as its base.
    world.file("other/Dockerfile", &format!("FROM {second}\n"));
    build(&world, &["--pull", "other"]).exits(0);
    assert_eq!(push(&second), digest);
    // Each name is saved with what is its own, also where two mean the same image.
    world.seatrial(["save", "--format", "oci-dir", "-o", "both", "app:1", &second]).run().exits(0);
    let index = json(&fs::read_to_string(world.repo().join("both/index.json")).unwrap());
    let saved: Vec<&str> = index["manifests"].as_array().unwrap().iter().filter_map(|m| m["digest"].as_str()).collect();
    assert_eq!(saved, [own.trim(), digest.trim()]);
    // A build that says nothing leaves nothing with the name.
    build(&world, &["-t", &second]).exits(0);
    push(&second);
    assert_eq!(kinds(&second), Vec::<String>::new());
}

#[test]
fn files_have_what_is_said_of_them_beside_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = world();
    world
        .file(
            "Dockerfile",
            "FROM scratch\nCOPY package.json /app/node_modules/a/\nCOPY package.json /provenance.json\n",
        )
        .file("package.json", r#"{"name":"a","version":"1.0.0"}"#);
    let said = ["--sbom", "--provenance=mode=max"];
    let to = |output: &str, more: &[&str]| build(&world, &[&said[..], &["-o", output], more].concat()).exits(0);
    let read = |path: &str| json(&fs::read_to_string(world.repo().join(path)).unwrap());
    let file = oci::Digest::of(&fs::read(world.repo().join("package.json")).unwrap());
    to("type=local,dest=out,attestation-prefix=about.", &[]);
    let (list, provenance) = (read("out/about.sbom.spdx.json"), read("out/about.provenance.json"));
    assert_eq!(list["predicateType"], "https://spdx.dev/Document");
    assert!(list["predicate"]["packages"].to_string().contains("pkg:npm/a@1.0.0"));
    assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
    let subject = |path: &str| serde_json::json!({"name": path, "digest": {"sha256": file.hex()}});
    let subjects = serde_json::json!([subject("app/node_modules/a/package.json"), subject("provenance.json")]);
    assert_eq!((&list["subject"], &provenance["subject"]), (&subjects, &subjects));
    let mode = fs::metadata(world.repo().join("out/about.provenance.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Without a prefix they take the place of a file of the image, in a tar as well; several platforms have each their own.
    to("type=tar,dest=out.tar", &[]);
    let mut archive = tar::Archive::new(fs::File::open(world.repo().join("out.tar")).unwrap());
    let mut paths = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        paths.push(entry.path().unwrap().display().to_string());
        if paths.last().is_some_and(|path| path == "provenance.json") {
            let said: Value = serde_json::from_reader(&mut entry).unwrap();
            assert_eq!(said["predicateType"], "https://slsa.dev/provenance/v1");
        }
    }
    assert_eq!(paths[paths.len() - 2..], ["sbom.spdx.json", "provenance.json"]);
    assert_eq!(paths.iter().filter(|path| *path == "provenance.json").count(), 1, "{paths:?}");
    to("both", &["--platform", "linux/amd64,linux/s390x"]);
    for platform in ["amd64", "s390x"] {
        let said = read(&format!("both/linux_{platform}/provenance.json"));
        let told = &said["predicate"]["buildDefinition"]["externalParameters"]["platform"];
        assert_eq!(*told, format!("linux/{platform}"));
    }
}

#[test]
fn an_index_of_platforms_is_signed_verified_copied_and_promoted() {
    let world = world();
    make_key(&world);
    world
        .file("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /which\n")
        .file("amd64", "for amd64")
        .file("s390x", "for s390x")
        .file("release.pub", &fs::read_to_string(world.path("release.pub")).unwrap());
    let registry = world.registry();
    let (name, plain) = (format!("{registry}/team/app:1"), format!("{registry}/team/app:plain"));
    let both = ["--platform", "linux/s390x,linux/amd64", "--push"];
    let signed = ["--provenance", "--sbom", "--sign-key", "../release.key", "-t", &name];
    build(&world, &[&both[..], &signed].concat()).exits(0);
    let verify = |image: &str, more: &[&str]| {
        let words = ["verify", image, "--key", "../release.pub", "--require", "signature,provenance,sbom"];
        world.seatrial(words.iter().chain(more)).run()
    };
    verify(&name, &[]).exits(0);
    verify(&name, &["--platform", "linux/s390x"]).exits(0);
    verify(&name, &["--platform", "linux/arm64"]).exits(1).stderr_has("no image for linux/arm64; there is linux/");
    // The index itself is signed, and each image with what is said of it.
    let of = |kind: &str| {
        let found =
            world.seatrial(["evidence", &name, "-k", "../release.pub", "--format", "json"]).run().exits(0).stdout();
        let found: Vec<Value> = found.lines().map(json).collect();
        found.iter().filter(|piece| piece["Kind"] == kind && piece["Verified"] == true).count()
    };
    assert_eq!((of("signature"), of("provenance"), of("sbom (SPDX)")), (3, 2, 2));

    let copied = format!("{registry}/other/app:1");
    world.seatrial(["copy", &name, &copied]).run().exits(0);
    verify(&copied, &[]).exits(0);

    world.file(
        "seatrial.yaml",
        &format!("image: {registry}/team/app\nenvironments: {{live: {{require: [signature], keys: [release.pub]}}}}\n"),
    );
    world.seatrial(["promote", "1", "live", "--key", "../release.key"]).run().exits(0);
    world.seatrial(["history", "live"]).run().exits(0).stdout_has("live");

    // What is there already is signed where it is; another image it is, and nobody's signature is its.
    world.file("amd64", "again for amd64").file("s390x", "again for s390x");
    build(&world, &[&both[..], &["-t", &plain]].concat()).exits(0);
    let check = || world.seatrial(["verify", &plain, "--key", "../release.pub"]).run();
    check().exits(1).stderr_has("no signature");
    world.seatrial(["promote", "plain", "live"]).run().exits(1).stderr_has("may not come into live: signature");
    let sign = || world.seatrial(["sign", &plain, "--key", "../release.key"]).run().exits(0);
    sign().stderr_has("3 manifests signed by SHA256:");
    check().exits(0);
    sign().stderr_has("0 manifests signed by SHA256:").stderr_has(", 3 already");
    world.seatrial(["promote", "plain", "live"]).run().exits(0);
}
