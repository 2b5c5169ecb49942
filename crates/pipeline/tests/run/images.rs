//! Several images in one run: order, side by side, what a failure stops, and names at the end.

use engine::NamedContext;
use events::Verdict;
use pipeline::{Outcome, RunError, RunOptions, Stages};

use super::{
    publish,
    script::{Act, World},
    test,
};

/// A base, two images on it, one beside them, and gates of the whole.
const FLEET: &str = r#"
health: false
image: localhost:5000/team/fleet
images:
  base: {test: {gates: {smoke: s}}, publish: {tags: "base-${git.short}"}}
  api: {build: {additional_contexts: {b: "image:base"}}, test: {setup: [tools], gates: {unit: u}}, publish: {tags: "api-${git.short}"}}
  web: {build: {additional_contexts: {b: "image:base"}}, publish: {tags: web}}
  tool: {image: localhost:5000/team/tool, test: {gates: {lint: l}}, publish: {tags: "1"}}
test:
  gates: {e2e: {in: api, run: e}, ext: {in: "node:20", run: x}}
"#;

fn fleet() -> World {
    World::new(FLEET)
}

fn image<'o>(outcome: &'o Outcome, name: &str) -> &'o Outcome {
    outcome.images.iter().find(|image| image.name == name).unwrap_or_else(|| panic!("{name}"))
}

fn at(story: &[String], what: &str) -> usize {
    story.iter().position(|line| line.starts_with(what)).unwrap_or_else(|| panic!("{what}: {story:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_built_in_order_and_side_by_side_and_named_at_the_end() {
    // Side by side is shown, not timed: each of the two waits until the other runs.
    let world = fleet().act("base-smoke", Act::exits(0).takes(50));
    let outcome = world.run(&publish()).await.expect("an outcome");
    assert_eq!(outcome.verdict, Verdict::Passed);
    let story = world.story();
    assert!(at(&story, "end base-smoke") < at(&story, "build api/build"), "{story:#?}");
    assert!(at(&story, "end base-smoke") < at(&story, "build web/build"), "{story:#?}");
    assert!(at(&story, "build tool/build") < at(&story, "end base-smoke"), "{story:#?}");
    let first_name = at(&story, "manifest");
    for gate in ["base-smoke", "api-unit", "tool-lint", "e2e", "ext"] {
        assert!(at(&story, &format!("end {gate}")) < first_name, "{story:#?}");
    }
    let base = image(&outcome, "base").image.as_ref().and_then(|image| image.id.clone()).expect("sealed");
    for stage in ["api/build", "web/build"] {
        let request = world.build_of(stage).expect("built");
        assert!(matches!(&request.build_contexts["b"], NamedContext::Stored(id) if *id == base), "{request:?}");
    }
    let published: Vec<String> =
        outcome.images.iter().flat_map(|image| &image.published).map(|one| one.reference.clone()).collect();
    assert_eq!(
        published,
        [
            "localhost:5000/team/fleet:base-3f2a91c",
            "localhost:5000/team/fleet:api-3f2a91c",
            "localhost:5000/team/fleet:web",
            "localhost:5000/team/tool:1"
        ]
    );
    // Those of one repository are told apart in the store, too.
    assert_eq!(
        image(&outcome, "web").tagged[..2],
        ["localhost:5000/team/fleet:web-3f2a91c", "localhost:5000/team/fleet:web-master"]
    );
    assert_eq!(image(&outcome, "tool").tagged[0], "localhost:5000/team/tool:3f2a91c");
    // Gates of the whole run in the image itself, those of an image in its setup.
    let root = |gate: &str| world.spec(gate).expect("started").root.id;
    assert_eq!((root("e2e"), root("ext")), ("root of api/build".into(), "root of node:20".into()));
    assert_eq!((root("api-unit"), root("tool-lint")), ("root of api/build+setup".into(), "root of tool/build".into()));
    assert!(world.run.path.join("log/api∕unit").is_file());
    let events = world.events("gate.finished");
    let told = |gate: &str| {
        events.iter().find(|event| event["gate"] == gate).unwrap_or_else(|| panic!("{gate}"))["image_name"].clone()
    };
    assert_eq!(events.len(), 5);
    assert_eq!(told("api/unit"), "api");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_stops_what_is_built_on_it_and_nothing_else_and_nothing_is_published() {
    for world in [fleet().act("base-smoke", Act::exits(1)), fleet().fails_at("base/build")] {
        let outcome = world.run(&publish()).await.expect("an outcome");
        assert_eq!(outcome.verdict, Verdict::Failed);
        let verdicts: Vec<_> = outcome.images.iter().map(|image| image.verdict).collect();
        assert_eq!(verdicts, [Verdict::Failed, Verdict::Skipped, Verdict::Skipped, Verdict::Passed]);
        for name in ["api", "web"] {
            assert_eq!(image(&outcome, name).skipped.as_deref(), Some("needs base, which did not pass"));
        }
        assert_eq!(image(&outcome, "api").gates[0].verdict, Verdict::Skipped);
        assert_eq!(outcome.gates[0].skipped.as_deref(), Some("needs api, which was not built"));
        assert_eq!(outcome.gates[1].verdict, Verdict::Passed);
        let tool = image(&outcome, "tool");
        assert_eq!(tool.not_published.as_deref(), Some("base, api, web did not pass"));
        assert!(tool.tagged.is_empty() && tool.gates[0].verdict == Verdict::Passed);
        let story = world.story();
        assert!(!story.iter().any(|line| line.starts_with("manifest") || line.starts_with("build api")), "{story:#?}");
        assert_eq!(story.last().map(String::as_str), Some("close"));
    }
    // A gate of the whole holds everything back.
    let outcome = fleet().act("e2e", Act::exits(1)).run(&publish()).await.expect("an outcome");
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert!(outcome.images.iter().all(|image| image.verdict == Verdict::Passed && image.published.is_empty()));
    assert_eq!(image(&outcome, "web").not_published.as_deref(), Some("a gate of the whole run did not pass"));
}

#[tokio::test(flavor = "multi_thread")]
async fn images_and_gates_are_chosen_by_name() {
    let built = |world: &World| {
        let stages = ["base", "api", "web", "tool"].into_iter();
        stages.filter(|name| world.build_of(&format!("{name}/build")).is_some()).collect::<Vec<_>>()
    };
    let ran = |outcome: &Outcome| {
        let gates = outcome.parts().flat_map(|part| &part.gates);
        gates.map(|gate| gate.gate.clone()).collect::<Vec<_>>()
    };
    for (names, images, gates) in [
        (&["api/unit"][..], &["base", "api"][..], &["api/unit"][..]),
        (&["unit", "lint"], &["base", "api", "tool"], &["api/unit", "tool/lint"]),
        (&["tool"], &["tool"], &["tool/lint"]),
        (&["e2e"], &["base", "api"], &["e2e"]),
        (&["ext"], &[], &["ext"]),
    ] {
        let world = fleet();
        let outcome = world.run(&test(names)).await.expect("an outcome");
        assert_eq!(
            (built(&world), ran(&outcome)),
            (images.to_vec(), gates.iter().map(|gate| (*gate).to_owned()).collect())
        );
        assert!(outcome.images.iter().all(|image| image.tagged.is_empty()));
    }
    // The base of what is published passes its gates as well; those of the whole are left out, and so is publishing.
    let world = fleet();
    let options = RunOptions { images: vec!["web".into()], ..publish() };
    let outcome = world.run(&options).await.expect("an outcome");
    assert_eq!((built(&world), ran(&outcome)), (vec!["base", "web"], vec!["base/smoke".to_owned()]));
    let reason = "the gates of the whole were left out: publish without naming images";
    assert_eq!(image(&outcome, "web").not_published.as_deref(), Some(reason));

    for (options, expected) in [
        (
            RunOptions { images: vec!["wbe".into()], ..RunOptions::default() },
            "there is no image `wbe` in the pipeline file",
        ),
        (test(&["api/unti"]), "there is no gate `api/unti`"),
    ] {
        match fleet().run(&options).await {
            Err(RunError::Usage { message, .. }) => assert_eq!(message, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_only_the_images_tell_are_compared_before_the_first_is_written() {
    let yaml = "health: false\nimage: localhost:5000/x\nversion: {env: VERSION}\npublish: {tags: \"v${version}\"}\nimages: {a: ., b: .}\n";
    let world = World::new(yaml);
    match world.run(&publish()).await {
        Err(RunError::Usage { message, .. }) => {
            assert_eq!(message, "`a` and `b` would both be localhost:5000/x:v2.7: nothing was named");
        }
        other => panic!("{other:?}"),
    }
    assert!(!world.story().iter().any(|line| line.starts_with("manifest")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passed_together_can_be_published_later_until_a_gate_changes() {
    let options = RunOptions { stages: Stages::Publish, ..publish() };
    let world = fleet();
    assert!(matches!(world.run(&options).await, Err(RunError::Refused { .. })));
    // A part of the pipeline is not enough.
    let part = RunOptions { images: vec!["tool".into()], ..RunOptions::default() };
    world.run(&part).await.expect("an outcome");
    assert!(matches!(world.run(&options).await, Err(RunError::Refused { .. })));
    world.run(&RunOptions::default()).await.expect("an outcome");
    let outcome = world.run(&options).await.expect("an outcome");
    assert_eq!(outcome.images.iter().map(|image| image.published.len()).sum::<usize>(), 4);
    let world = world.file(&FLEET.replace("run: e}", "run: other}"));
    assert!(matches!(world.run(&options).await, Err(RunError::Refused { .. })));
}
