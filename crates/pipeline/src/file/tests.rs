//! Mistakes and where they are shown; the table is the specification.

use super::*;

fn show(text: &str) -> String {
    let (_, diagnostics) = parse(text);
    diagnostics
        .iter()
        .map(|d| {
            let place = d.span.as_ref().map_or("-".to_owned(), |span| {
                let (line, column) = dockerfile::line_column(text, span.start);
                format!("{line}:{column}+{}", text[span.clone()].chars().count())
            });
            let label = d.label.as_deref().map(|label| format!(" ({label})")).unwrap_or_default();
            format!("{} {place} {}{label}", d.code, d.message)
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(show(text), expected, "\n{text}");
}

#[track_caller]
fn good(text: &str) -> PipelineFile {
    let (file, diagnostics) = parse(text);
    assert!(diagnostics.is_empty(), "{}", show(text));
    file
}

#[test]
fn mistakes_in_gates_are_shown_with_place_and_nearest_name() {
    let mut wrong = Vec::new();
    let mut gate = |text: &str, expected: &str| {
        let told = show(&format!("test: {{gates: {{a: {{run: x, {text}}}}}}}"));
        if told != expected {
            wrong.push(format!("{text}\n  told:     {told}\n  expected: {expected}"));
        }
    };
    gate("matrix: {}", "ST307 1:28+6 the matrix has no values");
    gate("matrix: {A: b}", "ST305 1:40+1 expected a list of values, found a text");
    gate("matrix: {A: []}", "ST306 1:37+1 `A` has no values");
    gate("matrix: {py-v: [1]}", "ST306 1:37+4 `py-v` cannot be the name of a variable (did you mean `PY_V`?)");
    gate("matrix: {A: [1], include: {A: 1}}", "ST305 1:54+6 expected a list of combinations, found a map");
    gate("matrix: {A: [{b: 1}]}", "ST305 1:41+6 expected a text, found a map");
    gate("mem_limit: lots", "ST306 1:39+4 `lots` is not an amount of memory (write it like `512m` or `2g`)");
    gate("mem_limit: 1m", "ST306 1:39+2 the memory limit is below 6m: no program starts with so little");
    gate("memory: 64m", "ST302 1:28+6 a gate has no key `memory` (did you mean `mem_limit`?)");
    gate("cpus: 0", "ST306 1:34+1 `0` is not a number of processors (write it like `0.5` or `2`)");
    gate("pids_limit: 0", "ST306 1:40+1 0 is not between 1 and 4194304");
    gate("retries: 11", "ST306 1:37+2 11 is not between 0 and 10");
    gate("tmpfs: tmp", "ST306 1:35+3 a tmpfs needs an absolute path other than the root");
    gate("tmpfs: /a/../b", "ST306 1:35+7 a tmpfs needs an absolute path other than the root");
    gate("tmpfs: '/tmp:exec'", "ST306 1:35+11 `exec` is no option of a tmpfs; there are `size=64m` and `mode=1777`");
    gate("ulimits: {nofiles: 1}", "ST306 1:38+7 there is no limit `nofiles` (did you mean `nofile`?)");
    gate("ulimits: {nofile: {soft: 2, hard: 1}}", "ST306 1:46+18 the soft limit is above the hard one");
    gate("ulimits: {nofile: {soft: 2}}", "ST307 1:46+9 a limit needs `hard`");
    gate(
        "network: hots",
        "ST306 1:37+4 `hots` is not a network; there are `default`, `none` and `host` (did you mean `host`?)",
    );
    gate("secrets: [{source: a, mode: 9}]", "ST306 1:56+1 `9` is no octal number");
    gate("secrets: [{target: a}]", "ST307 1:38+11 a use of a secret needs `source`");
    gate("secrets: [{source: a, target: ../b}]", "ST306 1:58+4 the target is a name, or an absolute path without `..`");
    gate("reports: {cobertura: a}", "ST302 1:38+9 `reports` has no key `cobertura` (did you mean `coverage`?)");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    check("secrets: {a: {}}", "ST307 1:11+1 secret `a` needs `environment`, `file` or `command`");
    check(
        "secrets: {a: {env: A}}",
        "ST307 1:11+1 secret `a` needs `environment`, `file` or `command`\nST302 1:15+3 a secret has no key `env` (did you mean `environment`?)",
    );
    check(
        "secrets: {a: {file: a, environment: A}}",
        "ST306 1:11+1 `environment`, `file` and `command` exclude each other",
    );
    check("secrets: {../a: {file: a}}", "ST306 1:11+4 a secret's name has letters, digits, `-`, `_` and `.`");
}

#[test]
fn mistakes_are_shown_with_place_and_nearest_name() {
    check("tset: {}\n", "ST302 1:1+4 the pipeline file has no key `tset` (did you mean `test`?)");
    check("test:\n  gtaes: {}\n", "ST302 2:3+5 `test` has no key `gtaes` (did you mean `gates`?)");
    check("health: {retries: 3}", "ST302 1:10+7 `health` has no key `retries` (did you mean `attempts`?)");
    check("zzzzzz: 1", "ST302 1:1+6 the pipeline file has no key `zzzzzz`");
    check("image: a\nbuild: .\nimage: b\n", "ST304 3:1+5 `image` is given twice (first given in line 1)");
    check("image: [a]\n", "ST305 1:8+3 expected a text, found a list");
    check("image: {a: b}\n", "ST305 1:8+6 expected a text, found a map");
    check(
        "test:\n  gates:\n    unit: {run: {a: b}}\n",
        "ST305 3:17+6 expected a command or a list of commands, found a map",
    );
    check("test: {gates: [a]}", "ST305 1:15+3 expected a map from names to gates, found a list");
    check("health: maybe", "ST305 1:9+5 expected `true` or `false`, found a text");
    check("health: {interval: 2}", "ST306 1:20+1 `2` has no unit (write `2s` for seconds)");
    check("health: {attempts: many}", "ST305 1:20+4 expected a whole number from 1 to 86400, found a text");
    check("health: {attempts: 0}", "ST306 1:20+1 0 is not between 1 and 86400");
    check("test: {gates: {build: x}}", "ST306 1:16+5 a gate may not be named `build`: that is a stage of every run");
    check("test: {gates: {a: {user: x}}}", "ST307 1:16+1 gate `a` needs `run`");
    check("test: {gates: {a: []}}", "ST307 1:19+2 a gate without commands checks nothing");
    check("bump: {a: {}}", "ST303 1:1+4 `bump` is not supported yet");
    check("test: {gates: {a: {run: x, when: {}}}}", "ST303 1:28+4 `when` is not supported yet");
    check(
        "publish: {when: {event: merge_request}}",
        "ST306 1:25+13 `merge_request` is not an event; there are `push`, `tag`, `pull_request` and `schedule` (did you mean `pull_request`?)",
    );
    check(
        "version: {git: decribe}",
        "ST306 1:16+7 `decribe` is not known; there are `describe` and `tag` (did you mean `describe`?)",
    );
    check("version: {git: tag, env: A}", "ST306 1:10+18 `version` takes one source only");
    check("test: {mounts: [a:b:c:d]}", "ST306 1:17+7 expected `path` or `path:target[:rw]`");
    check("test: {workdir: src}", "ST306 1:17+3 the working directory has to be absolute (did you mean `/src`?)");
    check("limits: {size: big}", "ST306 1:16+3 `big` is not a size (write it like `300MB`)");
    check(
        "build: {network: hsot}",
        "ST306 1:18+4 `hsot` is not a network; there are `default`, `none` and `host` (did you mean `host`?)",
    );
    check(
        "é: 1\ntset: 1",
        "ST302 1:1+1 the pipeline file has no key `é`\nST302 2:1+4 the pipeline file has no key `tset` (did you mean `test`?)",
    );
}

#[test]
fn broken_yaml_is_shown_with_place() {
    for (text, code) in [
        ("a: b: c\n", "ST300 1:"),
        ("test: {gates: [", "ST300 1:"),
        ("a: *nothing\n", "ST300 1:"),
        ("a: 1\n---\nb: 2\n", "ST300 2:1"),
        ("a: !secret x\n", "ST300 1:"),
        ("a:\n\tb: 1\n", "ST300 "),
        ("- a\n", "ST305 1:1"),
        ("just text", "ST305 1:1"),
    ] {
        assert!(show(text).starts_with(code), "{text:?}: {}", show(text));
    }
}

#[test]
fn hostile_files_are_bounded() {
    let mut laughs = String::from("x-a: &a [x,x,x,x,x,x,x,x,x,x]\n");
    for (name, former) in ["b", "c", "d", "e", "f", "g", "h"].iter().zip(["a", "b", "c", "d", "e", "f", "g"]) {
        let items = vec![format!("*{former}"); 10].join(",");
        laughs.push_str(&format!("x-{name}: &{name} [{items}]\n"));
    }
    assert!(show(&laughs).starts_with("ST301"), "{}", show(&laughs));
    let deep = format!("x-a: {}", "[".repeat(20_000));
    assert!(show(&deep).starts_with("ST30"), "{}", show(&deep));
    let deep = format!("x-a: {}{}", "[".repeat(100), "]".repeat(100));
    assert!(show(&deep).starts_with("ST301"), "{}", show(&deep));
    assert!(show(&"#".repeat(2 << 20)).starts_with("ST301"));
    let wide = format!("x-a: [{}]", "1,".repeat(30_000));
    assert!(show(&wide).starts_with("ST301"));
    check("x-a: &a [*a]\n", "ST300 1:10+2 the alias stands inside its own anchor, or names none");
}

#[test]
fn anchors_merge_keys_and_own_keys_work() {
    let file = good(
        "x-common: &common {user: app, timeout: 1m}\n\
         x-list: &cmds [black, isort]\n\
         test:\n  x-note: whatever\n  gates:\n    style: {<<: *common, run: *cmds, timeout: 2s}\n    \
         unit: {<<: [*common, {workdir: /a}], run: x}\n",
    );
    let test = file.test.unwrap_or_default();
    let (name, style) = &test.gates[0];
    assert_eq!(name.value, "style");
    assert_eq!(style.user.as_ref().map(|user| user.value.as_str()), Some("app"));
    assert_eq!(style.timeout, Some(Duration::from_secs(2)));
    assert_eq!(style.run.len(), 2);
    assert_eq!(test.gates[1].1.workdir.as_ref().map(|dir| dir.value.as_str()), Some("/a"));
}

#[test]
fn scalars_stay_what_was_written() {
    let file =
        good("publish: {tags: [1.10, 007, no, \"yes\", 2020-01-01]}\nbuild: {args: {A: 1e3, B: true, C: , D: \"\"}}\n");
    let tags: Vec<_> = file.publish.and_then(|publish| publish.tags).unwrap_or_default();
    let tags: Vec<_> = tags.iter().map(|tag| tag.tag.as_ref().expect("a template").value.as_str()).collect();
    assert_eq!(tags, ["1.10", "007", "no", "yes", "2020-01-01"]);
    let args = file.build.unwrap_or_default().args;
    let args: Vec<_> =
        args.iter().map(|(name, value)| (name.value.as_str(), value.as_ref().map(|v| v.value.as_str()))).collect();
    assert_eq!(args, [("A", Some("1e3")), ("B", Some("true")), ("C", None), ("D", Some(""))]);
}

#[test]
fn short_and_long_forms_mean_the_same() {
    let file = good(
        "build: ./app\nversion: \"1.2\"\ntest:\n  setup: apk add x\n  mounts: [a, \"b:/b:rw\", \"c:d\", \"${X:-e}:/f\", {source: g, target: /g}]\n  gates: {unit: pytest}\nhealth: false\npublish: {to: localhost:5000, when: {branch: main}, tags: latest}\n",
    );
    assert_eq!(file.build.and_then(|build| build.context).map(|context| context.value), Some("./app".into()));
    let test = file.test.unwrap_or_default();
    assert_eq!(test.setup.len(), 1);
    let mounts: Vec<_> = test
        .mounts
        .iter()
        .map(|mount| (mount.source.value.as_str(), mount.target.as_deref(), mount.readonly))
        .collect();
    assert_eq!(
        mounts,
        [
            ("a", None, true),
            ("b", Some("/b"), false),
            ("c", Some("d"), true),
            ("${X:-e}", Some("/f"), true),
            ("g", Some("/g"), true)
        ]
    );
    assert_eq!(test.gates[0].1.run[0].value, "pytest");
    assert!(file.health.is_some_and(|health| health.off));
    assert_eq!(file.publish.map(|publish| publish.when.len()), Some(1));
}

#[test]
fn an_empty_file_is_fine() {
    for text in ["", "# nothing\n", "---\n", "test:\n", "test: {gates: }\n"] {
        good(text);
    }
}
