//! `publish.files`: what is published beside the image.

use testkit::World;

use crate::world_with_image;

/// An application that publishes its notes, and what `before` made.
fn app(files: &str) -> World {
    let world = world_with_image();
    let registry = world.registry();
    world
        .file("Dockerfile", "FROM tiny:1\nCOPY VERSION dist/app.txt /\n")
        .file("VERSION", "1.2.3\n")
        .file(
            "seatrial.yaml",
            &format!(
                "image: {registry}/team/app\nversion: {{file: VERSION}}\nhealth: false\n\
                 before: [{{in: tiny:1, run: mkdir dist && echo made > dist/app.txt, output: dist/*.txt}}]\n\
                 publish:\n  tags: [\"${{version}}\"]\n  files:\n{}",
                files.replace("REGISTRY", &registry.to_string())
            ),
        )
        .commit();
    world
}

const NOTES: &str = "    - {in: image, run: [test \"$(cat /VERSION)\" = 1.2.3, cp /VERSION $SEATRIAL_OUT/notes.txt], \
                     to: \"oci:REGISTRY/team/notes:${version}\"}\n";
const MADE: &str = "    - {path: dist/*.txt, to: \"oci:REGISTRY/team/made:main\", secret: WORD, user: me}\n";

#[test]
fn files_go_out_before_the_image_and_a_repeated_run_goes_on() {
    let world = app(&format!("{NOTES}{MADE}"));
    let run = |words: &[&str]| {
        let command = world.seatrial(["run"]).env("WORD", "hunter2-word");
        words.iter().fold(command, |command, word| command.arg(word)).run()
    };
    run(&[]).exits(0).stderr_has("not published");
    run(&["--publish", "--dry-run"])
        .exits(0)
        .stderr_has("notes.txt would be sent to oci:")
        .stderr_has("app.txt would be sent to oci:");
    assert!(world.registry_tags("team/notes").is_empty() && world.registry_tags("team/made").is_empty());
    let first = run(&["--publish", "--progress=plain"]).exits(0);
    assert!(first.stderr().contains("sent notes.txt at oci:"), "{}", first.stderr());
    assert!(!first.stderr().contains("hunter2-word"));
    assert_eq!(world.registry_tags("team/notes"), ["1.2.3"]);
    assert_eq!(world.registry_tags("team/made"), ["main"]);
    assert_eq!(world.registry_tags("team/app"), ["1.2.3"]);
    run(&["--publish"]).exits(0).stderr_has("2 files there already");
    world.seatrial(["publish", "--progress=json"]).env("WORD", "x").run().exits(0).stdout_has("file.published");
    world.seatrial(["run", "--publish"]).run().exits(2).stderr_has("secret `WORD` is needed, and `WORD` is not set");
}

#[test]
fn nothing_goes_out_when_a_file_cannot_be_made_or_is_taken() {
    let world =
        app(&format!("{NOTES}    - {{in: image, run: echo no notes; exit 3, to: \"oci:REGISTRY/team/x:1\"}}\n"));
    world
        .seatrial(["run", "--publish"])
        .run()
        .exits(1)
        .stderr_has("publish.files: `echo no notes; exit 3` exited 3")
        .stderr_has("seatrial.yaml:9:24")
        .stderr_has("nothing was published");
    for repository in ["team/notes", "team/x", "team/app"] {
        assert!(world.registry_tags(repository).is_empty(), "{repository}");
    }

    // The first one is out when the second cannot be: the error says so, and the image has no name.
    let lost =
        format!("{NOTES}    - {{in: image, run: cp /VERSION $SEATRIAL_OUT, to: \"oci:127.0.0.1:9/team/x:1\"}}\n");
    let world = app(&lost);
    world
        .seatrial(["run", "--publish"])
        .run()
        .exits(3)
        .stderr_has("published only in part: notes.txt at oci:")
        .stderr_has("not published: VERSION at oci:127.0.0.1:9/team/x:1, the image");
    assert_eq!(world.registry_tags("team/notes"), ["1.2.3"]);
    assert!(world.registry_tags("team/app").is_empty());
    let other = NOTES.replace("cp /VERSION", "echo other >");
    let yaml = std::fs::read_to_string(world.repo().join("seatrial.yaml")).unwrap();
    let start = yaml.find("  files:\n").unwrap();
    let other = other.replace("REGISTRY", &world.registry().to_string());
    world.file("seatrial.yaml", &format!("{}  files:\n{other}", &yaml[..start])).commit();
    world
        .seatrial(["run", "--publish"])
        .run()
        .exits(1)
        .stderr_has("other content under this name")
        .stderr_has("another version");
    assert!(world.registry_tags("team/app").is_empty());
}

#[test]
fn mistakes_are_pointed_at() {
    for (entry, message) in [
        ("{in: image, to: \"oci:a.example/b:1\"}", "needs `run`"),
        ("{run: ls, to: \"oci:a.example/b:1\"}", "needs `in: image`"),
        ("{in: debian, run: ls, to: \"oci:a.example/b:1\"}", "`debian` is not known"),
        ("{path: ../x, to: \"oci:a.example/b:1\"}", "`../x` is not below"),
        ("{path: x, to: \"https://pypi.example\"}", "write `pypi:URL`"),
        ("{path: x, to: \"npm:https://npm.example\", secret: npm}", "there is no secret `npm`"),
        ("{path: x}", "needs `to`"),
        ("{path: x, to: \"oci:a.example/b:1\", token: X}", "`secret`"),
    ] {
        let world = app(&format!("    - {entry}\n"));
        world.seatrial(["check"]).run().exits(2).stdout_has(message).stdout_has("seatrial.yaml:8:");
    }
}

#[test]
fn a_command_says_a_secret_where_that_is_permitted() {
    let world = app(&MADE.replace("WORD", "word"));
    let yaml = std::fs::read_to_string(world.repo().join("seatrial.yaml")).unwrap();
    world.file("seatrial.yaml", &format!("{yaml}secrets: {{word: {{command: echo hunter2-word}}}}\n")).commit();
    world.seatrial(["run", "--publish"]).run().exits(2).stderr_has("secrets.command");
    let config = tempfile::tempdir().unwrap();
    std::fs::create_dir(config.path().join("seatrial")).unwrap();
    std::fs::write(config.path().join("seatrial/allow"), "secrets.command\n").unwrap();
    let finished = world.seatrial(["run", "--publish"]).env("XDG_CONFIG_HOME", config.path()).run().exits(0);
    assert!(!finished.stderr().contains("hunter2-word"), "{}", finished.stderr());
    assert_eq!(world.registry_tags("team/made"), ["main"]);
}
