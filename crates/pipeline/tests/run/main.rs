//! Stories of runs, with a scripted engine and registry, and the real store.

mod forward;
mod gates;
mod images;
mod script;

use events::Verdict;
use pipeline::{RunError, RunOptions, Stages};
use script::{Act, World};

fn publish() -> RunOptions {
    RunOptions { publish: true, ..RunOptions::default() }
}

fn test(names: &[&str]) -> RunOptions {
    RunOptions { stages: Stages::Gates(names.iter().map(|name| (*name).into()).collect()), ..RunOptions::default() }
}

const TWO_GATES: &str = "image: localhost:5000/team/app\nhealth: false\ntest: {gates: {style: a, unit: b}}\npublish: {when: {branch: master}, tags: [\"${git.short}\", latest]}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_passing_run_uploads_beside_the_gates_and_names_last() {
    let world = World::new(TWO_GATES).act("style", Act::exits(0).takes(300)).act("unit", Act::exits(0).takes(300));
    let outcome = world.run(&publish()).await.expect("an outcome");
    assert_eq!(outcome.verdict, Verdict::Passed);
    let story = world.story();
    let at = |what: &str| {
        story.iter().position(|line| line.starts_with(what)).unwrap_or_else(|| panic!("{what}: {story:#?}"))
    };
    assert!(at("upload localhost:5000/team/app") < at("end style"), "{story:#?}");
    assert!(at("start style") < at("end unit") && at("start unit") < at("end style"), "side by side: {story:#?}");
    assert!(at("end unit") < at("manifest") && at("end style") < at("manifest"), "{story:#?}");
    let manifests: Vec<_> = story.iter().filter(|line| line.starts_with("manifest")).collect();
    assert!(manifests[0].starts_with("manifest localhost:5000/team/app@sha256:"), "{manifests:?}");
    assert!(manifests[1].ends_with(":3f2a91c") && manifests[2].ends_with(":latest"), "{manifests:?}");
    assert_eq!(story.last().map(String::as_str), Some("close"));
    assert_eq!(
        outcome.tagged,
        ["localhost:5000/team/app:3f2a91c", "localhost:5000/team/app:master", "localhost:5000/team/app:latest"]
    );
    assert_eq!(outcome.published.len(), 2);
    assert_eq!(outcome.not_published, None);
    let image = outcome.image.expect("an image");
    assert_eq!(image.digest.as_ref(), Some(&outcome.published[0].digest));
    let named =
        world.store.resolve(&"localhost:5000/team/app:3f2a91c".parse().expect("a reference")).expect("readable");
    assert_eq!(named.map(|named| named.id), image.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_takes_nothing_of_the_time_until_the_gates_begin() {
    let yaml = TWO_GATES.replace("latest]", "latest], sign: {key: \"env://KEY\"}");
    let world = World::new(&yaml).act("style", Act::exits(0).takes(100));
    let options = RunOptions { signers: [(None, world.signer())].into(), jobs: 1, ..publish() };
    let outcome = world.run(&options).await.expect("an outcome");
    assert!(outcome.evidence.is_some_and(|said| said.contains("statements signed by")));
    let at = |world: &World, what: &str| world.story().iter().position(|line| line.starts_with(what));
    let (begun, opened) = (at(&world, "start "), at(&world, "open key"));
    assert!(begun.is_some() && begun < opened && opened < at(&world, "manifest"), "{:#?}", world.story());
    // Where no gate runs because all verdicts are known, nothing waits for one.
    let world = world.again();
    let outcome =
        world.run(&RunOptions { signers: [(None, world.signer())].into(), ..publish() }).await.expect("an outcome");
    assert!(outcome.evidence.is_some());
    assert!(at(&world, "start ").is_none() && at(&world, "open key") < at(&world, "manifest"), "{:#?}", world.story());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_gate_blocks_the_push_and_the_others_finish() {
    let world = World::new(TWO_GATES)
        .act("style", Act::exits(3).says("one\ntwo\nbad style\n"))
        .act("unit", Act::exits(0).takes(200));
    let outcome = world.run(&publish()).await.expect("an outcome");
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert!(outcome.published.is_empty() && outcome.tagged.is_empty());
    assert!(!world.story().iter().any(|line| line.starts_with("manifest")), "{:#?}", world.story());
    assert_eq!(outcome.gates[1].verdict, Verdict::Passed);
    let failure = outcome.gates[0].failure.as_ref().expect("a failure");
    assert_eq!((failure.command.as_str(), failure.exit.code, failure.reason.as_str()), ("a", 3, "exited 3"));
    assert_eq!(failure.tail, ["one", "two", "bad style"]);
    let place = failure.place.as_ref().expect("a place");
    assert_eq!((place.file.as_str(), place.line, place.column), ("seatrial.yaml", 3, 23));
    assert_eq!(std::fs::read_to_string(&failure.log).expect("kept"), "one\ntwo\nbad style\n");
    let record = pipeline::stage_record(&world.run, "style").expect("recorded");
    assert_eq!(record.args.last().map(String::as_str), Some("a"));
    // What `shell` enters is what the gate left, not what it started from.
    assert_eq!(failure.kept.as_deref(), Some("kept-style"));
}

#[tokio::test(flavor = "multi_thread")]
async fn needs_order_gates_and_skip_after_a_failure() {
    let yaml = "health: false\ntest: {gates: {c: {run: x, needs: b}, b: {run: x, needs: [a]}, a: x, d: {run: x, needs: e}, e: {run: x, allow_failure: true}, f: x}}\n";
    let world = World::new(yaml).act("a", Act::exits(0).takes(100)).act("b", Act::exits(1)).act("e", Act::exits(1));
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    let verdicts: Vec<_> = outcome.gates.iter().map(|gate| (gate.gate.as_str(), gate.verdict)).collect();
    use Verdict::{Failed, Passed, Skipped};
    assert_eq!(verdicts, [("c", Skipped), ("b", Failed), ("a", Passed), ("d", Passed), ("e", Failed), ("f", Passed)]);
    assert_eq!(outcome.gates[0].skipped.as_deref(), Some("needs b, which did not pass"));
    let story = world.story();
    let at = |what: &str| story.iter().position(|line| line == what).unwrap_or_else(|| panic!("{what}: {story:#?}"));
    assert!(at("end a") < at("start b") && at("end e") < at("start d"), "{story:#?}");
    assert!(!story.contains(&"start c".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_failure_does_not_block() {
    let world =
        World::new("health: false\ntest: {gates: {a: {run: x, allow_failure: true}}}\n").act("a", Act::exits(1));
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    assert_eq!((outcome.verdict, outcome.gates[0].verdict), (Verdict::Passed, Verdict::Failed));
    assert!(!outcome.tagged.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_beyond_its_time_is_stopped() {
    let world = World::new("health: false\ntest: {gates: {a: {run: x, timeout: 100ms}}}\n").act("a", Act::hangs());
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    let failure = outcome.gates[0].failure.as_ref().expect("a failure");
    assert!(failure.exit.timed_out);
    assert_eq!(failure.reason, "was stopped after 100ms (timeout)");
    assert!(world.story().contains(&"stop a 15 10s".to_owned()), "{:#?}", world.story());
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_stops_containers_and_closes_the_scope() {
    let world = World::new(TWO_GATES).act("style", Act::hangs()).act("unit", Act::exits(0));
    let cancel = world.cancel.clone();
    let options = publish();
    let later = async {
        world.told("start style").await;
        cancel.cancel();
    };
    let (ended, ()) = tokio::join!(world.run(&options), later);
    let error = ended.expect_err("cancelled");
    assert!(matches!(error, RunError::Cancelled), "{error:?}");
    let story = world.story();
    assert!(story.contains(&"stop style 15 10s".to_owned()), "{story:#?}");
    assert_eq!(story.last().map(String::as_str), Some("close"));
    assert!(!story.iter().any(|line| line.starts_with("manifest")));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_failures_are_kept_when_closing_fails_too() {
    let world = World::new(TWO_GATES).act("style", Act::breaks()).act("unit", Act::exits(0)).close_fails();
    let error = world.run(&RunOptions::default()).await.expect_err("an error");
    assert!(matches!(error.leading(), RunError::Engine(_)), "{error:?}");
    assert_eq!(error.to_string(), "the engine broke (and cleaning up failed: cannot close)");
    let world = World::new("health: false\n").close_fails();
    assert!(matches!(world.run(&RunOptions::default()).await, Err(RunError::Cleanup(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_build_and_setup_are_outcomes() {
    let world = World::new(TWO_GATES).build_fails();
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    assert_eq!(outcome.build_failure.map(|failed| failed.exit.code), Some(2));
    assert!(outcome.image.is_none() && outcome.gates.is_empty() && outcome.verdict == Verdict::Failed);

    let world = World::new("health: false\ntest: {setup: [false], gates: {a: x}}\n").setup_fails();
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert!(outcome.setup_failure.is_some());
    assert_eq!(outcome.gates[0].skipped.as_deref(), Some("setup failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn setup_sees_mounts_and_nothing_of_the_commit() {
    let yaml = "health: false\nbuild: .\ntest: {workdir: /w, user: app, mounts: [Dockerfile], environment: {A: b}, setup: [one, {user: root, run: two}], gates: {a: x}}\n";
    let world = World::new(yaml);
    world.run(&RunOptions::default()).await.expect("an outcome");
    let request = world.setup_request().expect("asked");
    assert_eq!(
        request.commands.iter().map(|one| (one.text.as_str(), one.user.as_str())).collect::<Vec<_>>(),
        [("one", "app"), ("two", "root")]
    );
    assert_eq!(request.commands[0].args, ["/bin/sh", "-ec", "one"]);
    assert!(
        request.commands[0].env.iter().all(|(name, _)| !name.starts_with("SEATRIAL")),
        "{:?}",
        request.commands[0].env
    );
    assert_eq!(request.mounts[0].target, "/w/Dockerfile");
    let spec = world.spec("a").expect("started");
    assert_eq!((spec.root.id.as_str(), spec.cwd.as_str(), spec.user.as_str()), ("root+setup", "/w", "app"));
    let env = |name: &str| spec.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(env("A"), Some("b"));
    assert_eq!(env("IMAGE"), Some("yes"));
    assert_eq!(env("SEATRIAL_GIT_SHORT"), Some("3f2a91c"));
    assert_eq!(env("SEATRIAL_GIT_BRANCH"), Some("master"));
    assert_eq!(env("SEATRIAL_GIT_TAG"), None);
    assert_eq!(env("CI"), Some("true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_are_chosen_by_name_with_what_they_need() {
    let yaml = "test: {gates: {a: x, b: {run: x, needs: a}, c: x}}\n";
    let world = World::new(yaml);
    let outcome = world.run(&test(&["b"])).await.expect("an outcome");
    assert_eq!(outcome.gates.iter().map(|gate| gate.gate.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(outcome.health.is_none() && outcome.tagged.is_empty());
    match World::new("test: {gates: {unit: x}}\n").run(&test(&["uint"])).await {
        Err(RunError::Usage { message, hint }) => {
            assert_eq!(message, "there is no gate `uint`");
            assert_eq!(hint.as_deref(), Some("did you mean `seatrial test unit`?"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_published_says_why() {
    for (branch, event, options, reason) in [
        ("develop", "push", publish(), "branch is not master"),
        ("master", "push", RunOptions::default(), "`--publish` was not given"),
        ("master", "request", publish(), "change requests are not published"),
    ] {
        let world = World::new(TWO_GATES).source(branch, event);
        let outcome = world.run(&options).await.expect("an outcome");
        assert_eq!(outcome.verdict, Verdict::Passed);
        assert_eq!(outcome.not_published.as_deref(), Some(reason));
        assert!(!world.story().iter().any(|line| line.starts_with("upload") || line.starts_with("manifest")));
        assert_eq!(
            outcome.tagged,
            ["localhost:5000/team/app:3f2a91c".to_owned(), format!("localhost:5000/team/app:{branch}")]
        );
        assert_eq!(outcome.publish_tags, ["3f2a91c", "latest"]);
    }
    let world = World::new(TWO_GATES).unpublishable("made of this host's own files");
    let outcome = world.run(&publish()).await.expect("an outcome");
    assert_eq!(outcome.not_published.as_deref(), Some("made of this host's own files"));
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_alone_needs_a_verdict_for_this_very_image() {
    let options = RunOptions { stages: Stages::Publish, ..publish() };
    let world = World::new(TWO_GATES);
    match world.run(&options).await {
        Err(RunError::Refused { message, .. }) => assert_eq!(message, "this image has not passed its gates yet"),
        other => panic!("{other:?}"),
    }
    assert!(!world.story().iter().any(|line| line.starts_with("manifest")));
    world.run(&RunOptions::default()).await.expect("an outcome");
    let outcome = world.run(&options).await.expect("an outcome");
    assert_eq!(outcome.published.len(), 2);
    // Another gate since then.
    let world = world.file(&TWO_GATES.replace("unit: b", "unit: c"));
    match world.run(&options).await {
        Err(RunError::Refused { message, .. }) => assert_eq!(message, "the gates have changed since the image passed"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_registry_leaves_the_local_names() {
    let world = World::new(TWO_GATES).registry_fails();
    let error = world.run(&publish()).await.expect_err("an error");
    assert!(matches!(error, RunError::Registry(_)), "{error:?}");
    let named = world.store.resolve(&"localhost:5000/team/app:master".parse().expect("a reference")).expect("readable");
    assert!(named.is_some(), "what passed keeps its local names, so that `publish` can go on");
    assert_eq!(world.story().last().map(String::as_str), Some("close"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_collected_also_on_failure() {
    let yaml = "health: false\ntest: {gates: {unit: {run: x, reports: {junit: unit.xml}}}}\n";
    let xml = "<testsuite><testcase/><testcase><failure/></testcase></testsuite>";
    let world = World::new(yaml).act("unit", Act::exits(1).reports("unit.xml", xml));
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    let gate = &outcome.gates[0];
    assert_eq!(gate.tests.map(|tests| (tests.passed, tests.failed)), Some((1, 1)));
    let kept = gate.reports.as_ref().expect("kept").join("unit.xml");
    assert_eq!(std::fs::read_to_string(kept).expect("kept"), xml);
    assert!(!world.run.path.join("work/unit").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_commands_share_a_shell_and_the_first_failure_ends_them() {
    // The engine's part is played by the host's own shell.
    for (commands, code, begun, failing) in [
        (&["cd /tmp", "test \"$PWD\" = /tmp", "echo done"][..], 0, 3, ""),
        (&["echo 'it'", "false; true", "echo never"][..], 1, 2, "false; true"),
        (&["true", "test -f /nonexistent && true", "echo never"][..], 1, 2, "test -f /nonexistent && true"),
        (&["echo \"unbalanced", "echo never"][..], 2, 1, "echo \"unbalanced"),
        (&["test $# = 0", "exit 7", "echo never"][..], 7, 2, "exit 7"),
        (&["printf 'no newline'", "printf again"][..], 0, 2, ""),
    ] {
        let list = serde_json::to_string(commands).expect("text");
        let world = World::new(&format!("health: false\ntest: {{gates: {{a: {list}}}}}\n")).act("a", Act::host());
        let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
        let gate = &outcome.gates[0];
        let failure = gate.failure.as_ref();
        assert_eq!(failure.map_or(0, |failure| failure.exit.code), code, "{commands:?} {failure:?}");
        assert_eq!(failure.map_or("", |failure| failure.command.as_str()), failing, "{commands:?}");
        assert_eq!(world.steps("a"), begun, "{commands:?}");
        let log = std::fs::read_to_string(world.run.path.join("log/a")).expect("kept");
        assert!(!log.contains('\u{1e}') && !log.contains("never"), "{log:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_shell_is_the_gates_failure_with_a_hint() {
    let world = World::new("health: false\ntest: {gates: {a: x}}\n").act("a", Act::no_program());
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    let failure = outcome.gates[0].failure.as_ref().expect("a failure");
    assert_eq!(failure.exit.code, 127);
    assert!(failure.hint.as_ref().is_some_and(|hint| hint.contains("entrypoint")));
}

const HEALTHY: &str = "health: {interval: 50ms, attempts: 4, command: [probe]}\n";

#[tokio::test(flavor = "multi_thread")]
async fn health_is_awaited_with_early_probes() {
    let world = World::new(HEALTHY).act("app-health", Act::hangs().probes(&[1, 1, 0]));
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    let health = outcome.health.expect("checked");
    assert_eq!(health.verdict, Verdict::Passed);
    assert!(
        health.summary.starts_with("healthy at attempt ") && health.summary.contains(" of 4 after "),
        "{}",
        health.summary
    );
    let spec = world.spec("app-health").expect("started");
    assert_eq!(spec.args, ["/serve", "--port", "80"]);
    assert!(!spec.init && spec.network == engine::NetworkMode::Default);
    assert!(world.story().contains(&"stop app-health 3 100ms".to_owned()), "by STOPSIGNAL: {:#?}", world.story());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_gives_up_and_shows_both_outputs() {
    let world = World::new(HEALTHY).act("app-health", Act::hangs().says("listening\n").probes(&[1]));
    let outcome = world.run(&publish()).await.expect("an outcome");
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert!(outcome.tagged.is_empty());
    let failure = outcome.health.and_then(|health| health.failure).expect("a failure");
    assert_eq!((failure.reason.as_str(), failure.command.as_str()), ("not healthy in 4 attempts", "probe"));
    assert_eq!(failure.tail, ["listening", "probe says 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_healthy_container_is_watched_while_gates_run() {
    let yaml = "health: {interval: 1s, attempts: 2, command: [probe]}\ntest: {gates: {a: {run: x}}}\n";
    let health = |probes: &'static [i32], serve: Act| async move {
        let world = World::new(yaml).act("a", Act::exits(0).takes(10_000)).act("app-health", serve.probes(probes));
        world.run(&RunOptions::default()).await.expect("an outcome").health.expect("checked")
    };
    // One failure is no end, and is told.
    let flapped = health(&[0, 0, 1, 0], Act::hangs()).await;
    assert_eq!((flapped.verdict, flapped.flaps), (Verdict::Passed, 1));
    assert!(flapped.summary.ends_with(", flapped 1 time"), "{}", flapped.summary);
    // As many in a row as there are attempts are one.
    let sick = health(&[0, 0, 1, 1], Act::hangs()).await;
    assert_eq!(sick.summary, "unhealthy again after 2 failures in a row");
    let dead = health(&[0], Act::exits(3).takes(5_000)).await;
    assert!(dead.summary.starts_with("the container exited 3, healthy as it was after "), "{}", dead.summary);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_has_to_fail_when_the_container_is_frozen() {
    let yaml = "health: {interval: 50ms, attempts: 4, command: [probe], prove: true, stop_grace_period: 3s}\n";
    let run = |probes: &'static [i32]| async move {
        let world = World::new(yaml).act("app-health", Act::hangs().probes(probes));
        (world.run(&RunOptions::default()).await.expect("an outcome").health.expect("checked"), world.story())
    };
    let (proven, story) = run(&[0, 1]).await;
    assert_eq!(proven.verdict, Verdict::Passed);
    assert!(proven.summary.contains("proven unhealthy when frozen, ended "), "{}", proven.summary);
    let told: Vec<&str> = story
        .iter()
        .map(String::as_str)
        .filter(|line| line.ends_with("app-health 3 3s") || line.contains("e app-health"))
        .collect();
    assert_eq!(told, ["freeze app-health", "stop app-health 3 3s"], "{story:#?}");
    let (always, _) = run(&[0]).await;
    assert_eq!(always.verdict, Verdict::Failed);
    assert_eq!(always.summary, "the health check says healthy although the process is frozen");

    let world = World::new("health: {prove: true}\n").act("app-health", Act::hangs());
    let nothing = world.run(&RunOptions::default()).await.expect("an outcome").health.expect("checked");
    assert_eq!((nothing.verdict, nothing.summary.as_str()), (Verdict::Failed, "there is no health check to prove"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_dies_is_not_healthy() {
    let world = World::new(HEALTHY).act("app-health", Act::exits(5).says("no port\n").takes(120).probes(&[1]));
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    let failure = outcome.health.and_then(|health| health.failure).expect("a failure");
    assert_eq!(failure.reason, "the container exited 5 before it was healthy");
    assert_eq!(failure.tail, ["no port"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_healthcheck_the_start_counts() {
    for (act, verdict, summary) in [
        (Act::hangs(), Verdict::Passed, "still running after 1s"),
        (Act::exits(0), Verdict::Passed, "ended with 0"),
        (Act::exits(1), Verdict::Failed, "the container exited 1"),
    ] {
        let world = World::new("").act("app-health", act);
        let health = world.run(&RunOptions::default()).await.expect("an outcome").health.expect("checked");
        assert_eq!((health.verdict, health.summary.as_str()), (verdict, summary));
    }
    let world = World::new("health: false\n");
    let health = world.run(&RunOptions::default()).await.expect("an outcome").health.expect("asked");
    assert_eq!(health.verdict, Verdict::Skipped);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_image_are_checked() {
    let world = World::new("health: false\nlimits: {size: 1B}\n");
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    assert_eq!(outcome.verdict, Verdict::Failed);
    assert!(outcome.broken_limits[0].ends_with("the limit is 1 B"), "{:?}", outcome.broken_limits);
    assert!(outcome.tagged.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_the_image_makes_tags() {
    let yaml = "image: localhost:5000/app\nhealth: false\nversion: {env: VERSION}\npublish: {tags: [\"${version}\", \"${git.tag}\"]}\n";
    let world = World::new(yaml);
    let outcome = world.run(&publish()).await.expect("an outcome");
    assert_eq!(outcome.publish_tags, ["2.7"]);
    assert_eq!(outcome.skipped_tags[0].reason, "the commit has no Git tag");
    assert_eq!(outcome.published[0].reference, "localhost:5000/app:2.7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_registry_has_the_digest_that_passed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let address = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let options = registry::ServerOptions::default();
    let server = registry::Server::bind(address, dir.path(), options).await.expect("a server");
    let host = server.local_addr();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async move { drop(stopped.await) }));
    let client = registry::Client::new(registry::ClientOptions::default());
    let yaml = format!("image: {host}/team/app\nhealth: false\ntest: {{gates: {{a: x}}}}\npublish: {{tags: [v1]}}\n");
    let reference: oci::Reference = format!("{host}/team/app:v1").parse().expect("a reference");

    let world = World::new(&yaml).act("a", Act::exits(1));
    world.run_with(&publish(), Some(&client)).await.expect("an outcome");
    assert!(client.list_tags(&reference).await.is_err(), "a failing gate leaves the registry untouched");

    let world = world.act("a", Act::exits(0));
    let outcome = world.run_with(&publish(), Some(&client)).await.expect("an outcome");
    assert_eq!(client.list_tags(&reference).await.expect("a list"), ["v1"]);
    let found = client.resolve(&reference).await.expect("there");
    assert_eq!(Some(found.digest), outcome.image.and_then(|image| image.digest));
    stop.send(()).expect("it serves");
    serving.await.expect("no panic").expect("it ended well");
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_have_their_times() {
    let world = World::new("test: {setup: [x], gates: {a: x}}\n").act("app-health", Act::exits(0));
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    assert_eq!(
        outcome.stages.iter().map(|(stage, _)| stage.as_str()).collect::<Vec<_>>(),
        ["build", "setup", "a", "health"]
    );
}
