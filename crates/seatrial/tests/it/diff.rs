//! `seatrial diff` and `seatrial layers`: what images are made of.

use expect_test::expect;
use testkit::World;

use crate::{world, world_with_image};

/// Two versions of an image with a Debian and a Python package each.
fn two_versions() -> World {
    let world = world_with_image();
    let status = |version: &str| {
        format!(
            "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n\
             Package: removed\nStatus: deinstall ok config-files\nVersion: 1\n\n\
             Package: zlib1g\nStatus: install ok installed\nVersion: 1:1.2.13\n"
        )
    };
    world
        .file("Dockerfile", "FROM tiny:1\nCOPY one /\nENV COLOUR=green OLD=1\nEXPOSE 80\nUSER app\nCMD [\"true\"]\n")
        .file("one/var/lib/dpkg/status", &status("3.0.11-1"))
        .file("one/app.txt", "one\n")
        .file("one/gone.txt", "four")
        .file("one/site/flask-3.0.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: flask\nVersion: 3.0.0\n")
        .file("one/site/old-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: old\nVersion: 1.0\n")
        .file("one/site/far-2.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: far\nVersion: 2.0\n");
    world.seatrial(["build", "-t", "app:1"]).run().exits(0);
    world
        .file(
            "Dockerfile",
            "FROM tiny:1\nCOPY two /\nENV COLOUR=blue\nEXPOSE 80 443\nUSER app\nLABEL a=b\nCMD [\"false\"]\n",
        )
        .file("two/var/lib/dpkg/status", &status("3.0.13-1"))
        .file("two/app.txt", "number two\n")
        .file("two/new.txt", "new")
        .file("two/site/flask-3.0.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: flask\nVersion: 3.0.1\n")
        .file("two/site/far-1.9.dist-info/METADATA", "Metadata-Version: 2.1\nName: far\nVersion: 1.9\n");
    world.seatrial(["build", "-t", "app:2"]).run().exits(0);
    world
}

#[test]
fn two_versions_are_compared_by_config_layers_packages_and_files() {
    let world = two_versions();
    let finished = world.seatrial(["diff", "app:1", "app:2"]).run().exits(0);
    let (stdout, stderr) = (finished.stdout(), finished.stderr());
    assert_eq!(stderr, "");
    for words in [
        "app:1 → app:2\n",
        "commits\n  neither tells its commit\n",
        "packages\n  2 upgraded, 1 downgraded, 1 gone\n",
        "  python   far       2.0 → 1.9             downgraded\n",
        "  Cmd                    [\"true\"] → [\"false\"]\n",
        "  Env COLOUR             green → blue\n",
        "  Env OLD                gone, was 1\n",
        "  ExposedPorts 443/tcp   new: yes\n",
        "  Labels a               new: b\n",
        "layers\n  1 shared (",
        "), 1 only in app:1 (",
        "  a host that has app:1 fetches ",
        "  deb      libssl3   3.0.11-1 → 3.0.13-1\n",
        "  python   flask     3.0.0 → 3.0.1\n",
        "  python   old       gone, was 1.0\n",
        "  5 new (97 B), 2 changed (+7 B), 7 gone (143 B)\n",
        "seatrial diff --files app:1 app:2\n",
    ] {
        assert!(stdout.contains(words), "`{words}` is missing in:\n{stdout}");
    }
    assert!(!stdout.contains("removed") && !stdout.contains("zlib1g") && !stdout.contains("User"), "{stdout}");
    let files = world.seatrial(["diff", "--files", "app:1", "2"]).run().exits(0).stdout();
    assert!(files.contains("\n  D  /gone.txt  4 B\n"), "{files}");
    assert!(files.contains("\n  M  /app.txt  4 B 2c8b08da5ce6 → 11 B 34d430015675\n"), "{files}");
}

#[test]
fn programs_read_lines_of_json_and_the_exit_code() {
    let world = two_versions();
    world.seatrial(["diff", "--exit-code", "app:1", "app:2"]).run().exits(1);
    world
        .seatrial(["diff", "--exit-code", "app:2", "last"])
        .run()
        .exits(0)
        .stdout_has("no file and nothing of the config differs\n")
        .stdout_has("fetches no layer");
    let lines = world.seatrial(["diff", "--files", "--format", "json", "app:1", "app:2"]).run().exits(0).stdout();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (all, files) = lines.split_last().unwrap();
    assert_eq!(files.len(), 14);
    assert_eq!(files[0]["Path"], "/app.txt");
    assert_eq!(files[0]["Change"], "changed");
    assert_eq!(files[0]["New"]["SizeBytes"], 11);
    assert_eq!(all["Same"], false);
    assert_eq!(all["Files"]["Added"], 5);
    assert_eq!(all["Layers"]["Shared"].as_array().unwrap().len(), 1);
    assert!(all["Layers"]["FetchBytes"].as_u64().unwrap() > 0);
    assert_eq!(all["Packages"][0]["New"], "3.0.13-1");
}

#[test]
fn an_archive_is_compared_like_an_image() {
    let world = two_versions();
    let archive = world.path("app.tar");
    world.seatrial(["save", "-o"]).arg(&archive).arg("app:1").run().exits(0);
    world.seatrial(["diff", "--exit-code", "app:1"]).arg(&archive).run().exits(0);
    world.seatrial(["diff", "--exit-code"]).arg(&archive).arg("app:2").run().exits(1);
    // Reading it gave nothing a name.
    assert_eq!(world.seatrial(["images", "-q", "app"]).run().exits(0).stdout().lines().count(), 2);
    world.seatrial(["diff", "app:1", "app:3"]).run().exits(1).stderr_has("did you mean `app:");
    world.seatrial(["diff", "app:1", "99"]).run().exits(1).stderr_has("there is no run 99");
}

#[test]
fn layers_are_told_with_their_instructions_and_base() {
    let world = world_with_image();
    let long = "true && ".repeat(30) + "true";
    world.file("Dockerfile", &format!("FROM tiny:1\nARG MODE=fast\nRUN echo $MODE > /mode\nENV A=1\nRUN {long}\n"));
    world.seatrial(["build", "-t", "app"]).run().exits(0);
    let finished = world.seatrial(["layers", "app"]).run().exits(0).stderr_has("of the base tiny:1");
    let table = finished.stdout();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("LAYER          SIZE"), "{table}");
    assert!(table.contains("   base   "), "{table}");
    assert!(table.contains(" RUN echo $MODE > /mode\n"), "arguments are left out of the instruction:\n{table}");
    assert!(table.contains(" ENV A=1\n"), "{table}");
    assert!(lines.last().unwrap().ends_with('…') && lines.iter().all(|line| line.chars().count() < 140), "{table}");
    let whole = world.seatrial(["layers", "--no-trunc", "--no-empty", "app"]).run().exits(0).stdout();
    assert!(whole.contains(&long) && whole.contains("sha256:") && !whole.contains("ENV A=1"), "{whole}");
    world
        .seatrial(["layers", "app", "--format", "{{.Base}}|{{.Instruction}}"])
        .run()
        .exits(0)
        .stdout_has("|RUN echo $MODE > /mode\n");
    // Its compressed size is known once it was compressed.
    world.seatrial(["layers", "app", "--format", "{{.CompressedBytes}}"]).run().exits(0).stdout_has("\n\n");
    world.seatrial(["save", "--format", "oci", "-o"]).arg(world.path("app.tar")).arg("app").run().exits(0);
    let sizes = world.seatrial(["layers", "--no-empty", "app", "--format", "{{.CompressedBytes}}"]).run().exits(0);
    assert!(sizes.stdout().lines().all(|size| size.parse::<u64>().is_ok_and(|size| size > 0)), "{}", sizes.stdout());
}

/// Two versions of a service, published from two commits with all that is said of them.
fn two_published() -> (World, String) {
    let (world, repository) = (world_with_image(), "team/app");
    let name = format!("{}/{repository}", world.registry());
    world
        .file("Dockerfile", "FROM tiny:1\nCOPY var /var\nENV COLOUR=green\n")
        .file("seatrial.yaml", &format!("image: {name}\nversion: {{file: VERSION}}\nhealth: false\npublish: {{tags: [\"${{version}}\"], sign: {{key: \"env://KEY\"}}}}\n"))
        .file("var/lib/dpkg/status", "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 8.9-1\n")
        .file("VERSION", "1.0.0")
        .commit();
    world.seatrial(["keys", "generate", "../release", "--type", "ed25519"]).run().exits(0);
    let key = std::fs::read_to_string(world.path("release.key")).expect("the key was made");
    let publish = || world.seatrial(["run", "--publish"]).env("KEY", &key).run().exits(0);
    publish();
    world
        .file("Dockerfile", "FROM tiny:1\nCOPY var /var\nENV COLOUR=blue\n")
        .file(
            "var/lib/dpkg/status",
            "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 8.10-1\n",
        )
        .file("VERSION", "2.0.0");
    world.git(&["commit", "--quiet", "--all", "--message", "Curl is newer"]);
    publish();
    (world, name)
}

#[test]
fn images_in_a_registry_are_compared_by_what_is_said_beside_them() {
    let (world, name) = two_published();
    let (one, two) = (format!("{name}:1.0.0"), format!("docker://{name}:2.0.0"));
    let elsewhere = world.path("elsewhere");
    let diff = |words: &[&str]| {
        let session = world.seatrial(["diff", &one, &two]).env("SEATRIAL_HOME", &elsewhere);
        words.iter().fold(session, |session, word| session.arg(word)).run().exits(0)
    };
    let shown = diff(&[]);
    for words in [
        "   1 new commit\n  + ",
        " Curl is newer\n",
        "packages\n  1 upgraded\n  deb   curl   8.9-1 → 8.10-1\n",
        "  Env COLOUR   green → blue\n",
        "layers\n  1 shared (",
        ", compressed\n",
        "files\n  not compared: `seatrial diff --files ",
    ] {
        assert!(shown.stdout().contains(words), "`{words}` is missing in:\n{}", shown.stdout());
    }
    // Nothing of that needed a layer.
    assert_eq!(world.seatrial(["images", "-a", "-q"]).env("SEATRIAL_HOME", &elsewhere).run().exits(0).stdout(), "");
    let value: serde_json::Value = serde_json::from_str(&diff(&["--json"]).stdout()).expect("JSON");
    assert_eq!(value["Commits"]["Added"][0]["Title"], "Curl is newer");
    assert_eq!(value["Packages"][0]["Change"], "upgraded");
    assert!(
        value["Files"].is_null() && value["Old"]["Digest"].as_str().is_some_and(|text| text.starts_with("sha256:"))
    );
    // Far from the repository the commits are all that is known of them; the digests name the same images.
    let by_digest = |side: &str| format!("{name}@{}", value[side]["Digest"].as_str().expect("a digest"));
    let session = world.seatrial(["diff", &by_digest("Old"), &by_digest("New")]).env("SEATRIAL_HOME", &elsewhere);
    session.cwd(world.path("home")).run().exits(0).stdout_has("(the repository here does not have both)\n");
    // A bare digest is one of the images here, or of the pipeline's repository.
    let digest = value["New"]["Digest"].as_str().expect("a digest");
    let session = world.seatrial(["diff", "--exit-code", digest, &by_digest("New")]).env("SEATRIAL_HOME", &elsewhere);
    session.run().exits(0).stdout_has("the same layers, and nothing of the config differs\n");
    diff(&["--files"]).stdout_has("\n  M  /var/lib/dpkg/status  ");
}

#[test]
fn layers_are_fetched_for_packages_only_when_that_is_asked_for() {
    let world = two_versions();
    let name = format!("{}/team/plain", world.registry());
    for tag in ["1", "2"] {
        let pushed = format!("{name}:{tag}");
        world.seatrial(["tag", &format!("app:{tag}"), &pushed]).run().exits(0);
        world.seatrial(["push", "-q", &pushed]).run().exits(0);
    }
    let elsewhere = world.path("elsewhere");
    let diff = |words: &[&str]| {
        let (one, two) = (format!("{name}:1"), format!("{name}:2"));
        let session = world.seatrial(["diff", &one, &two]).env("SEATRIAL_HOME", &elsewhere);
        words.iter().fold(session, |session, word| session.arg(word)).run().exits(0).stdout()
    };
    let shown = diff(&[]);
    assert!(shown.contains("packages\n  not compared: there is no SBOM beside "), "{shown}");
    assert!(shown.contains("  Env COLOUR             green → blue\n"), "{shown}");
    let shown = diff(&["--packages"]);
    assert!(shown.contains("  deb      libssl3   3.0.11-1 → 3.0.13-1\n"), "{shown}");
    // An image here with one there.
    let mixed = world.seatrial(["diff", "app:1", &format!("docker://{name}:2")]).run().exits(0).stdout();
    assert!(mixed.contains("2 upgraded, 1 downgraded, 1 gone"), "{mixed}");
    let absent = format!("{name}:3");
    world.seatrial(["diff", "app:1", &absent]).run().exits(1).stderr_has("not found in the registry");
}

#[test]
fn nothing_is_compared_with_nothing() {
    world().seatrial(["diff", "a"]).run().exits(2);
    world().seatrial(["diff", "a:1", "b:1"]).run().exits(1).stderr_is(&expect![[r#"
        error: there is no image `a:1` here

        hint: see what is here with `seatrial images`, or fetch it with `seatrial pull a:1`
    "#]]);
}
