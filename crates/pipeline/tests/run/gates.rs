//! Gates in depth: other images, matrices, attempts, limits, secrets, reports, verdicts that are known.

use events::Verdict;
use pipeline::{RunError, RunOptions, Stages};

use crate::script::{Act, Limit, World};

fn gates(text: &str) -> String {
    format!("health: false\ntest:\n  gates:\n{text}")
}

fn only(names: &[&str]) -> RunOptions {
    RunOptions { stages: Stages::Gates(names.iter().map(|name| (*name).into()).collect()), ..RunOptions::default() }
}

fn names(outcome: &pipeline::Outcome) -> Vec<&str> {
    outcome.gates.iter().map(|gate| gate.gate.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_runs_in_another_image_without_the_setup() {
    let yaml = "health: false\ntest:\n  user: app\n  workdir: /srv\n  environment: {A: b}\n  setup: [x]\n  gates:\n    \
                lint: {in: tools.example/lint:2, run: x}\n    again: {in: tools.example/lint:2, run: y}\n    unit: z\n";
    let world = World::new(yaml);
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    let spec = world.spec("lint").expect("started");
    assert_eq!(spec.root.id, "root of tools.example/lint:2");
    // How the built image is entered says nothing about this one.
    assert_eq!((spec.user.as_str(), spec.cwd.as_str()), ("", "/"));
    assert!(spec.env.contains(&("A".into(), "b".into())));
    assert_eq!(world.spec("unit").expect("started").root.id, "root+setup");
    let asked = world.story().iter().filter(|line| line.starts_with("image ")).count();
    assert_eq!(asked, 1, "one name is one image in a run");
    let image = outcome.gates[0].image.as_ref().expect("recorded");
    assert_eq!(image.reference, "tools.example/lint:2");
    assert_eq!(world.events("gate.finished").iter().filter(|event| event["image"]["id"].is_string()).count(), 2);

    let world = World::new(&gates("    lint: {in: tools.example/lint:2, run: x}\n"));
    world.run(&RunOptions::default()).await.expect("an outcome");
    assert!(world.setup_request().is_none(), "nothing needs the setup");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_matrix_is_one_gate_for_each_combination() {
    let yaml = gates(
        "    unit:\n      matrix: {PYTHON: [\"3.11\", \"3.12\"], DB: [a/b]}\n      in: python:${PYTHON}\n      run: x\n    \
         after: {run: y, needs: [unit]}\n",
    );
    let world = World::new(&yaml).act("unit--3-12--a-b", Act::exits(1));
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    assert_eq!(names(&outcome), ["unit (3.11, a/b)", "unit (3.12, a/b)", "after"]);
    assert_eq!(outcome.gates[2].skipped.as_deref(), Some("needs unit (3.12, a/b), which did not pass"));
    let spec = world.spec("unit--3-11--a-b").expect("started");
    assert_eq!(spec.root.id, "root of python:3.11");
    assert!(spec.env.contains(&("PYTHON".into(), "3.11".into())) && spec.env.contains(&("DB".into(), "a/b".into())));
    assert!(world.run.path.join("log/unit (3.11, a\u{2215}b)").is_file(), "a slash leads nowhere");
    assert!(pipeline::stage_record(&world.run, "unit (3.11, a/b)").is_some());

    let outcome = world.again().run(&only(&["unit"])).await.expect("an outcome");
    assert_eq!(names(&outcome), ["unit (3.11, a/b)", "unit (3.12, a/b)"]);
    let world = World::new(&yaml);
    let outcome = world.run(&only(&["unit (3.12, a/b)"])).await.expect("an outcome");
    assert_eq!(names(&outcome), ["unit (3.12, a/b)"]);
    let outcome = world.run(&only(&["after"])).await.expect("an outcome");
    assert_eq!(outcome.gates.len(), 3, "who needs a matrix needs all of it");
    match world.run(&only(&["unti"])).await {
        Err(RunError::Usage { hint, .. }) => assert_eq!(hint.as_deref(), Some("did you mean `seatrial test unit`?")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_after_a_failure_is_flaky() {
    let yaml = gates("    unit: {run: x, retries: 2, reports: {junit: r.xml}}\n");
    let xml = "<testsuite><testcase name='a'><failure message='no'/></testcase></testsuite>";
    let world = World::new(&yaml).act("unit", Act::exits(3).then(4).then(0).says("hello\n").reports("r.xml", xml));
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    let gate = &outcome.gates[0];
    assert_eq!((outcome.verdict, gate.is_flaky(), gate.attempts()), (Verdict::Passed, true, 3));
    let reasons: Vec<_> = gate.former.iter().map(|attempt| attempt.reason.as_str()).collect();
    assert_eq!(reasons, ["exited 3", "exited 4"]);
    for (number, attempt) in gate.former.iter().enumerate() {
        let log = attempt.log.as_ref().expect("kept");
        assert!(log.ends_with(format!("log/unit@{}", number + 1)), "{}", log.display());
        assert_eq!(std::fs::read_to_string(log).expect("readable"), "hello\n");
        assert!(attempt.reports.as_ref().expect("kept").join("r.xml").is_file());
    }
    assert!(world.run.path.join("log/unit").is_file());
    assert_eq!(world.story().iter().filter(|line| *line == "start unit").count(), 3);
    let retried: Vec<_> = world.events("gate.retried").iter().map(|event| event["attempt"].as_u64()).collect();
    assert_eq!(retried, [Some(1), Some(2)]);
    assert_eq!(world.events("gate.finished")[0]["attempts"], 3);
    let summary = world.events("stage.finished").iter().find(|event| event["stage"] == "unit").cloned().expect("told");
    assert_eq!(summary["summary"], "flaky: passed at attempt 3 of 3, 1 test, 1 failed");

    let outcome = world.again().run(&RunOptions::default()).await.expect("an outcome");
    assert_eq!(outcome.gates[0].known_from, None, "a flaky pass is not trusted");

    let world = World::new(&yaml).act("unit", Act::exits(3));
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    let gate = &outcome.gates[0];
    assert_eq!((outcome.verdict, gate.is_flaky(), gate.attempts()), (Verdict::Failed, false, 3));
    assert_eq!(gate.failure.as_ref().and_then(|failure| failure.kept.as_deref()), Some("kept-unit"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_reach_the_container_and_their_messages_name_them() {
    let yaml = "health: false\ntest:\n  mem_limit: 64m\n  tmpfs: /tmp:size=1m,mode=0700\n  gates:\n    a:\n      run: x\n      cpus: 1.5\n      \
                pids_limit: 7\n      shm_size: 128m\n      ulimits: {nofile: {soft: 10, hard: -1}}\n      network: none\n    \
                b: {run: y, mem_limit: 1g}\n";
    let world = World::new(yaml).act("a", Act::hits(Limit::Memory)).act("b", Act::hits(Limit::Pids));
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    let spec = world.spec("a").expect("started");
    assert_eq!(spec.limits, engine::Limits { memory_bytes: Some(64 << 20), cpus: Some(1.5), pids: Some(7) });
    assert_eq!(spec.network, engine::NetworkMode::None);
    let around = &spec.surroundings;
    assert_eq!(around.tmpfs, [engine::Tmpfs { target: "/tmp".into(), size_bytes: Some(1 << 20), mode: 0o700 }]);
    assert_eq!(around.shm_size_bytes, Some(128 << 20));
    assert_eq!(around.ulimits, [engine::Ulimit { name: "nofile".into(), soft: 10, hard: u64::MAX }]);
    assert_eq!(world.spec("b").expect("started").limits.memory_bytes, Some(1 << 30));
    let reasons: Vec<_> =
        outcome.gates.iter().filter_map(|gate| gate.failure.as_ref()).map(|failure| failure.reason.as_str()).collect();
    assert_eq!(reasons, ["hit its memory limit of 64 MB", "hit the limit of processes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_network_needs_the_machines_consent() {
    let world = World::new(&gates("    a: {run: x, network: host}\n    b: y\n"));
    match world.run(&RunOptions::default()).await {
        Err(RunError::Usage { message, hint }) => {
            assert_eq!(message, "gate `a` asks for the host's network, which this machine does not allow");
            assert!(hint.is_some_and(|hint| hint.contains("/etc/seatrial/allow")));
        }
        other => panic!("{other:?}"),
    }
    assert!(world.story().is_empty(), "nothing was begun: {:?}", world.story());
    assert!(world.run(&only(&["b"])).await.is_ok(), "who does not ask needs none");
    let options = RunOptions { allow_host_network: true, ..RunOptions::default() };
    world.run(&options).await.expect("an outcome");
    assert_eq!(world.spec("a").expect("started").network, engine::NetworkMode::Host);
}

const SECRETS: &str = "health: false
secrets: {token: {environment: TOKEN}, key: {file: key.txt}, other: {environment: UNSET}}
build: {secrets: [{source: token, target: npm}]}
test:
  setup: [{run: install, secrets: [token]}]
  gates:
    a: {run: x, secrets: [token, {source: key, target: /etc/key, mode: 0400, uid: 7}], reports: {junit: r.xml}}
    b: {run: y, secrets: [other]}
";

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_files_and_masked() {
    let xml = "<testsuite><testcase name='a'><failure message='got hunter2hunter2'/></testcase></testsuite>";
    let act = Act::exits(1).says("the key is hunter2 hunt").reports("r.xml", xml);
    let world = World::new(SECRETS).env("TOKEN", "hunter2").write("key.txt", "k3yk3y\n").act("a", act);
    let outcome = world.run(&only(&["a"])).await.expect("an outcome");
    let files = world.spec("a").expect("started").surroundings.files;
    let shown: Vec<_> =
        files.iter().map(|file| (file.target.as_str(), file.content.expose(), file.mode, file.uid)).collect();
    assert_eq!(shown, [("/run/secrets/token", &b"hunter2"[..], 0o444, 0), ("/etc/key", b"k3yk3y\n", 0o400, 7)]);
    let setup = world.setup_request().expect("asked");
    assert_eq!(setup.commands[0].files[0].target, "/run/secrets/token");
    assert!(setup.masks.is_some());
    let build = world.build_request().expect("asked");
    assert_eq!(build.run.secrets["npm"].expose(), b"hunter2");

    let gate = &outcome.gates[0];
    assert_eq!(gate.failure.as_ref().expect("a failure").tail, ["the key is *** hunt"]);
    assert_eq!(gate.problems[0].message, "got ******");
    for path in ["log/a", "reports/a/r.xml", "stage/a.json"] {
        let text = std::fs::read_to_string(world.run.path.join(path)).expect("kept");
        assert!(!text.contains("hunter2"), "{path}: {text}");
    }
    assert!(!serde_json::to_string(&world.events("")).expect("text").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_are_missing_say_where_they_are_needed() {
    let world = World::new(SECRETS).env("TOKEN", "x").write("key.txt", "k");
    assert!(world.run(&only(&["a"])).await.is_ok(), "a secret that nobody needs may be absent");
    match world.run(&only(&["b"])).await {
        Err(RunError::Usage { message, hint }) => {
            assert_eq!(message, "secret `other` is needed, and `UNSET` is not set (seatrial.yaml:8:27)");
            assert_eq!(hint.as_deref(), Some("set it in the environment: `export UNSET=…`"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_get_no_secrets() {
    let world = World::new(SECRETS).env("TOKEN", "hunter2").write("key.txt", "k").fork();
    world.run(&RunOptions::default()).await.expect("an outcome");
    assert!(world.spec("a").expect("started").surroundings.files.is_empty());
    assert!(world.setup_request().expect("asked").commands[0].files.is_empty());
    assert!(world.build_request().expect("asked").run.secrets.is_empty());
    let warnings = world.events("warning");
    assert_eq!(
        warnings[0]["message"],
        "there are no secrets for a change request from a fork; absent: key, other, token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_counted_and_their_places_found() {
    let yaml = "health: false\nbuild: .\ntest:\n  workdir: /srv\n  mounts: [check.py]\n  gates:\n    a: {run: x, reports: {junit: r.xml}}\n    \
                b: {run: x, reports: {sarif: r.xml}}\n    c: {run: x, reports: {coverage: r.xml}}\n    d: {run: x, reports: {coverage: r.xml}}\n";
    let junit = "<testsuite><testcase name='t'><failure>x\ncheck.py:3: Error</failure></testcase><testcase name='u' file='/srv/none.py'><error/></testcase></testsuite>";
    let sarif = r#"{"version": "2.1.0", "runs": [{"results": [{"ruleId": "R", "message": {"text": "bad"}, "locations": [
        {"physicalLocation": {"artifactLocation": {"uri": "Dockerfile"}, "region": {"startLine": 1}}}]}]}]}"#;
    let world = World::new(yaml)
        .write("check.py", "")
        .act("a", Act::hangs().reports("r.xml", junit))
        .act("b", Act::exits(0).reports("r.xml", sarif))
        .act("c", Act::exits(0).reports("r.xml", "SF:x\nDA:1,1\nDA:2,0\nend_of_record\n"))
        .act("d", Act::exits(0).reports("r.xml", "<coverage>"));
    let world = world.file(&yaml.replace("a: {run: x,", "a: {run: x, timeout: 50ms,"));
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    let told: Vec<_> = outcome.gates[0]
        .problems
        .iter()
        .map(|one| (one.name.as_str(), one.file.as_deref(), one.line, one.in_repository))
        .collect();
    assert_eq!(told, [("t", Some("check.py"), Some(3), true), ("u", Some("/srv/none.py"), None, false)]);
    assert!(
        outcome.gates[0].failure.as_ref().is_some_and(|failure| failure.exit.timed_out),
        "also of a gate that was stopped"
    );
    let finding = &outcome.gates[1].problems[0];
    assert_eq!(
        (finding.name.as_str(), finding.file.as_deref(), finding.in_repository),
        ("R", Some("Dockerfile"), true)
    );
    assert_eq!(
        pipeline::counts(outcome.tests, outcome.coverage, outcome.findings),
        ["2 tests, 2 failed", "50.0 % lines covered", "1 finding"]
    );
    let warning = &world.events("warning")[0]["message"];
    assert_eq!(warning, "reports of d: r.xml is left out: it is cut off: an element is not closed");
}

const MEMO: &str = "health: false
build: {labels: {commit: \"${git.sha}\"}}
test:
  mounts: [check.py]
  gates:
    a: {run: x, reports: {coverage: r.info}}
    sha: echo $SEATRIAL_GIT_SHA
    open: {run: x, rerun: true}
    writes: {run: x, mounts: [\"check.py:/w:rw\"]}
    secret: {run: x, secrets: [token]}
secrets: {token: {environment: TOKEN}}
";

/// Gates that were not run again.
fn known(outcome: &pipeline::Outcome) -> Vec<&str> {
    outcome.gates.iter().filter(|gate| gate.known_from.is_some()).map(|gate| gate.gate.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_gate_is_not_run_again() {
    let act = Act::exits(0).reports("r.info", "SF:x\nDA:1,1\nend_of_record\n");
    let world = World::new(MEMO).write("check.py", "1").env("TOKEN", "t").act("a", act);
    let default = RunOptions::default();
    assert_eq!(known(&world.run(&default).await.expect("an outcome")), [""; 0]);
    let first = world.run.number;

    let world = world.again();
    let outcome = world.run(&default).await.expect("an outcome");
    assert_eq!(known(&outcome), ["a", "sha"]);
    assert!(!world.story().contains(&"start a".to_owned()) && world.story().contains(&"start open".to_owned()));
    let gate = &outcome.gates[0];
    assert_eq!(gate.known_from, Some(events::RunId(first)));
    assert_eq!(gate.counts(), ["100.0 % lines covered"]);
    assert!(gate.reports.as_ref().expect("linked").join("r.info").is_file());
    let event = &world.events("gate.finished").into_iter().find(|event| event["gate"] == "a").expect("told");
    assert_eq!((&event["cached"], &event["run"]), (&true.into(), &first.into()));
    let summary = world.events("stage.finished").into_iter().find(|event| event["stage"] == "a").expect("told");
    assert_eq!(summary["summary"], format!("passed in run {first}, unchanged, 100.0 % lines covered"));

    // The flag, another commit, another file, another definition.
    let world = world.again();
    let rerun = RunOptions { rerun: true, ..RunOptions::default() };
    assert_eq!(known(&world.run(&rerun).await.expect("an outcome")), [""; 0]);
    let world = world.again().commit("00112233445566778899aabbccddeeff00112233");
    assert_eq!(known(&world.run(&default).await.expect("an outcome")), ["a"], "who reads the commit is run again");
    let world = world.again().write("check.py", "2");
    assert_eq!(known(&world.run(&default).await.expect("an outcome")), [""; 0]);
    let world = world.again().write("check.py", "1").file(&MEMO.replace("a: {run: x,", "a: {run: x, cpus: 2,"));
    assert_eq!(known(&world.run(&default).await.expect("an outcome")), ["sha"]);
    let world = world.again().file(&MEMO.replace("  gates:", "  # a comment\n  gates:"));
    assert_eq!(known(&world.run(&default).await.expect("an outcome")), ["a", "sha"], "places do not count");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_never_remembered() {
    let world = World::new(&gates("    a: {run: x, allow_failure: true}\n")).act("a", Act::exits(1));
    world.run(&RunOptions::default()).await.expect("an outcome");
    let world = world.again().act("a", Act::exits(0));
    let outcome = world.run(&RunOptions::default()).await.expect("an outcome");
    assert_eq!((outcome.gates[0].verdict, outcome.gates[0].known_from), (Verdict::Passed, None));
}
