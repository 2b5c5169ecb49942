//! From a directory to a plan: what is inferred, resolved and refused.

#[path = "plan/images.rs"]
mod images;

use std::{collections::BTreeMap, path::Path};

use pipeline::{Plan, PrepareError, PrepareRequest, Prepared, Version, choose_tags, prepare};
use serde_json::Value;

struct Project(tempfile::TempDir);

impl Project {
    fn new(files: &[(&str, &str)]) -> Project {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let project = Project(dir);
        for (name, text) in files {
            let path = project.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        project
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn prepare(&self, env: &[(&str, &str)]) -> Result<Prepared, PrepareError> {
        let mut all: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        all.insert("PATH".into(), std::env::var("PATH").unwrap_or_default());
        prepare(&PrepareRequest { directory: self.path().to_path_buf(), file: None, env: all, run_number: Some(7) })
    }

    #[track_caller]
    fn plan(&self, env: &[(&str, &str)]) -> Plan {
        match self.prepare(env) {
            Ok(prepared) => prepared.plan,
            Err(PrepareError::Invalid(invalid)) => panic!("{:#?}", invalid.diagnostics),
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn refused(&self) -> String {
        match self.prepare(&[]) {
            Err(PrepareError::Invalid(invalid)) => invalid
                .diagnostics
                .iter()
                .map(|d| {
                    let span = d.span.clone().unwrap_or_default();
                    let (line, column) = dockerfile::line_column(&invalid.file.text, span.start);
                    let label = d.label.as_deref().map(|label| format!(" ({label})")).unwrap_or_default();
                    format!("{} {line}:{column} {}{label}", d.code, d.message)
                })
                .collect::<Vec<_>>()
                .join("\n"),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it was accepted"),
        }
    }

    fn git(&self, args: &[&str]) {
        let output = std::process::Command::new("git")
            .arg("-C")
            .arg(self.path())
            .args(["-c", "user.name=T", "-c", "user.email=t@example", "-c", "init.defaultBranch=master"])
            .args(args)
            .env_remove("GIT_DIR")
            .output()
            .expect("git is part of the development machine");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn commit(&self) {
        self.git(&["init", "-q"]);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "first"]);
    }
}

const NUMBER_API: &str = r#"
image: registry.example/extsoft/numbers-api
build:
  labels: {commit: "${git.sha}", branch: "${git.branch}"}
test:
  workdir: /home/thenumbers
  mounts: [tests, .flake8, .isort.cfg, requirements-test.txt]
  setup:
    - {user: root, run: apk add --virtual .build-deps gcc musl-dev}
    - python -m pip install --user -r requirements-test.txt
  gates:
    style:
      - python -m black --check thenumbers tests
      - python -m isort --check-only thenumbers tests
    static:
      - python -m flake8 thenumbers
      - python -m mypy thenumbers
    unit:
      run: python -m pytest tests --junitxml=$SEATRIAL_REPORTS/unit.xml
      reports: {junit: unit.xml}
health: {interval: 2s, attempts: 10}
publish:
  when: [{branch: master}, {event: tag}]
  tags: ["${git.tag}", {tag: latest, when: {event: tag}}, {tag: master, when: {branch: master}}]
"#;

fn number_api() -> Project {
    let project = Project::new(&[
        ("seatrial.yaml", NUMBER_API),
        ("Dockerfile", "FROM scratch\n"),
        ("tests/test.py", ""),
        (".flake8", ""),
        (".isort.cfg", ""),
        ("requirements-test.txt", ""),
    ]);
    project.commit();
    project
}

#[test]
fn the_number_api_is_planned() {
    let project = number_api();
    let plan = project.plan(&[]);
    assert_eq!(plan.name, "numbers-api");
    assert_eq!(plan.image.to_string(), "registry.example/extsoft/numbers-api");
    assert_eq!(plan.build.labels["branch"], "master");
    assert_eq!(plan.build.labels["commit"].len(), 40);
    assert_eq!(plan.test.gates.iter().map(|gate| gate.name.as_str()).collect::<Vec<_>>(), ["style", "static", "unit"]);
    let unit = &plan.test.gates[2];
    assert_eq!(unit.commands[0].run, "python -m pytest tests --junitxml=$SEATRIAL_REPORTS/unit.xml");
    let place = unit.commands[0].place.as_ref().expect("a place");
    assert_eq!((place.file.as_str(), place.line, place.column), ("seatrial.yaml", 19, 12));
    let mount = unit.mounts[0].bind("/home/thenumbers");
    assert_eq!(mount.target, "/home/thenumbers/tests");
    assert!(mount.readonly && mount.source.is_absolute());
    assert_eq!(plan.test.setup[0].user.as_deref(), Some("root"));
    assert_eq!(plan.test.setup[1].user, None);
    let publish = plan.publish.as_ref().expect("publishing");
    assert_eq!(choose_tags(&publish.tags, &plan.source, &plan.values).tags, ["master"]);
    project.git(&["tag", "v1.0"]);
    let plan = project.plan(&[]);
    let publish = plan.publish.as_ref().expect("publishing");
    assert_eq!(choose_tags(&publish.tags, &plan.source, &plan.values).tags, ["v1.0", "latest", "master"]);
    // What `seatrial config` prints.
    let printed = serde_json::to_value(&plan).expect("it serialises");
    assert_eq!(printed["health"]["interval"], "2s");
    assert_eq!(printed["test"]["gates"][2]["reports"]["junit"][0], "unit.xml");
    assert!(serde_saphyr::to_string(&plan).is_ok());
}

/// As much of JSON Schema as ours uses: a validator of its own would bring dozens of crates for one test.
fn conforms(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    let fail = |why: String| Err(format!("{value}: {why}"));
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
        conforms(value, &root["$defs"][name], root)?;
    }
    if let Some(forms) = schema["anyOf"].as_array() {
        let failures: Vec<String> = forms.iter().filter_map(|form| conforms(value, form, root).err()).collect();
        if failures.len() == forms.len() {
            return fail(failures.join("; "));
        }
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        return fail(format!("not one of {}", schema["enum"]));
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        other => panic!("type {other}"),
    };
    if !types.is_empty() && !types.iter().any(|name| is(name.as_str().expect("a text"))) {
        return fail(format!("not of type {}", schema["type"]));
    }
    for item in value.as_array().into_iter().flatten() {
        if schema["items"].is_object() {
            conforms(item, &schema["items"], root)?;
        }
    }
    for (key, item) in value.as_object().into_iter().flatten() {
        let own = &schema["properties"][key.as_str()];
        if own.is_object() {
            conforms(item, own, root)?;
        } else if key.starts_with("x-") && schema["patternProperties"]["^x-"].is_object() {
        } else if schema["additionalProperties"] == Value::Bool(false) {
            return fail(format!("unknown key {key}"));
        } else if schema["additionalProperties"].is_object() {
            conforms(item, &schema["additionalProperties"], root)?;
        }
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        if value.as_object().is_some_and(|map| !map.contains_key(key.as_str().expect("a text"))) {
            return fail(format!("{key} is missing"));
        }
    }
    Ok(())
}

#[test]
fn reader_and_schema_agree() {
    let schema = pipeline::file::schema();
    for (yaml, good) in [
        (NUMBER_API, true),
        (
            "image: a/b\nversion: {env: CAKE_SERVICE_VERSION}\npublish: {when: {branch: master}, tags: [\"${version}\", latest]}\n",
            true,
        ),
        ("publish: {when: {branch: develop}, tags: [\"${git.short}\", 1.10]}\nkeep: {failed: 2h, runs: 50}\n", true),
        (
            "build: ./x\nhealth: false\nversion: v1\nx-own: {a: [1]}\ntest: {x-note: 1, setup: a, gates: {a: b, c: [d], e: {run: f, x-own: 1}}}\n",
            true,
        ),
        (
            "build: {args: [A=b, C], labels: {n: 1, t: true, z: }, network: none}\nlimits: {layers: 9, size: 3MB}\n",
            true,
        ),
        (
            "test: {mounts: [a, {source: b, read_only: false}], entrypoint: [a], gates: {a: {entrypoint: x}}, timeout: 1m}\n",
            true,
        ),
        (
            "health: {interval: 2s, attempts: 10, command: [curl, x]}\npublish: {to: [localhost:5000], when: [{event: [push]}]}\n",
            true,
        ),
        ("tset: {}\n", false),
        ("test: {gates: {a: {rnu: x}}}\n", false),
        ("health: maybe\n", false),
        ("health: {attempts: many}\n", false),
        ("publish: {when: {event: merge}}\n", false),
        ("build: {network: hsot}\n", false),
        ("test: {gates: {a: {run: {b: c}}}}\n", false),
        ("image: [a]\n", false),
        ("bump: {}\n", false),
    ] {
        let value: Value = serde_saphyr::from_str(yaml).expect("YAML");
        assert_eq!(
            conforms(&value, &schema, &schema).is_ok(),
            good,
            "{yaml}: {:?}",
            conforms(&value, &schema, &schema)
        );
        assert_eq!(pipeline::file::parse(yaml).1.is_empty(), good, "{yaml}: {:?}", pipeline::file::parse(yaml).1);
    }
}

#[test]
fn a_plan_can_be_numbered_later() {
    let project = with_file("build: {labels: {n: \"${run.number}\"}}\n");
    let request =
        PrepareRequest { directory: project.path().into(), file: None, env: BTreeMap::new(), run_number: None };
    let prepared = prepare(&request).expect("a plan");
    assert_eq!(prepared.plan.build.labels["n"], "0");
    assert_eq!(prepared.numbered(42).expect("a plan").plan.build.labels["n"], "42");
}

#[test]
fn a_dockerfile_alone_is_enough() {
    let project = Project::new(&[("Containerfile", "FROM scratch\n")]);
    let plan = project.plan(&[]);
    assert!(plan.build.dockerfile_path.as_ref().is_some_and(|path| path.ends_with("Containerfile")));
    assert!(plan.publish.is_none() && plan.health.enabled && plan.test.gates.is_empty() && !plan.image_is_given);
    assert_eq!(plan.local_tags.len(), 2);
    assert!(matches!(Project::new(&[]).prepare(&[]), Err(PrepareError::NothingToBuild { .. })));
}

#[test]
fn a_file_that_builds_nothing_needs_no_dockerfile() {
    let without = |yaml: &str| Project::new(&[("seatrial.yaml", yaml)]);
    let none = "ST310 1:1 there is no Dockerfile in the build context";
    assert_eq!(without("test: {gates: {a: x}}").refused(), none);
    without("services: {db: {image: \"postgres:17\"}}").plan(&[]);
    without("image: registry.example/a/b\nenvironments: {live: {}}").plan(&[]);
}

#[test]
fn what_init_writes_is_accepted() {
    for dockerfile in ["FROM scratch\n", "FROM scratch\nHEALTHCHECK CMD [\"/ok\"]\n"] {
        let project = Project::new(&[("Dockerfile", dockerfile)]);
        let yaml = pipeline::init_yaml(project.path());
        assert!(yaml.starts_with("# yaml-language-server: $schema="));
        std::fs::write(project.path().join("seatrial.yaml"), &yaml).expect("written");
        let plan = project.plan(&[]);
        assert_eq!(plan.health.attempts, dockerfile.contains("HEALTHCHECK").then_some(10));
        // With the suggestions switched on as well.
        let uncommented: String = yaml
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.starts_with(' ') || rest.ends_with(':') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        std::fs::write(project.path().join("seatrial.yaml"), &uncommented).expect("written");
        std::fs::create_dir(project.path().join("tests")).expect("made");
        assert_eq!(project.plan(&[]).test.gates.len(), 1, "{uncommented}");
    }
}

#[test]
fn the_nearest_file_up_to_the_git_root_is_used() {
    let project =
        Project::new(&[("seatrial.yaml", ""), ("Dockerfile", "FROM scratch\n"), ("a/b/c.txt", ""), ("seatrial", "")]);
    assert_eq!(pipeline::find_file(&project.path().join("a/b")), None, "without Git only the directory itself");
    project.commit();
    let found = pipeline::find_file(&project.path().join("a/b")).expect("found");
    assert_eq!(found, project.path().canonicalize().expect("it exists").join("seatrial.yaml"));
}

fn with_file(yaml: &str) -> Project {
    Project::new(&[("seatrial.yaml", yaml), ("Dockerfile", "FROM scratch\nARG V=3.1\n"), ("tests/t", ""), ("data", "")])
}

#[test]
fn paths_may_not_leave_the_repository() {
    for (yaml, expected) in [
        ("test: {mounts: [/etc]}", "ST311 1:17 `/etc` is not relative to the pipeline file"),
        ("test: {mounts: [~/x]}", "ST311 1:17 `~/x` is not relative to the pipeline file"),
        ("test: {mounts: [..]}", "ST311 1:17 `..` is outside of the repository"),
        ("test: {mounts: [link]}", "ST311 1:17 `link` is outside of the repository"),
        ("test: {mounts: [tests/../link/passwd]}", "ST311 1:17 `tests/../link/passwd` is outside of the repository"),
        ("build: link", "ST311 1:8 `link` is outside of the repository"),
        ("build: {dockerfile: link/passwd}", "ST311 1:21 `link/passwd` is outside of the repository"),
        ("build: {additional_contexts: {a: /etc}}", "ST311 1:34 `/etc` is not relative to the pipeline file"),
        ("version: {file: link/passwd}", "ST311 1:17 `link/passwd` is outside of the repository"),
        ("secrets: {a: {file: link/passwd}}", "ST311 1:21 `link/passwd` is outside of the repository"),
        ("test: {mounts: [tets]}", "ST310 1:17 `tets` does not exist (did you mean `tests`?)"),
        ("build: data", "ST310 1:8 `data` is not a directory\nST310 1:8 there is no Dockerfile in the build context"),
        ("test: {mounts: [\"data:../x\"]}", "ST306 1:17 the target may not have `..`"),
        ("test: {mounts: [\"data:/\"]}", "ST306 1:17 the whole root cannot be covered by a mount"),
    ] {
        let project = with_file(yaml);
        std::os::unix::fs::symlink("/etc", project.path().join("link")).expect("linked");
        assert_eq!(project.refused(), expected, "{yaml}");
    }
}

#[test]
fn mistakes_across_sections_are_shown() {
    for (yaml, expected) in [
        (
            "test: {gates: {a: {run: x, needs: b}, b: {run: x, needs: c}, c: {run: x, needs: a}}}",
            "ST309 1:81 gates wait for each other: a → b → c → a",
        ),
        ("test: {gates: {a: {run: x, needs: a}}}", "ST309 1:35 gates wait for each other: a → a"),
        (
            "test: {gates: {unit: x, b: {run: x, needs: [uint]}}}",
            "ST308 1:45 there is no gate `uint` (did you mean `unit`?)",
        ),
        (
            "image: r.example/A/b",
            "ST306 1:8 `r.example/A/b` is not the name of an image: repository names are lower-case",
        ),
        ("image: a/b:1", "ST306 1:8 the image's name has a tag"),
        ("build: {labels: {a: \"${git.sha}\"}}", "ST313 1:21 `${git.sha}` has no value: there is no Git commit"),
        ("build: {labels: {a: \"${git.shaa}\"}}", "ST312 1:21 `${git.shaa}` is not known (did you mean `${git.sha}`?)"),
        ("publish: {tags: [\"${git.tga}\"]}", "ST312 1:18 `${git.tga}` is not known (did you mean `${git.tag}`?)"),
        (
            "publish: {tags: [\"localhost:5000/app:1.0\"]}",
            "ST306 1:18 `localhost:5000/app:1.0` is no tag: a tag has no colon",
        ),
        ("publish: {tags: [semver]}", "ST306 1:18 `semver` would be a tag of that very name"),
        ("publish: {to: team}", "ST306 1:15 `team` names no registry"),
        (
            "build: {platform: a/b/c/d}",
            "ST306 1:19 `a/b/c/d` is not a platform (expected `os/architecture[/variant]`, such as `linux/arm64`)",
        ),
        (
            "version: {env: X}\nbuild: {labels: {v: \"${version}\"}}",
            "ST313 2:21 `${version}` has no value: the version is only known once the image is built",
        ),
        ("version: {file: data}", "ST306 1:17 no version can be read: `data` holds more than a version alone"),
    ] {
        assert_eq!(with_file(yaml).refused(), expected, "{yaml}");
    }
}

#[test]
fn values_are_filled_in_and_commands_are_not() {
    let project = with_file(
        "image: ${REGISTRY:-localhost:5000}/app\nversion: {arg: V}\nbuild: {args: {A: \"${X}-$$\", FROM_ENV: , ABSENT: }, labels: {v: \"${version}\"}}\n\
         test:\n  environment: [\"N=${run.number}\", FROM_ENV]\n  gates: {a: {run: \"echo ${X} $$\", environment: {N: 8}, entrypoint: \"tini --\"}}\n",
    );
    let plan = project.plan(&[("X", "x; rm"), ("FROM_ENV", "given")]);
    assert_eq!(plan.image.to_string(), "localhost:5000/app");
    assert_eq!(plan.version, Version::Known("3.1".into()));
    assert_eq!(plan.build.labels["v"], "3.1");
    assert_eq!(plan.build.args, BTreeMap::from([("A".into(), "x; rm-$".into()), ("FROM_ENV".into(), "given".into())]));
    let gate = &plan.test.gates[0];
    assert_eq!(gate.commands[0].run, "echo ${X} $$");
    assert_eq!(gate.environment, BTreeMap::from([("N".into(), "8".into()), ("FROM_ENV".into(), "given".into())]));
    assert_eq!(gate.entrypoint, ["tini", "--"]);
    assert_eq!(plan.test.setup_environment["N"], "7");
}

#[test]
fn registries_are_where_the_image_goes() {
    for (yaml, expected) in [
        ("image: registry.example/team/app\npublish: {}", "registry.example/team/app"),
        ("image: team/app\npublish: {}", "docker.io/team/app"),
        ("image: app\npublish: {}", ""),
        ("image: app\npublish: {to: localhost:5000}", "localhost:5000/app"),
        (
            "image: registry.example/team/app\npublish: {to: [localhost:5000, \"r.example/x/\"]}",
            "localhost:5000/team/app r.example/x/team/app",
        ),
    ] {
        let publish = with_file(yaml).plan(&[]).publish.expect("publishing");
        let names: Vec<_> = publish.repositories.iter().map(ToString::to_string).collect();
        assert_eq!(names.join(" "), expected, "{yaml}");
    }
}

/// Names of the gates that a matrix makes.
fn matrix(text: &str) -> Vec<String> {
    let yaml = format!("test:\n  gates:\n    g:\n      run: x\n      matrix: {text}\n");
    let plan = Project::new(&[("Dockerfile", ""), ("seatrial.yaml", &yaml)]).plan(&[("V", "7")]);
    plan.test.gates.into_iter().map(|gate| gate.name).collect()
}

#[test]
fn a_matrix_has_githubs_combinations() {
    assert_eq!(matrix("{A: [1, 2], B: [x, y]}"), ["g (1, x)", "g (1, y)", "g (2, x)", "g (2, y)"]);
    assert_eq!(matrix("{A: [1, 2], B: [x, y], exclude: [{A: 1, B: y}, {A: 2}]}"), ["g (1, x)"]);
    assert_eq!(matrix("{A: [\"${V}\"]}"), ["g (7)"], "values are templates");
    assert_eq!(matrix("{include: [{A: 1}, {A: 2, B: x}]}"), ["g (1)", "g (2, x)"]);
    // The example of GitHub's documentation ("Expanding or adding matrix configurations").
    let text = "{fruit: [apple, pear], animal: [cat, dog], include: [{color: green}, {color: pink, animal: cat}, \
                {fruit: apple, shape: circle}, {fruit: banana}, {fruit: banana, animal: cat}]}";
    assert_eq!(
        matrix(text),
        [
            "g (apple, cat, pink, circle)",
            "g (apple, dog, green, circle)",
            "g (pear, cat, pink)",
            "g (pear, dog, green)",
            "g (banana)",
            "g (banana, cat)"
        ]
    );
    // An exclusion comes before what is included.
    assert_eq!(matrix("{A: [1, 2], exclude: [{A: 2}], include: [{A: 2}]}"), ["g (1)", "g (2)"]);
}

#[test]
fn mistakes_of_gates_are_refused() {
    let many: Vec<String> = (0..17).map(|number| number.to_string()).collect();
    let (many, mut wrong) = (many.join(", "), Vec::new());
    for (gate, expected) in [
        ("matrix: {A: [1, 1]}".to_owned(), "ST306 2:11 the matrix has `g (1)` twice"),
        ("matrix: {A: [1], exclude: [{A: 1}]}".into(), "ST306 2:23 no combination of the matrix is left"),
        (
            "matrix: {OS: [1], exclude: [{SO: 1}]}".into(),
            "ST306 2:52 the matrix has no `SO` that could be excluded (did you mean `OS`?)",
        ),
        (format!("matrix: {{A: [{many}], B: [{many}]}}"), "ST301 2:23 the matrix has more than 256 combinations"),
        (
            "matrix: {A: [1, 2]}, environment: {B: \"${git.tga}\"}".into(),
            "ST312 2:61 `${git.tga}` is not known (did you mean `${git.tag}`?)",
        ),
        ("in: \"Bad Name\"".into(), "ST306 2:27 "),
        ("secrets: [tokne]".into(), "ST306 2:33 there is no secret `tokne` (did you mean `token`?)"),
        ("secrets: [token, token]".into(), "ST306 2:40 two secrets are shown as `token`"),
    ] {
        let yaml = format!("test:\n  gates: {{g: {{run: x, {gate}}}}}\nsecrets: {{token: {{environment: T}}}}\n");
        let told = Project::new(&[("Dockerfile", ""), ("seatrial.yaml", &yaml)]).refused();
        if !told.starts_with(expected) || told.lines().count() != 1 {
            wrong.push(format!("{gate}\n  told:     {told}\n  expected: {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let outside =
        Project::new(&[("Dockerfile", ""), ("seatrial.yaml", "secrets: {a: {file: ../x}, b: {file: /etc/passwd}}\n")]);
    assert_eq!(
        outside.refused(),
        "ST311 1:21 `../x` is not a path below the pipeline file\nST311 1:38 `/etc/passwd` is not a path below the pipeline file"
    );
}

#[test]
fn forks_are_told_from_the_repository() {
    let is_fork = |env: &[(&str, &str)]| Project::new(&[("Dockerfile", "")]).plan(env).source.is_fork;
    assert!(!is_fork(&[]) && !is_fork(&[("GITHUB_EVENT_NAME", "push")]));
    assert!(is_fork(&[("GITHUB_EVENT_NAME", "pull_request")]), "what is not known is a stranger's");
    for (head, expected) in [("o/r", false), ("evil/r", true)] {
        let event = format!(
            r#"{{"pull_request": {{"head": {{"repo": {{"full_name": "{head}"}}}}, "base": {{"repo": {{"full_name": "o/r"}}}}}}}}"#
        );
        let files = Project::new(&[("event.json", &event)]);
        let path = files.path().join("event.json").display().to_string();
        assert_eq!(is_fork(&[("GITHUB_EVENT_NAME", "pull_request"), ("GITHUB_EVENT_PATH", &path)]), expected);
    }
    let gitlab = |source: &str| {
        is_fork(&[
            ("CI_PIPELINE_SOURCE", "merge_request_event"),
            ("CI_MERGE_REQUEST_PROJECT_ID", "1"),
            ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", source),
        ])
    };
    assert!(!gitlab("1") && gitlab("2"));
    assert!(is_fork(&[("DRONE_BUILD_EVENT", "pull_request")]));
}

const SERVICES: &str = r#"
image: registry.example/acme/ledger
include: compose.yaml
services:
  db:
    snapshot: ready
    seed: [schema.sql]
    ready: {log: {pattern: "ready to accept", times: 2}, timeout: 1m}
    environment: {SHA: "${git.short:-none}", NAME: "${APP:-app}"}
    command: "sh -c 'echo $HOME ${git.sha}'"
  api: {from: ledger, depends_on: {db: {condition: service_healthy}}, ready: {http: {port: 8080, path: /health, status: 2xx, body: ok}}}
volumes: {cache: }
"#;

#[test]
fn services_are_planned_in_compose_words_and_over_included_files() {
    let project = Project::new(&[
        ("Dockerfile", "FROM scratch\n"),
        ("seatrial.yaml", SERVICES),
        ("schema.sql", "create table a();"),
        (
            "compose.yaml",
            "services:\n  db: {image: \"postgres:${TAG}\", volumes: [\"data:/var/lib\"], cpuset: 0-1}\nvolumes: {data: }\n",
        ),
        (".env", "TAG=17\n"),
    ]);
    let plan = project.plan(&[("APP", "ledger")]);
    let db = plan.services.project.service("db").expect("db");
    assert_eq!(db.image.as_ref().map(ToString::to_string).as_deref(), Some("docker.io/library/postgres:17"));
    assert_eq!(db.environment.get("NAME").map(String::as_str), Some("ledger"));
    assert_eq!(db.environment.get("SHA").map(String::as_str), Some("none"));
    // Command text is no template: a branch's name could inject a command.
    assert_eq!(db.command.as_deref(), Some(&["sh".to_owned(), "-c".into(), "echo $HOME ${git.sha}".into()][..]));
    assert_eq!(db.seed, [project.path().canonicalize().expect("there").join("schema.sql")]);
    assert_eq!(db.snapshot, Some(compose::Snapshot::Ready));
    assert_eq!(db.ready.as_ref().and_then(|ready| ready.log.clone()).map(|log| log.times), Some(2));
    let api = plan.services.project.service("api").expect("api");
    assert_eq!(api.from.as_deref(), Some("ledger"));
    let http = api.ready.as_ref().and_then(|ready| ready.http.clone()).expect("http");
    assert!(http.status.is_some_and(|status| status.matches(204) && !status.matches(301)));
    assert_eq!(plan.services.project.volumes.keys().collect::<Vec<_>>(), ["cache", "data"]);
    let [warning] = plan.services.included.as_slice() else { panic!("{:?}", plan.services.included) };
    assert_eq!(
        (warning.file.name.as_str(), warning.diagnostic.message.as_str()),
        ("compose.yaml", "`cpuset` has no effect here")
    );
    let json = serde_json::to_value(&plan).expect("JSON");
    assert_eq!(json["services"]["services"][0]["name"], "db");
}

#[test]
fn mistakes_in_services_are_shown_at_their_place() {
    let refused = |services: &str| {
        let text = format!("image: registry.example/app\nservices: {services}\n");
        Project::new(&[("Dockerfile", "FROM scratch\n"), ("seatrial.yaml", &text)]).refused()
    };
    for (services, expected) in [
        ("{db: {image: x, prots: [80]}}", "ST302 2:27 a service has no key `prots` (did you mean `ports`?)"),
        ("{db: {user: x}}", "ST346 2:12 service `db` needs `image`, `build` or `from`"),
        ("{db: {from: other}}", "ST320 2:23 no image `other` is built here"),
        ("{db: {from: app, image: x}}", "ST345 2:23 `from` names the image; `image` and `build` go without it"),
        ("{db: {image: x, ready: {timeout: 1s}}}", "ST307 2:34 `ready` needs one of `log`, `http`, `port`, `command`"),
        ("{db: {image: x, ready: {log: \"(\"}}}", "ST306 2:40 the regular expression is not valid: unclosed group"),
        (
            "{db: {image: x, ready: {http: health}}}",
            "ST306 2:41 `health` is not a path (write it like `/health` or `8080/health`)",
        ),
        (
            "{db: {image: x, ready: {http: {status: 7}}}}",
            "ST306 2:50 `7` is not an HTTP status (write it like `200` or `2xx`)",
        ),
        ("{db: {image: x, snapshot: now}}", "ST306 2:37 `now` is not a state; there are `ready`"),
        (
            "{db: {image: x, verify: gate}}",
            "ST306 2:35 `gate` is not evidence; there are `gates`, `signature` (did you mean `gates`?)",
        ),
        ("{db: {image: x, seed: nope.sql}}", "ST310 2:33 `nope.sql` does not exist"),
        ("{db: {image: \"x:${git.tga}\"}}", "ST312 2:24 `${git.tga}` is not known (did you mean `${git.tag}`?)"),
        ("{db: {image: \"x:${UNSET}\"}}", "ST313 2:24 `${UNSET}` has no value: `UNSET` is not set"),
        // What a stranger's change request may not do.
        ("{db: {image: x, volumes: [\"/etc:/etc\"]}}", "ST311 2:37 `/etc` is outside of the repository"),
        ("{db: {image: x, volumes: [\"../..:/up\"]}}", "ST311 2:37 `../..` is outside of the repository"),
        ("{db: {image: x, env_file: /etc/passwd}}", "ST311 2:37 `/etc/passwd` is outside of the repository"),
        ("{db: {image: x, build: /}}", "ST311 2:34 `/` is outside of the repository"),
        (
            "{db: {image: x, extends: {file: /etc/x.yaml, service: a}}}",
            "ST311 2:43 `/etc/x.yaml` is outside of the repository",
        ),
    ] {
        assert_eq!(refused(services), expected, "{services}");
    }
    let project = Project::new(&[
        ("Dockerfile", "FROM scratch\n"),
        ("seatrial.yaml", "include: [../x.yaml, a.yaml]\n"),
        ("a.yaml", "services: {a: {}}"),
    ]);
    assert_eq!(project.refused(), "ST311 1:11 `../x.yaml` is outside of the repository");
    let Err(PrepareError::Invalid(invalid)) = project.prepare(&[]) else { panic!("it was accepted") };
    let [finding] = invalid.included.as_slice() else { panic!("{:?}", invalid.included) };
    assert_eq!((finding.file.name.as_str(), finding.diagnostic.code), ("a.yaml", "ST346"));
    std::os::unix::fs::symlink("/etc", project.path().join("link")).expect("a link");
    std::fs::write(project.path().join("seatrial.yaml"), "services: {a: {image: x, volumes: [\"./link:/etc\"]}}\n")
        .expect("written");
    assert_eq!(project.refused(), "ST311 1:36 `./link` is outside of the repository");
}

#[test]
fn versions_come_from_certain_git_tags() {
    let project = Project::new(&[("Dockerfile", "FROM scratch\n"), ("seatrial.yaml", "")]);
    project.commit();
    project.git(&["tag", "v9.0.0"]);
    project.git(&["tag", "api-v1.2.3"]);
    project.git(&["tag", "api-v1.10.0"]);
    let version = |rule: &str| {
        std::fs::write(project.path().join("seatrial.yaml"), format!("version: {rule}\n")).expect("written");
        project.plan(&[]).version
    };
    let known = |version: &str| Version::Known(version.into());
    assert_eq!(version("{git: tag, tag: 'api-v*'}"), known("1.10.0"));
    assert_eq!(version("{tag: 'api-*'}"), known("1.10.0"));
    assert_eq!(version("{prefix: api-v}"), known("1.10.0"));
    assert_eq!(version("{git: tag}"), known("9.0.0"));
    let reason = "the commit has no Git tag like `web-*`".to_owned();
    assert_eq!(version("{tag: 'web-*'}"), Version::Absent(reason));
    project.git(&["commit", "-q", "--allow-empty", "-m", "second"]);
    project.git(&["tag", "-d", "api-v1.2.3"]);
    let short = project.plan(&[]).source.short.expect("a commit");
    // The work tree has changes: the pipeline file itself.
    let describe = |form: &str| version(&format!("{{git: describe, tag: 'api-v*', form: {form}}}"));
    assert_eq!(describe("git"), known(&format!("1.10.0-1-g{short}-dirty")));
    assert_eq!(describe("semver"), known(&format!("1.10.1-dev.1+g{short}.dirty")));
    assert_eq!(describe("pep440"), known(&format!("1.10.1.dev1+g{short}.dirty")));
    assert_eq!(describe("local"), known(&format!("1.10.0+1.g{short}.dirty")));
    let reason = "no Git tag like `web-*` comes before the commit".to_owned();
    assert_eq!(version("{git: describe, prefix: web-}"), Version::Absent(reason));
}

#[test]
fn mistakes_in_versions_and_tags_are_shown_at_their_place() {
    let project = Project::new(&[("Dockerfile", "FROM scratch\n"), ("setup.py", "setup(version=read())\n")]);
    for (text, expected) in [
        (
            "version: {file: setup.py}",
            "ST306 1:17 no version can be read: `setup.py` has no `version=\"…\"` as a plain text; it is not executed",
        ),
        ("version: {file: setup.py, regex: 'x('}", "ST306 1:34 the regular expression is not valid: unclosed group"),
        (
            "version: {file: setup.py, regex: nowhere}",
            "ST306 1:34 no version can be read: nothing in `setup.py` matches `nowhere`",
        ),
        ("version: {regex: x}", "ST307 1:10 `version` needs one of `git`, `env`, `label`, `arg`, `file`, `command`"),
        ("version: {env: V, tag: x}", "ST306 1:19 `tag` belongs to `git`, not to `env`"),
        (
            "version: {git: describe, form: semvre}",
            "ST306 1:32 `semvre` is not known; there are `git`, `semver`, `pep440` and `local` (did you mean `semver`?)",
        ),
        (
            "version: {command: x, in: hots}",
            "ST306 1:27 `hots` is not known; there are `image` and `host` (did you mean `host`?)",
        ),
        (
            "publish: {tags: ['type=semvre']}",
            "ST306 1:18 `semvre` is not known; there are `raw`, `schedule`, `semver`, `pep440`, `match`, `edge`, `ref`, `sha`, `date` and `build` (did you mean `semver`?)",
        ),
        (
            "publish: {tags: ['type=semver,patern={{version}}']}",
            "ST302 1:18 a tag has no key `patern` (did you mean `pattern`?)",
        ),
        (
            "publish: {tags: ['type=semver,pattern={{versoin}}']}",
            "ST312 1:18 `{{versoin}}` is not known (did you mean `{{version}}`?)",
        ),
        ("publish: {tags: [{type: sha, pattern: x}]}", "ST306 1:39 `pattern` means nothing for `sha`"),
        ("publish: {tags: [{type: ref}]}", "ST307 1:18 `ref` needs `event`: `branch`, `tag` or `pr`"),
        ("publish: {tags: [{when: {branch: x}}]}", "ST307 1:18 this entry needs `tag`, or `type`"),
        (
            "publish: {tags: [{type: date, tz: Europe/Nowhere}]}",
            "ST306 1:35 the time zone `Europe/Nowhere` is not known here (without the package tzdata only UTC and offsets such as `+02:00` are)",
        ),
        (
            "publish: {tags: [x], flavor: {latest: maybe}}",
            "ST306 1:39 `maybe` is not known; there are `auto`, `true` and `false`",
        ),
        (
            "publish: {tags: [x], flavor: ['sufix=-x']}",
            "ST306 1:31 `sufix` is no word of a flavour; there are `latest`, `prefix` and `suffix`",
        ),
    ] {
        std::fs::write(project.path().join("seatrial.yaml"), format!("{text}\n")).expect("written");
        assert_eq!(project.refused(), expected, "{text}");
    }
}

#[test]
fn labels_of_the_oci_keys_say_the_commit_and_leave_own_ones_alone() {
    let project = Project::new(&[
        ("Dockerfile", "FROM scratch\nLABEL org.opencontainers.image.title=\"Own\"\n"),
        (
            "seatrial.yaml",
            "image: registry.example/team/app\nversion: 1.4.2\nbuild: {oci_labels: true, labels: {org.opencontainers.image.url: https://own.example}}\n",
        ),
    ]);
    project.commit();
    project.git(&["remote", "add", "origin", "git@git.example:team/app.git"]);
    let plan = project.plan(&[]);
    let label = |name: &str| plan.build.labels.get(&format!("org.opencontainers.image.{name}")).map(String::as_str);
    assert_eq!(label("revision"), plan.source.sha.as_deref());
    assert_eq!(label("version"), Some("1.4.2"));
    assert_eq!(label("source"), Some("https://git.example/team/app"));
    assert_eq!(label("url"), Some("https://own.example"));
    assert_eq!(label("ref.name"), Some("master"));
    assert_eq!(label("title"), None);
    let time = plan.source.commit_time.expect("a commit").duration_since(std::time::UNIX_EPOCH).expect("later");
    let created: jiff::Timestamp = label("created").expect("it has one").parse().expect("RFC 3339");
    assert_eq!(created.as_second(), i64::try_from(time.as_secs()).expect("small"));
    assert_eq!(plan.build.labels, project.plan(&[]).build.labels);
}
