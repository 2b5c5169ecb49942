//! Several files: merge, `extends`, `include`, names, profiles, where files are found.

use serde_json::{Value, json};

use crate::Case;

/// The key of service `a` after two files were merged.
#[track_caller]
fn merged(base: &str, over: &str, key: &str) -> Value {
    let case = Case::new(&[
        ("one.yaml", &format!("services: {{a: {{image: x, {base}}}, b: {{image: y}}, c: {{image: z}}}}\nnetworks: {{n: , m: }}\nvolumes: {{v: , w: }}")),
        ("two.yaml", &format!("services: {{a: {{{over}}}}}")),
    ])
    .files(&["one.yaml", "two.yaml"]);
    case.value(key)
}

#[test]
fn files_are_merged_by_the_rules_of_their_keys() {
    assert_eq!(merged("user: a", "user: b", "user"), "b");
    assert_eq!(merged("user: a", "user: ", "user"), "a");
    assert_eq!(merged("command: [a]", "command: [b]", "command"), json!(["b"]));
    assert_eq!(merged("command: [a]", "command: ", "command"), Value::Null);
    assert_eq!(merged("entrypoint: [a]", "entrypoint: b c", "entrypoint"), json!(["b", "c"]));
    assert_eq!(
        merged("environment: {A: 1, B: 2}", "environment: [B=3, C=4]", "environment"),
        json!({"A": "1", "B": "3", "C": "4"})
    );
    assert_eq!(merged("labels: [a=1]", "labels: {a: 2, b: }", "labels"), json!({"a": "2", "b": ""}));
    assert_eq!(merged("dns: 1.1.1.1", "dns: [1.1.1.1, 8.8.8.8]", "dns"), json!(["1.1.1.1", "8.8.8.8"]));
    assert_eq!(merged("tmpfs: /a", "tmpfs: [/b]", "tmpfs"), json!([{"target": "/a"}, {"target": "/b"}]));
    assert_eq!(merged("cap_add: [KILL]", "cap_add: [KILL, CHOWN]", "cap_add"), json!(["KILL", "CHOWN"]));
    assert_eq!(
        merged("expose: [80]", "expose: [\"80\", 81]", "expose"),
        json!([{"port": 80, "protocol": "tcp"}, {"port": 81, "protocol": "tcp"}])
    );
    assert_eq!(
        merged(
            "depends_on: [b]",
            "depends_on: {b: {condition: service_healthy}, c: {condition: service_started}}",
            "depends_on"
        ),
        json!([
            {"service": "b", "condition": "service_healthy", "required": true, "restart": false},
            {"service": "c", "condition": "service_started", "required": true, "restart": false}
        ])
    );
    assert_eq!(
        merged("networks: [n]", "networks: {n: {aliases: [q]}, m: }", "networks"),
        json!([{"network": "n", "aliases": ["q"]}, {"network": "m"}])
    );
    assert_eq!(
        merged("healthcheck: {test: [CMD, a], retries: 4}", "healthcheck: {test: b}", "healthcheck"),
        json!({"test": ["CMD-SHELL", "b"], "retries": 4})
    );
    assert_eq!(
        merged("build: ./x", "build: {target: t, args: {A: 1}}", "build"),
        json!({"context": "$DIR/x", "target": "t", "args": {"A": "1"}})
    );
    assert_eq!(
        merged("build: {args: {A: 1, B: 1}}", "build: {args: [B=2]}", "build"),
        json!({"context": "$DIR", "args": {"A": "1", "B": "2"}})
    );
    assert_eq!(
        merged("logging: {driver: a, options: {x: 1}}", "logging: {driver: b}", "logging"),
        json!({"driver": "b", "options": {}})
    );
    assert_eq!(
        merged("logging: {driver: a, options: {x: 1}}", "logging: {options: {y: 2}}", "logging"),
        json!({"driver": "a", "options": {"x": "1", "y": "2"}})
    );
    assert_eq!(
        merged(
            "ulimits: {nofile: 10, nproc: {soft: 1, hard: 2}}",
            "ulimits: {nofile: {soft: 5, hard: 6}, nproc: 7}",
            "ulimits"
        ),
        json!({
            "nofile": {"soft": 5, "hard": 6}, "nproc": {"soft": 7, "hard": 7}
        })
    );
    assert_eq!(
        merged("volumes: [\"v:/work:ro\"]", "volumes: [\"w:/work\"]", "mounts"),
        json!([
            {"source": {"volume": {"name": "w", "subpath": null, "nocopy": false}}, "target": "/work", "read_only": false}
        ])
    );
    assert_eq!(
        merged("ports: [\"80:80\"]", "ports: [\"80:80/tcp\", \"81:81\"]", "ports").as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(
        merged("extra_hosts: {h: 1.1.1.1}", "extra_hosts: [\"h=1.1.1.1\", \"h=2.2.2.2\"]", "extra_hosts"),
        json!([
            ["h", {"address": "1.1.1.1"}], ["h", {"address": "2.2.2.2"}]
        ])
    );
    assert_eq!(
        merged(
            "deploy: {resources: {limits: {memory: 64m}}}",
            "deploy: {resources: {limits: {cpus: 1}}}",
            "memory_limit_bytes"
        ),
        json!(64 << 20)
    );
}

#[test]
fn reset_and_override() {
    assert_eq!(merged("ports: [\"8080:80\"], user: u", "ports: !reset []", "ports"), Value::Null);
    assert_eq!(merged("environment: {A: 1, B: 2}", "environment: {A: !reset null}", "environment"), json!({"B": "2"}));
    assert_eq!(merged("expose: [80]", "expose: !override [443]", "expose"), json!([{"port": 443, "protocol": "tcp"}]));
    assert_eq!(merged("environment: {A: 1}", "environment: !override {B: 2}", "environment"), json!({"B": "2"}));
    assert_eq!(merged("user: u", "hostname: !reset h", "hostname"), Value::Null);
    // What a service resets goes from the one that it extends and from the file below.
    let case = Case::new(&[
        ("one.yaml", "services: {a: {image: x, expose: [1], cap_add: [KILL]}}"),
        ("two.yaml", "services: {base: {image: y, expose: [2], cap_add: [CHOWN]}, a: {extends: base, expose: !reset [], cap_add: !override [BPF]}}"),
    ])
    .files(&["one.yaml", "two.yaml"]);
    assert_eq!(case.value("expose"), Value::Null);
    assert_eq!(case.value("cap_add"), json!(["BPF"]));
}

#[test]
fn what_cannot_be_merged_names_both_places() {
    let case = Case::new(&[
        ("one.yaml", "services:\n  a: {image: x, ports: [80]}"),
        ("two.yaml", "services:\n  a: {ports: {a: b}}"),
    ])
    .files(&["one.yaml", "two.yaml"]);
    assert!(
        case.findings().starts_with("ST341 two.yaml:2:14+6 a map cannot be merged with a list"),
        "{}",
        case.findings()
    );
}

#[test]
fn services_extend_others() {
    let case = Case::new(&[(
        "compose.yaml",
        "services:\n  base: {image: busybox, user: root, environment: {TZ: utc, PORT: 80}}\n  \
             mid: {extends: {service: base}, environment: {PORT: 8080}}\n  a: {extends: mid, security_opt: [\"label:user:USER\"]}\n",
    )]);
    assert_eq!(case.value("environment"), json!({"TZ": "utc", "PORT": "8080"}));
    assert_eq!(case.value("user"), "root");

    let case = Case::new(&[
        (
            "compose.yaml",
            "services:\n  a: {extends: {file: common/base.yaml, service: web}, volumes: [\"./own:/own\"]}\nvolumes: {data: }",
        ),
        (
            "common/base.yaml",
            "services:\n  web: {extends: {file: ../deep.yaml, service: root}, build: ., env_file: e.env, volumes: [\"./src:/src\", \"data:/data\"]}\n  other: {image: y}",
        ),
        ("common/e.env", "FROM=common\n"),
        ("deep.yaml", "services:\n  root: {image: \"x:${TAG:-1}\", command: [deep]}"),
    ]);
    assert_eq!(case.value("image"), "docker.io/library/x:1");
    assert_eq!(case.value("command"), json!(["deep"]));
    assert_eq!(case.value("build"), json!({"context": "$DIR/common"}));
    assert_eq!(case.value("environment"), json!({"FROM": "common"}));
    let paths: Vec<Value> = case
        .value("mounts")
        .as_array()
        .into_iter()
        .flatten()
        .map(|mount| mount["source"]["bind"]["path"].clone())
        .collect();
    assert_eq!(paths, [json!("$DIR/common/src"), Value::Null, json!("$DIR/own")]);
    assert_eq!(case.load().project.services.len(), 1);
}

#[test]
fn extends_says_what_is_missing() {
    let case = Case::new(&[
        (
            "compose.yaml",
            "services:\n  a: {image: x, extends: {file: b.yaml, service: wbe}}\n  c: {image: x, extends: nobody}\n  d: {image: x, extends: {file: e.yaml, service: q}}\n  f: {image: x, extends: {}}",
        ),
        ("b.yaml", "services: {web: {image: y}}"),
        ("e.yaml", "x-a: 1"),
    ]);
    assert_eq!(
        case.findings(),
        "ST342 2:50+3 service `wbe` does not exist (did you mean `web`?)\n\
         ST342 3:26+6 service `nobody` does not exist\n\
         ST342 4:33+6 `e.yaml` has no services\n\
         ST307 5:26+2 `extends` needs `service`"
    );
    let case = Case::new(&[
        ("compose.yaml", "services:\n  a: {extends: {file: b.yaml, service: b}}"),
        ("b.yaml", "services: {b: {extends: {file: compose.yaml, service: a}}}"),
    ]);
    assert!(case.findings().contains("extends itself"), "{}", case.findings());
}

#[test]
fn included_files_are_projects_of_their_own() {
    let case = Case::new(&[
        ("compose.yaml", "include:\n  - sub/compose.yaml\n  - {path: [other/one.yaml, other/two.yaml], project_directory: ., env_file: other/dev.env}\nservices: {a: {image: x, depends_on: [db, web]}}\n"),
        ("sub/compose.yaml", "include: [deeper/compose.yaml]\nservices: {db: {image: \"db:${TAG}\", build: ., environment: [TAG], volumes: [\"data:/d\"]}}\nvolumes: {data: }"),
        ("sub/.env", "TAG=sub\nOUTER=sub\n"),
        ("sub/deeper/compose.yaml", "services: {deep: {image: \"${OUTER}:${TAG}\"}}"),
        ("other/one.yaml", "services: {web: {image: web, build: ./web, user: \"${WHO}\"}}"),
        ("other/two.yaml", "services: {web: {command: [serve]}}"),
        ("other/dev.env", "WHO=dev\n"),
    ])
    .env(&[("OUTER", "outer")]);
    let project = case.load().project;
    let db = project.service("db").expect("db");
    assert_eq!(db.image.as_ref().map(ToString::to_string), Some("docker.io/library/db:sub".into()));
    assert_eq!(
        db.build.as_ref().map(|build| build.context.clone()),
        Some(case.path().join("sub").display().to_string())
    );
    assert_eq!(db.environment.get("TAG").map(String::as_str), Some("sub"));
    let deep = project.service("deep").expect("deep");
    assert_eq!(deep.image.as_ref().map(ToString::to_string), Some("docker.io/library/outer:sub".into()));
    let web = project.service("web").expect("web");
    assert_eq!(web.user.as_deref(), Some("dev"));
    assert_eq!(web.command.as_deref(), Some(&["serve".to_owned()][..]));
    assert_eq!(
        web.build.as_ref().map(|build| build.context.clone()),
        Some(case.path().join("web").display().to_string())
    );
    assert!(project.volumes.contains_key("data"));
}

#[test]
fn includes_do_not_redefine_and_do_not_run_in_circles() {
    let case = Case::new(&[
        ("compose.yaml", "include: [b.yaml]\nservices: {db: {image: x}}\nvolumes: {same: }"),
        ("b.yaml", "services: {db: {image: y}}\nvolumes: {same: }"),
    ]);
    assert_eq!(case.findings(), "ST347 2:12+2 `db` is defined by an included file, too");
    let case = Case::new(&[("compose.yaml", "include: [b.yaml]"), ("b.yaml", "include: [compose.yaml]")]);
    assert_eq!(case.findings(), "ST343 b.yaml:1:11+12 `compose.yaml` includes itself");
    let case = Case::new(&[("compose.yaml", "include: [nope.yaml]")]);
    assert!(case.findings().starts_with("ST310 1:11+9 `"), "{}", case.findings());
    let case = Case::new(&[("compose.yaml", "include: [b.yaml]"), ("b.yaml", "services: {a: {image: x, prots: []}}")]);
    assert_eq!(case.findings(), "ST302 b.yaml:1:26+5 a service has no key `prots` (did you mean `ports`?)");
}

#[test]
fn profiles_choose_services() {
    let text = "services: {a: {image: x}, b: {image: x, profiles: [dbg]}, c: {image: x, profiles: [dbg, test]}}";
    let names =
        |case: &Case| -> Vec<String> { case.load().project.services.into_iter().map(|service| service.name).collect() };
    assert_eq!(names(&Case::one(text)), ["a"]);
    assert_eq!(names(&Case::one(text).profiles(&["test"])), ["a", "c"]);
    assert_eq!(names(&Case::one(text).profiles(&["*"])), ["a", "b", "c"]);
    assert_eq!(names(&Case::one(text).env(&[("COMPOSE_PROFILES", "dbg, other")])), ["a", "b", "c"]);
    assert_eq!(names(&Case::one(text).env(&[("COMPOSE_PROFILES", "dbg")]).profiles(&["test"])), ["a", "c"]);
    assert_eq!(Case::one(text).load().project.inactive.len(), 2);
}

#[test]
fn files_are_found_as_docker_compose_finds_them() {
    let service = |image: &str| format!("services: {{a: {{image: {image}}}}}");
    let case = Case::new(&[
        ("docker-compose.yml", &service("old")),
        ("compose.yml", &service("new")),
        ("compose.override.yaml", "services: {a: {user: over}}"),
        ("prod.yaml", "services: {a: {user: prod}}"),
        ("sub/deep/x", ""),
    ]);
    assert_eq!(case.value("image"), "docker.io/library/new");
    assert_eq!(case.value("user"), "over");
    let mut case = case.env(&[("COMPOSE_FILE", "docker-compose.yml:prod.yaml")]);
    assert_eq!(case.value("image"), "docker.io/library/old");
    assert_eq!(case.value("user"), "prod");
    case.request.env.remove("COMPOSE_FILE");
    let top = case.path().to_path_buf();
    case.request.working_directory = top.join("sub/deep");
    assert_eq!(case.load().project.directory, top);

    let none = Case::new(&[]);
    assert_eq!(none.findings(), "no Compose file in $DIR or above it");
    assert_eq!(none.files(&["nope.yaml"]).findings(), "$DIR/nope.yaml does not exist");
}

#[test]
fn the_project_directory_moves_relative_paths() {
    let mut case = Case::new(&[("sub/compose.yaml", "services: {a: {image: x, build: ./app, volumes: [\"./d:/d\"]}}")])
        .files(&["sub/compose.yaml"]);
    assert_eq!(case.value("build"), json!({"context": "$DIR/sub/app"}));
    case.request.project_directory = Some(".".into());
    assert_eq!(case.value("build"), json!({"context": "$DIR/app"}));
}

#[test]
fn projects_have_names() {
    let name = |case: Case| case.load().project.name;
    let text = "name: \"n-${X:-1}\"\nservices: {a: {image: \"x:${COMPOSE_PROJECT_NAME}\"}}";
    assert_eq!(name(Case::one(text)), "n-1");
    assert_eq!(Case::one(text).value("image"), "docker.io/library/x:n-1");
    assert_eq!(name(Case::one(text).env(&[("COMPOSE_PROJECT_NAME", "env")])), "env");
    let mut case = Case::one(text).env(&[("COMPOSE_PROJECT_NAME", "env")]);
    case.request.name = Some("flag".into());
    assert_eq!(case.load().project.name, "flag");
    case.request.name = Some("No".into());
    assert!(case.findings().starts_with("`No` is not the name of a project"));
    let files: &[(&str, &str)] = &[("_My.App-1/compose.yaml", "services: {a: {image: x}}")];
    assert_eq!(name(Case::new(files).files(&["_My.App-1/compose.yaml"])), "myapp-1");
}
