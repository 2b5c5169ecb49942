//! Gates in depth, in real containers: limits, secrets, other images, matrices, attempts, reports, known verdicts.

use testkit::World;

use crate::world_with_image;

const SECRET: &str = "correct-horse-battery";

/// A repository whose image is `tiny:1` with these gates.
fn gates(yaml: &str) -> World {
    let world = world_with_image();
    world
        .file(
            "Dockerfile",
            "FROM tiny:1\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nWORKDIR /srv\nCOPY app.sh .\nCMD [\"sh\", \"app.sh\"]\n",
        )
        .file("app.sh", "exit 0\n")
        .file("seatrial.yaml", yaml);
    world.commit();
    world
}

#[test]
fn a_limit_that_is_hit_is_named() {
    let world = gates(
        "test:
  gates:
    memory: {run: 'x=0123456789abcdef; while :; do x=$x$x; done', mem_limit: 16m}
    small: {run: 'echo fine', mem_limit: 16m, cpus: 0.5, pids_limit: 20}
    pids: {run: 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; wait', pids_limit: 8}
",
    );
    let finished = world.seatrial(["test"]).run().exits(1);
    let stderr = finished.stderr();
    if stderr.contains("is not limited") || stderr.contains("limits are not") {
        return testkit::skip("this user may not make control groups, so there are no limits to hit");
    }
    assert!(stderr.contains("hit its memory limit of SIZE after"), "{stderr}");
    assert!(stderr.contains("hit its limit of 8 processes after"), "{stderr}");
    assert!(stderr.contains("3 gates, 2 failed"), "{stderr}");
}

#[test]
fn a_gate_that_ignores_sigterm_is_killed_with_all_that_it_started() {
    let world = gates(
        "test: {gates: {a: {run: [\"trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & while :; do sleep 1; done\"], timeout: 300ms}}}\n",
    );
    world.seatrial(["test"]).run().exits(1).stderr_has("was stopped after 300ms (timeout)");
    assert!(world.remains().is_empty(), "{:?}", world.remains());
}

#[test]
fn surroundings_are_as_the_file_says() {
    let world = gates(
        "test:
  network: none
  tmpfs: '/scratch:size=1m,mode=0700'
  gates:
    tmpfs: {run: [grep ' /scratch tmpfs ' /proc/mounts, 'echo x > /scratch/x']}
    shm: {run: \"grep ' /dev/shm tmpfs .*size=2048k' /proc/mounts\", shm_size: 2m}
    files: {run: 'test $(ulimit -n) = 77', ulimits: {nofile: 77}}
    alone: 'test $(grep -c : /proc/net/dev) = 1'
",
    );
    world.seatrial(["test"]).run().exits(0).stderr_has("4 gates");
}

#[test]
fn the_hosts_network_is_the_machine_owners_to_give() {
    let world = gates("test: {gates: {a: {run: 'true', network: host}}}\n");
    let config = world.path("config");
    let asked = || world.seatrial(["test"]).env("XDG_CONFIG_HOME", &config);
    if std::fs::read_to_string("/etc/seatrial/allow").is_ok_and(|text| text.contains("network.host")) {
        return testkit::skip("this machine allows the host's network to everybody");
    }
    let finished =
        asked().run().exits(2).stderr_has("gate `a` asks for the host's network, which this machine does not allow");
    drop(finished.stderr_has("hint: allow it to all pipelines"));
    std::fs::create_dir_all(config.join("seatrial")).unwrap();
    std::fs::write(config.join("seatrial/allow"), "network.host\n").unwrap();
    asked().run().exits(0);
}

/// Whether a file below holds the secret.
fn traces(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match std::fs::symlink_metadata(&path) {
            Ok(data) if data.is_dir() => found.extend(traces(&path)),
            Ok(data) if data.is_file() => {
                let content = std::fs::read(&path).unwrap_or_default();
                found.extend(content.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()).then_some(path));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn secrets_are_seen_by_the_gate_alone() {
    let world = gates(
        "secrets: {token: {environment: TOKEN}}
build: {secrets: [token]}
test:
  setup: [{run: 'test $(cat /run/secrets/token) = correct-horse-battery && cat /run/secrets/token > /dev/null', secrets: [token]}]
  gates:
    with:
      run:
        - cat /run/secrets/token
        - base64 /run/secrets/token
        - printf correct-; sleep 0.1; echo horse-battery
        - echo \"<testsuite><testcase name='a'><failure message='$(cat /run/secrets/token)'/></testcase></testsuite>\" > $SEATRIAL_REPORTS/r.xml
        - exit 1
      secrets: [{source: token, target: /run/secrets/token, mode: 0400}]
      user: '0'
      reports: {junit: r.xml}
    without: test ! -e /run/secrets/token
",
    );
    // The command's own text is the user's and no secret of this test.
    let yaml = std::fs::read_to_string(world.repo().join("seatrial.yaml")).unwrap();
    let yaml = yaml.replace("$(cat /run/secrets/token) = correct-horse-battery", "-s /run/secrets/token");
    world.file("seatrial.yaml", &yaml).file(
        "Dockerfile",
        "FROM tiny:1\nWORKDIR /srv\nRUN --mount=type=secret,id=token,required cat /run/secrets/token\nCOPY app.sh .\n",
    );
    for progress in ["plain", "json", "tty"] {
        let session = world.seatrial(["test", "--progress", progress, "--junit", "junit.xml", "--rerun", "--no-cache"]);
        let finished = session.env("TOKEN", SECRET).run().exits(1);
        let shown = format!("{}{}", finished.stdout(), finished.stderr());
        assert!(shown.contains("***"), "{progress}: {shown}");
        for form in [SECRET, "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5", "without` exited"] {
            assert!(!shown.contains(form), "{progress} shows `{form}`:\n{shown}");
        }
    }
    let found = traces(&world.path(""));
    assert!(found.is_empty(), "{found:?}");
    // Without the variable nothing runs; a change request from a fork goes on without the secret, which RUN requires here.
    world
        .seatrial(["test"])
        .run()
        .exits(2)
        .stderr_has("secret `token` is needed, and `TOKEN` is not set (seatrial.yaml:2:19)");
    let fork = world.seatrial(["test", "without"]).env("TOKEN", SECRET).env("GITHUB_EVENT_NAME", "pull_request");
    fork.run().exits(2).stderr_has("there are no secrets for a change request from a fork");
}

#[test]
fn a_gate_runs_in_another_image_for_each_combination() {
    let world = gates(
        "test:
  setup: [touch /made]
  gates:
    other:
      matrix: {TAG: [\"1\", \"2\"]}
      in: tiny:${TAG}
      run: [test ! -e /srv/app.sh, test ! -e /made, 'echo tag $TAG']
    own: [test -e /srv/app.sh, test -e /made]
    after: {run: 'true', needs: other}
",
    );
    world.seatrial(["tag", "tiny:1", "tiny:2"]).run().exits(0);
    world.seatrial(["test"]).run().exits(0).stderr_has("4 gates");
    world.seatrial(["logs", "last", "other (2)"]).run().exits(0).stdout_has("tag 2");
    let events = world.seatrial(["logs", "last", "--events"]).run().exits(0).stdout();
    assert!(events.contains("\"image\":{\"reference\":\"tiny:2\",\"id\":\"sha256:"), "{events}");
    world.seatrial(["test", "other (1)", "--rerun"]).run().exits(0).stderr_has("1 gate");
    world.seatrial(["test", "other", "--rerun"]).run().exits(0).stderr_has("2 gates");
    world.seatrial(["test", "othr"]).run().exits(2).stderr_has("did you mean `seatrial test other`?");
}

#[test]
fn a_flaky_gate_says_so_and_keeps_every_log() {
    // The state lies outside of the container: each attempt begins with a fresh copy.
    let world = gates(
        "test: {gates: {unit: {run: ['test ! -e /left && touch /left', 'echo x >> /state/tries', 'test $(wc -l < /state/tries) = 3'], \
         mounts: ['state:/state:rw'], retries: 2}}}\n",
    );
    world.file("state/tries", "");
    let finished = world.seatrial(["test", "--junit", "out/junit.xml"]).run().exits(0);
    assert!(finished.stderr().contains("1 gate, 1 flaky (unit)"), "{}", finished.stderr());
    assert!(finished.stderr().contains("flaky: passed at attempt 3 of 3"), "{}", finished.stderr());
    for log in ["unit@1", "unit@2", "unit"] {
        world.seatrial(["logs", "last", log]).run().exits(0);
    }
    let junit = std::fs::read_to_string(world.repo().join("out/junit.xml")).unwrap();
    assert_eq!(junit.matches("<flakyFailure message=\"exited 1\"").count(), 2, "{junit}");
    assert!(junit.contains("tests=\"1\" failures=\"0\""), "{junit}");
}

#[test]
fn reports_are_told_to_people_and_programs() {
    let world = gates(
        "test:
  mounts: [tests]
  gates:
    unit:
      run: [cp tests/r.xml tests/c.info $SEATRIAL_REPORTS, exit 1]
      reports: {junit: r.xml, coverage: c.info}
    lint:
      run: cp tests/s.sarif $SEATRIAL_REPORTS
      reports: {sarif: '*.sarif'}
health: {}
",
    );
    world
        .file("tests/a.py", "")
        .file(
            "tests/r.xml",
            "<testsuite><testcase classname='t' name='good'/><testcase classname='t' name='bad'><failure message='1 != 2'>\ntests/a.py:7: AssertionError</failure></testcase></testsuite>",
        )
        .file("tests/c.info", "SF:a\nDA:1,1\nDA:2,1\nDA:3,0\nend_of_record\n")
        .file(
            "tests/s.sarif",
            "{\"version\": \"2.1.0\", \"runs\": [{\"results\": [{\"ruleId\": \"R1\", \"level\": \"warning\", \"message\": {\"text\": \"long, line\"}, \"locations\": [{\"physicalLocation\": {\"artifactLocation\": {\"uri\": \"tests/a.py\"}, \"region\": {\"startLine\": 3}}}]}]}]}",
        );
    let session = world.seatrial(["run", "--junit", "junit.xml", "--code-quality", "quality.json"]);
    let finished = session.env("GITHUB_ACTIONS", "true").env("CI", "true").run().exits(1);
    let stderr = finished.stderr();
    for words in [
        "✗ tests/a.py:7 bad: 1 != 2",
        "2 tests, 1 failed · 66.6 % lines covered · 1 finding",
        "::error file=tests/a.py,line=7,title=unit%3A bad::1 != 2\n",
        "::warning file=tests/a.py,line=3,title=lint%3A R1::long, line\n",
    ] {
        assert!(stderr.contains(words), "`{words}` is missing in:\n{stderr}");
    }
    let junit = std::fs::read_to_string(world.repo().join("junit.xml")).unwrap();
    let cases = pipeline::junit(&junit).expect("it is JUnit");
    let told: Vec<_> = cases.iter().map(|case| (case.suite.as_str(), case.name.as_str())).collect();
    assert_eq!(
        told,
        [("unit", "unit"), ("unit", "good"), ("unit", "bad"), ("lint", "lint"), ("health", "health")],
        "{junit}"
    );
    let quality: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(world.repo().join("quality.json")).unwrap()).unwrap();
    let told: Vec<_> = quality
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (one["location"]["path"].as_str(), one["location"]["lines"]["begin"].as_u64(), one["severity"].as_str())
        })
        .collect();
    assert_eq!(told, [(Some("tests/a.py"), Some(7), Some("critical")), (Some("tests/a.py"), Some(3), Some("minor"))]);
}

#[test]
fn an_unchanged_gate_is_not_run_again() {
    let world = gates("test: {mounts: [tests], gates: {unit: sh tests/unit.sh, lint: 'true'}}\nhealth: false\n");
    world.file("tests/unit.sh", "echo tested\n").commit();
    world.seatrial(["run"]).run().exits(0);
    let finished = world.seatrial(["run"]).run().exits(0);
    assert!(finished.stderr().contains("2 gates, 2 unchanged"), "{}", finished.stderr());
    assert!(finished.stderr().contains("passed in run 1, unchanged"), "{}", finished.stderr());
    world.seatrial(["run", "--rerun"]).run().exits(0).stderr_has("2 gates ·");
    // Another commit with the same files, then another file.
    world.git(&["commit", "-q", "--allow-empty", "-m", "nothing"]);
    world.seatrial(["run"]).run().exits(0).stderr_has("2 unchanged");
    world.file("tests/unit.sh", "echo other; exit 1\n");
    world.seatrial(["run"]).run().exits(1).stderr_has("2 gates, 1 failed");
    world.file("tests/unit.sh", "echo tested\n");
    world.seatrial(["run"]).run().exits(0).stderr_has("2 unchanged");
    // A file of the image counts, also where the gate does not look at it.
    world.file("app.sh", "exit 2\n");
    let finished = world.seatrial(["test"]).run().exits(0);
    assert!(!finished.stderr().contains("unchanged"), "{}", finished.stderr());
    world.seatrial(["clean", "--all"]).run().exits(0);
    let finished = world.seatrial(["test"]).run().exits(0);
    assert!(!finished.stderr().contains("unchanged"), "{}", finished.stderr());
}
