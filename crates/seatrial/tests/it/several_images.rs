//! Several images of one repository in one run.

use testkit::World;

use crate::world_with_image;

/// A base and an application of one repository, and a tool beside them that serves a page.
fn fleet(pipeline: &str) -> World {
    let world = world_with_image();
    world
        .file("Dockerfile.base", "FROM tiny:1\nLABEL org.opencontainers.image.version=2.1\nRUN echo base > /base\n")
        .file("app/Dockerfile", "FROM registry.example/base\nCOPY text /text\nCMD [\"sh\", \"-c\", \"sleep 100\"]\n")
        .file("app/text", "app\n")
        .file("tool/Dockerfile", "FROM tiny:1\nCMD [\"sh\", \"-c\", \"mkdir /www && echo served > /www/page && exec httpd -f -p 8080 -h /www\"]\nEXPOSE 8080\n")
        .file("seatrial.yaml", pipeline)
        .commit();
    world
}

fn pipeline(world: &World) -> String {
    PIPELINE.replace("REGISTRY", &world.registry().to_string())
}

const PIPELINE: &str = r#"
image: REGISTRY/team/app
images:
  base:
    build: {dockerfile: Dockerfile.base}
    version: {label: org.opencontainers.image.version}
    health: false
    test: {gates: {smoke: "grep base /base"}}
    publish: {tags: ["base-${version}"]}
  app:
    build: {context: app, additional_contexts: {"registry.example/base": "image:base"}}
    version: "1.4.2"
    test: {gates: {unit: {run: "grep app /text && grep base /base"}}}
    publish: {tags: ["${version}"]}
    limits: {above_base: 1MB}
  tool: {image: REGISTRY/team/tool, build: tool, publish: {tags: latest}}
test:
  gates:
    page: {in: app, services: [tool], run: "wget -q -O - http://tool:8080/page | grep served"}
"#;

#[test]
fn a_base_and_what_stands_on_it_are_published_together() {
    let world = fleet("images: {}\n");
    world.file("seatrial.yaml", &pipeline(&world)).commit();
    let finished = world.seatrial(["run", "--publish", "--junit", "results.xml"]).run().exits(0);
    let stderr = finished.stderr();
    for words in ["base/smoke", "app/build", "app/unit", "page", "✓ base", "✓ app", "✓ tool", "3 images"] {
        assert!(stderr.contains(words), "`{words}` is missing in:\n{stderr}");
    }
    let mut tags = world.registry_tags("team/app");
    tags.sort();
    assert_eq!(
        (tags, world.registry_tags("team/tool")),
        (vec!["1.4.2".to_owned(), "base-2.1".into()], vec!["latest".into()])
    );
    world.seatrial(["logs", "last", "app/unit"]).run().exits(0).stdout_has("app\nbase\n");
    let events = world.seatrial(["logs", "last", "--events"]).run().exits(0).stdout();
    assert!(events.contains(r#""image_name":"app","event":"gate.finished","gate":"app/unit""#), "{events}");
    let junit = std::fs::read_to_string(world.repo().join("results.xml")).unwrap();
    assert!(junit.contains("testsuite name=\"app/unit\"") && junit.contains("testsuite name=\"page\""), "{junit}");
    assert_eq!(world.remains(), Vec::<String>::new());

    // Nothing has changed: all of it is known.
    let stderr = world.seatrial(["run"]).run().exits(0).stderr();
    assert_eq!(stderr.matches("unchanged").count(), 3 + 3, "{stderr}");
    // A gate of one image, with what that is built on.
    let stderr = world.seatrial(["test", "app/unit", "--rerun"]).run().exits(0).stderr();
    assert!(stderr.contains("base/build") && !stderr.contains("tool") && !stderr.contains("smoke"), "{stderr}");
    let config = world.seatrial(["config"]).run().exits(0).stdout();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["images"][1]["build"]["additional_contexts"]["registry.example/base"], "image:base");
    assert!(config.get("build").is_none() && config["images"][0].get("services").is_none());
    world.seatrial(["check"]).run().exits(0).stderr_has("Dockerfile.base").stderr_has("app/Dockerfile");
}

#[test]
fn an_image_that_fails_stops_its_dependents_and_holds_back_the_others() {
    let world = fleet("images: {}\n");
    let broken = pipeline(&world).replace(
        "grep base /base\"}}\n    publish: {tags: [\"base",
        "grep nope /base\"}}\n    publish: {tags: [\"base",
    );
    world.file("seatrial.yaml", &broken).commit();
    let finished = world.seatrial(["run", "--publish"]).run().exits(1);
    let stderr = finished.stderr();
    for words in [
        "✗ gate base/smoke: `grep nope /base` exited 1",
        "seatrial test base/smoke",
        "✗ base",
        "- app  skipped: needs base, which did not pass",
        "✓ tool",
        "not published: base, app did not pass",
    ] {
        assert!(stderr.contains(words), "`{words}` is missing in:\n{stderr}");
    }
    assert!(world.registry_tags("team/app").is_empty() && world.registry_tags("team/tool").is_empty());
    world.seatrial(["run", "ap"]).run().exits(2).stderr_has("there is no image `ap` in the pipeline file");
    // What failed can be done again somewhere else.
    world.seatrial(["capsule", "1", "--output", "failed.capsule"]).run().exits(0);
    let replayed = world.seatrial(["replay", "failed.capsule"]).run().exits(1);
    replayed.stderr_has("repeating `seatrial test base/smoke`").stderr_has("image base is the capsule's: sha256:");
    let shown = world.seatrial(["replay", "--show", "failed.capsule"]).run().exits(0).stdout();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    for image in ["base", "tool"] {
        let id = shown["images"][image]["id"].as_str();
        assert!(id.is_some_and(|id| id.starts_with("sha256:")), "{image} in:\n{shown}");
    }
}

/// Two images with keys of their own, and one that nobody signs.
#[test]
fn each_image_is_signed_by_its_own_key() {
    let world = fleet("images: {}\n");
    for name in ["one", "two"] {
        world.seatrial(["keys", "generate", &format!("../{name}"), "--type", "ed25519"]).run().exits(0);
    }
    let pipeline = pipeline(&world)
        .replace("{tags: [\"base-${version}\"]}", "{tags: [base], sign: \"env://ONE\"}")
        .replace("{tags: [\"${version}\"]}", "{tags: [app]}")
        .replace("publish: {tags: latest}", "publish: {tags: latest, sign: \"env://TWO\"}");
    world.file("seatrial.yaml", &pipeline).commit();
    let key = |name: &str| std::fs::read_to_string(world.path(format!("{name}.key"))).unwrap();
    world.seatrial(["run", "--publish"]).env("ONE", key("one")).env("TWO", key("two")).run().exits(0);
    let verified = |image: &str, key: &str, code: i32| {
        let name = format!("{}/team/{image}", world.registry());
        world
            .seatrial(["verify", &name, "--key", &format!("../{key}.pub"), "--require", "signature"])
            .run()
            .exits(code);
    };
    for (image, one, two) in [("app:base", 0, 1), ("tool:latest", 1, 0), ("app:app", 1, 1)] {
        verified(image, "one", one);
        verified(image, "two", two);
    }
}
