//! The sections of the file, read from the tree. Each map has its [`Keys`] here, beside its reader.

use std::rc::Rc;

use super::{
    At, Build, Gate, Health, Keep, Limits, Mount, PipelineFile, Publish, SetupStep, Tag, Test, VersionRule, WhenRule,
    read::{Fields, Keys, Reader, shorten},
    yaml::{Kind, Node},
};
use crate::codes;

pub(super) const FILE: Keys = Keys {
    what: "the pipeline file",
    known: &["image", "build", "version", "test", "health", "publish", "keep", "limits"],
    later: &[
        "before",
        "services",
        "images",
        "include",
        "environments",
        "trust",
        "bump",
        "triggers",
        "volumes",
        "profiles",
        "develop",
        "secrets",
        "networks",
        "configs",
        "matrix",
        "in",
    ],
    foreign: &[
        ("tests", "test"),
        ("gates", "test"),
        ("steps", "test"),
        ("script", "test"),
        ("healthcheck", "health"),
        ("push", "publish"),
        ("deploy", "publish"),
        ("tags", "publish"),
        ("name", "image"),
    ],
};

pub(super) const BUILD: Keys = Keys {
    what: "`build`",
    known: &[
        "context",
        "dockerfile",
        "dockerfile_inline",
        "target",
        "args",
        "labels",
        "additional_contexts",
        "network",
        "platform",
        "extra_hosts",
        "no_cache",
        "pull",
    ],
    later: &[
        "platforms",
        "secrets",
        "ssh",
        "cache_from",
        "cache_to",
        "shm_size",
        "ulimits",
        "privileged",
        "entitlements",
        "isolation",
        "tags",
        "provenance",
        "sbom",
        "no_cache_filter",
    ],
    foreign: &[
        ("file", "dockerfile"),
        ("containerfile", "dockerfile"),
        ("build_args", "args"),
        ("build-args", "args"),
        ("build_contexts", "additional_contexts"),
        ("contexts", "additional_contexts"),
        ("path", "context"),
        ("add_hosts", "extra_hosts"),
        ("stage", "target"),
    ],
};

pub(super) const VERSION: Keys = Keys {
    what: "`version`",
    known: &["git", "env", "label", "arg", "file"],
    later: &["command", "prefix", "regex"],
    foreign: &[("tag", "git")],
};

pub(super) const TEST: Keys = Keys {
    what: "`test`",
    known: &["workdir", "user", "environment", "entrypoint", "mounts", "setup", "gates", "timeout"],
    later: &[
        "links",
        "services",
        "matrix",
        "in",
        "retries",
        "limits",
        "tmpfs",
        "secrets",
        "network",
        "mem_limit",
        "cpus",
    ],
    foreign: &[
        ("working_dir", "workdir"),
        ("env", "environment"),
        ("volumes", "mounts"),
        ("before_script", "setup"),
        ("steps", "gates"),
        ("jobs", "gates"),
        ("checks", "gates"),
    ],
};

pub(super) const GATE: Keys = Keys {
    what: "a gate",
    known: &[
        "run",
        "user",
        "workdir",
        "environment",
        "mounts",
        "entrypoint",
        "reports",
        "needs",
        "allow_failure",
        "timeout",
    ],
    later: &[
        "links",
        "services",
        "matrix",
        "in",
        "retries",
        "limits",
        "tmpfs",
        "secrets",
        "network",
        "mem_limit",
        "cpus",
        "when",
    ],
    foreign: &[
        ("command", "run"),
        ("commands", "run"),
        ("script", "run"),
        ("working_dir", "workdir"),
        ("env", "environment"),
        ("volumes", "mounts"),
        ("depends_on", "needs"),
        ("artifacts", "reports"),
        ("continue-on-error", "allow_failure"),
    ],
};

pub(super) const SETUP: Keys = Keys {
    what: "a setup command",
    known: &["run", "user"],
    later: &["workdir", "environment", "mounts"],
    foreign: &[("command", "run"), ("script", "run")],
};

pub(super) const MOUNT: Keys = Keys {
    what: "a mount",
    known: &["source", "target", "read_only"],
    later: &["type", "bind", "volume", "tmpfs"],
    foreign: &[("src", "source"), ("dst", "target"), ("destination", "target"), ("readonly", "read_only")],
};

pub(super) const REPORTS: Keys =
    Keys { what: "`reports`", known: &["junit"], later: &["sarif", "coverage"], foreign: &[("xunit", "junit")] };

pub(super) const HEALTH: Keys = Keys {
    what: "`health`",
    known: &["interval", "attempts", "timeout", "start_period", "command"],
    later: &["prove"],
    foreign: &[("retries", "attempts"), ("test", "command"), ("run", "command"), ("start-period", "start_period")],
};

pub(super) const PUBLISH: Keys = Keys {
    what: "`publish`",
    known: &["to", "when", "tags"],
    later: &["files", "git_tag", "sign", "annotations"],
    foreign: &[("registry", "to"), ("if", "when"), ("only", "when"), ("tag", "tags")],
};

pub(super) const TAG: Keys =
    Keys { what: "a tag", known: &["tag", "when"], later: &["move"], foreign: &[("name", "tag"), ("if", "when")] };

pub(super) const WHEN: Keys = Keys {
    what: "`when`",
    known: &["branch", "event", "tag", "path", "env"],
    later: &["status", "cron", "evaluate", "repo"],
    foreign: &[("ref", "branch"), ("paths", "path"), ("changes", "path"), ("environment", "env")],
};

pub(super) const KEEP: Keys = Keys { what: "`keep`", known: &["failed", "runs"], later: &["images"], foreign: &[] };

pub(super) const LIMITS: Keys =
    Keys { what: "`limits`", known: &["layers", "size"], later: &["above_base"], foreign: &[("bytes", "size")] };

/// Stages of a run that gates may not be named like.
const RESERVED_NAMES: &[&str] = &["build", "setup", "health", "publish", "tags"];
/// Gate names are file names, too.
const GATE_NAME_LENGTH_MAX: usize = 64;
/// Beyond this a run's view makes no sense any more.
const GATES_MAX: usize = 1_000;
/// More attempts than a day has seconds are a slip.
const ATTEMPTS_MAX: u64 = 86_400;

pub(super) fn pipeline_file(reader: &mut Reader, root: &Node) -> PipelineFile {
    let Some(fields) = reader.fields(root, &FILE, "a map with keys such as `image` and `test`") else {
        return PipelineFile::default();
    };
    PipelineFile {
        image: text(reader, &fields, "image"),
        build: fields.get("build").and_then(|node| build(reader, node)),
        version: fields.get("version").and_then(|node| version(reader, node)),
        test: fields.get("test").and_then(|node| test(reader, node)),
        health: fields.get("health").and_then(|node| health(reader, node)),
        publish: fields.get("publish").and_then(|node| publish(reader, node)),
        keep: fields.get("keep").and_then(|node| keep(reader, node)),
        limits: fields.get("limits").and_then(|node| limits(reader, node)),
    }
}

fn text(reader: &mut Reader, fields: &Fields<'_>, key: &str) -> Option<At<String>> {
    fields.get(key).and_then(|node| reader.text(node))
}

fn build(reader: &mut Reader, node: &Node) -> Option<Build> {
    if matches!(node.kind, Kind::Scalar { .. }) {
        return Some(Build { context: reader.text(node), ..Build::default() });
    }
    let fields = reader.fields(node, &BUILD, "a directory, or a map with keys such as `context`")?;
    let build = Build {
        context: text(reader, &fields, "context"),
        dockerfile: text(reader, &fields, "dockerfile"),
        dockerfile_inline: text(reader, &fields, "dockerfile_inline"),
        target: text(reader, &fields, "target"),
        args: pairs(reader, &fields, "args"),
        labels: pairs(reader, &fields, "labels"),
        additional_contexts: pairs(reader, &fields, "additional_contexts"),
        network: text(reader, &fields, "network"),
        platform: text(reader, &fields, "platform"),
        extra_hosts: fields.get("extra_hosts").map(|node| extra_hosts(reader, node)).unwrap_or_default(),
        no_cache: fields.get("no_cache").and_then(|node| reader.boolean(node)).unwrap_or(false),
        pull: fields.get("pull").and_then(|node| reader.boolean(node)).unwrap_or(false),
    };
    if let (Some(inline), Some(_)) = (&build.dockerfile_inline, &build.dockerfile) {
        reader.error(codes::INVALID_VALUE, "`dockerfile` and `dockerfile_inline` exclude each other", &inline.span);
    }
    if let Some(network) = &build.network
        && !matches!(network.value.as_str(), "default" | "none" | "host")
    {
        let near = dockerfile::nearest(&network.value, ["default", "none", "host"]).map(str::to_owned);
        let diagnostic = reader.error(
            codes::INVALID_VALUE,
            format!("`{}` is not a network; there are `default`, `none` and `host`", shorten(&network.value)),
            &network.span,
        );
        diagnostic.label = near.map(|near| format!("did you mean `{near}`?"));
    }
    Some(build)
}

/// Compose writes `name=address` and `name:address`, or a map.
fn extra_hosts(reader: &mut Reader, node: &Node) -> super::Pairs {
    let mut pairs = reader.pairs(node);
    for (name, address) in &mut pairs {
        if address.is_none()
            && let Some((host, ip)) = name.value.split_once(':')
        {
            *address = Some(At::new(ip.to_owned(), name.span.clone()));
            name.value = host.to_owned();
        }
        if address.is_none() {
            reader.error(codes::INVALID_VALUE, "expected `name=address`", &name.span);
        }
    }
    pairs
}

fn pairs(reader: &mut Reader, fields: &Fields<'_>, key: &str) -> super::Pairs {
    fields.get(key).map(|node| reader.pairs(node)).unwrap_or_default()
}

fn version(reader: &mut Reader, node: &Node) -> Option<VersionRule> {
    if matches!(node.kind, Kind::Scalar { .. }) {
        return reader.text(node).map(VersionRule::Literal);
    }
    let fields = reader.fields(node, &VERSION, "a text, or a map such as `{git: describe}`")?;
    let given: Vec<(&str, At<String>)> =
        VERSION.known.iter().filter_map(|key| Some((*key, text(reader, &fields, key)?))).collect();
    let [(key, value)] = given
        .try_into()
        .map_err(|given: Vec<_>| {
            if given.is_empty() {
                reader.error(
                    codes::MISSING_KEY,
                    "`version` needs one of `git`, `env`, `label`, `arg`, `file`",
                    &node.span,
                );
            } else {
                reader.error(codes::INVALID_VALUE, "`version` takes one source only", &node.span);
            }
        })
        .ok()?;
    Some(match key {
        "git" => match value.value.as_str() {
            "describe" => VersionRule::GitDescribe(value.span),
            "tag" => VersionRule::GitTag(value.span),
            other => {
                let near =
                    dockerfile::nearest(other, ["describe", "tag"]).map(|near| format!("did you mean `{near}`?"));
                let message = format!("`{}` is not known; there are `describe` and `tag`", shorten(other));
                reader.error(codes::INVALID_VALUE, message, &value.span).label = near;
                return None;
            }
        },
        "env" => VersionRule::Env(value),
        "label" => VersionRule::Label(value),
        "arg" => VersionRule::Arg(value),
        _ => VersionRule::File(value),
    })
}

fn test(reader: &mut Reader, node: &Node) -> Option<Test> {
    let fields = reader.fields(node, &TEST, "a map with keys such as `gates`")?;
    let test = Test {
        workdir: workdir(reader, &fields),
        user: text(reader, &fields, "user"),
        environment: pairs(reader, &fields, "environment"),
        entrypoint: fields.get("entrypoint").map(|node| entrypoint(reader, node)),
        mounts: fields.get("mounts").map(|node| mounts(reader, node)).unwrap_or_default(),
        setup: fields.get("setup").map(|node| setup(reader, node)).unwrap_or_default(),
        gates: fields.get("gates").map(|node| gates(reader, node)).unwrap_or_default(),
        timeout: fields.get("timeout").and_then(|node| reader.duration(node)),
    };
    Some(test)
}

fn workdir(reader: &mut Reader, fields: &Fields<'_>) -> Option<At<String>> {
    let workdir = text(reader, fields, "workdir")?;
    if !workdir.value.starts_with(['/', '$']) {
        reader.error(codes::INVALID_VALUE, "the working directory has to be absolute", &workdir.span).label =
            Some(format!("did you mean `/{}`?", shorten(&workdir.value)));
    }
    Some(workdir)
}

/// A text is split at blanks, as Compose does for simple cases; quotes need the list form.
fn entrypoint(reader: &mut Reader, node: &Node) -> Vec<At<String>> {
    if matches!(node.kind, Kind::List(_)) {
        return reader.texts(node);
    }
    let Some(text) = reader.text(node) else { return Vec::new() };
    if text.value.contains(['"', '\'', '\\']) {
        reader.error(codes::INVALID_VALUE, "an entrypoint with quotes has to be a list", &text.span);
    }
    text.value.split_whitespace().map(|word| At::new(word.to_owned(), text.span.clone())).collect()
}

fn mounts(reader: &mut Reader, node: &Node) -> Vec<Mount> {
    let items = match &node.kind {
        Kind::List(items) => items.as_slice(),
        Kind::Scalar { .. } => return mount_text(reader, node).into_iter().collect(),
        _ => {
            reader.error(codes::WRONG_TYPE, format!("expected a list of paths, found {}", node.describe()), &node.span);
            return Vec::new();
        }
    };
    items
        .iter()
        .filter_map(|item| match item.kind {
            Kind::Map(_) => {
                let fields = reader.fields(item, &MOUNT, "a path, or a map with `source` and `target`")?;
                let source = required_text(reader, &fields, "source", item, "a mount")?;
                let readonly = fields.get("read_only").and_then(|node| reader.boolean(node)).unwrap_or(true);
                Some(Mount { source, target: text(reader, &fields, "target").map(|target| target.value), readonly })
            }
            _ => mount_text(reader, item),
        })
        .collect()
}

fn mount_text(reader: &mut Reader, node: &Node) -> Option<Mount> {
    let At { value, span } = reader.text(node)?;
    let mut parts = split_mount(&value).into_iter();
    let source = parts.next().unwrap_or_default();
    let (target, mode) = match (parts.next(), parts.next(), parts.next()) {
        (Some("rw" | "ro"), None, None) => (None, value.rsplit(':').next()),
        (target, mode, None) => (target, mode),
        _ => {
            reader.error(codes::INVALID_VALUE, "expected `path` or `path:target[:rw]`", &span);
            return None;
        }
    };
    let readonly = match mode {
        None | Some("ro") => true,
        Some("rw") => false,
        Some(other) => {
            let message = format!("`{}` is not a mode; there are `ro` and `rw`", shorten(other));
            reader.error(codes::INVALID_VALUE, message, &span);
            return None;
        }
    };
    if source.is_empty() || target == Some("") {
        reader.error(codes::INVALID_VALUE, "the path is empty", &span);
        return None;
    }
    Some(Mount { source: At::new(source.to_owned(), span), target: target.map(str::to_owned), readonly })
}

/// Splits at `:` outside of `${…}`.
fn split_mount(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (at, c) in text.char_indices() {
        match c {
            '{' if text[..at].ends_with('$') => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn required_text(reader: &mut Reader, fields: &Fields<'_>, key: &str, node: &Node, what: &str) -> Option<At<String>> {
    match fields.get(key) {
        Some(node) => reader.text(node),
        None => {
            reader.error(codes::MISSING_KEY, format!("{what} needs `{key}`"), &node.span);
            None
        }
    }
}

fn setup(reader: &mut Reader, node: &Node) -> Vec<SetupStep> {
    let items = match &node.kind {
        Kind::List(items) => items.clone(),
        _ => vec![Rc::new(node.clone())],
    };
    items
        .iter()
        .filter_map(|item| match item.kind {
            Kind::Map(_) => {
                let fields = reader.fields(item, &SETUP, "a command, or a map with `run`")?;
                let run = required_text(reader, &fields, "run", item, "a setup command")?;
                Some(SetupStep { run, user: text(reader, &fields, "user") })
            }
            _ => reader.text(item).map(|run| SetupStep { run, user: None }),
        })
        .collect()
}

fn gates(reader: &mut Reader, node: &Node) -> Vec<(At<String>, Gate)> {
    let entries = reader.entries(node, "a map from names to gates");
    if entries.len() > GATES_MAX {
        reader.error(codes::TOO_LARGE, format!("more than {GATES_MAX} gates"), &node.span);
        return Vec::new();
    }
    entries
        .into_iter()
        .filter_map(|(name, node)| {
            check_gate_name(reader, &name);
            Some((name.clone(), gate(reader, node, &name)?))
        })
        .collect()
}

fn check_gate_name(reader: &mut Reader, name: &At<String>) {
    let text = name.value.as_str();
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if RESERVED_NAMES.contains(&text) {
        let message = format!("a gate may not be named `{text}`: that is a stage of every run");
        reader.error(codes::INVALID_VALUE, message, &name.span);
    } else if text.is_empty() || !text.chars().all(legal) || text.starts_with(['.', '-']) {
        let message = "a gate's name has letters, digits, `-`, `_` and `.`, and begins with a letter or digit";
        reader.error(codes::INVALID_VALUE, message, &name.span);
    } else if text.len() > GATE_NAME_LENGTH_MAX {
        let message = format!("a gate's name has {GATE_NAME_LENGTH_MAX} characters at most");
        reader.error(codes::INVALID_VALUE, message, &name.span);
    }
}

fn gate(reader: &mut Reader, node: &Rc<Node>, name: &At<String>) -> Option<Gate> {
    let mut gate = Gate {
        span: name.span.clone(),
        run: Vec::new(),
        user: None,
        workdir: None,
        environment: Vec::new(),
        mounts: Vec::new(),
        entrypoint: None,
        reports: Vec::new(),
        needs: Vec::new(),
        allow_failure: false,
        timeout: None,
    };
    if !matches!(node.kind, Kind::Map(_)) {
        gate.run = commands(reader, node);
    } else {
        let fields = reader.fields(node, &GATE, "a command, a list of commands, or a map with `run`")?;
        gate.run = fields.get("run").map(|node| commands(reader, node)).unwrap_or_default();
        gate.user = text(reader, &fields, "user");
        gate.workdir = workdir(reader, &fields);
        gate.environment = pairs(reader, &fields, "environment");
        gate.mounts = fields.get("mounts").map(|node| mounts(reader, node)).unwrap_or_default();
        gate.entrypoint = fields.get("entrypoint").map(|node| entrypoint(reader, node));
        gate.reports = fields.get("reports").map(|node| reports(reader, node)).unwrap_or_default();
        gate.needs = fields.get("needs").map(|node| reader.texts(node)).unwrap_or_default();
        gate.allow_failure = fields.get("allow_failure").and_then(|node| reader.boolean(node)).unwrap_or(false);
        gate.timeout = fields.get("timeout").and_then(|node| reader.duration(node));
        if fields.get("run").is_none() && gate.entrypoint.is_none() {
            reader.error(codes::MISSING_KEY, format!("gate `{}` needs `run`", shorten(&name.value)), &name.span);
        }
    }
    Some(gate)
}

fn commands(reader: &mut Reader, node: &Node) -> Vec<At<String>> {
    let commands = match node.kind {
        Kind::Scalar { .. } | Kind::List(_) => reader.texts(node),
        _ => {
            let message = format!("expected a command or a list of commands, found {}", node.describe());
            reader.error(codes::WRONG_TYPE, message, &node.span);
            return Vec::new();
        }
    };
    if commands.is_empty() && matches!(&node.kind, Kind::List(items) if items.is_empty()) {
        reader.error(codes::MISSING_KEY, "a gate without commands checks nothing", &node.span);
    }
    for command in &commands {
        if command.value.trim().is_empty() {
            reader.error(codes::INVALID_VALUE, "the command is empty", &command.span);
        }
    }
    commands
}

fn reports(reader: &mut Reader, node: &Node) -> Vec<(String, Vec<At<String>>)> {
    let Some(fields) = reader.fields(node, &REPORTS, "a map such as `{junit: unit.xml}`") else { return Vec::new() };
    let Some(junit) = fields.get("junit") else { return Vec::new() };
    let patterns = reader.texts(junit);
    for pattern in &patterns {
        let parts = pattern.value.split('/').collect::<Vec<_>>();
        if pattern.value.starts_with('/') || parts.contains(&"..") {
            let message = "reports are named relative to `$SEATRIAL_REPORTS`";
            reader.error(codes::LEAVES_REPOSITORY, message, &pattern.span);
        } else if globset::Glob::new(&pattern.value).is_err() {
            reader.error(codes::INVALID_VALUE, "the pattern is not a valid glob", &pattern.span);
        }
    }
    vec![("junit".into(), patterns)]
}

fn health(reader: &mut Reader, node: &Node) -> Option<Health> {
    if matches!(node.kind, Kind::Scalar { .. }) {
        let on = reader.boolean(node)?;
        return Some(Health { span: node.span.clone(), off: !on, ..Health::default() });
    }
    let fields = reader.fields(node, &HEALTH, "a map with keys such as `attempts`, or `false`")?;
    let health = Health {
        span: node.span.clone(),
        off: false,
        interval: fields.get("interval").and_then(|node| reader.duration(node)),
        attempts: fields
            .get("attempts")
            .and_then(|node| reader.number(node, 1, ATTEMPTS_MAX))
            .and_then(|number| u32::try_from(number).ok()),
        timeout: fields.get("timeout").and_then(|node| reader.duration(node)),
        start_period: fields.get("start_period").and_then(|node| reader.duration(node)),
        command: fields.get("command").and_then(|node| health_command(reader, node)),
    };
    Some(health)
}

/// As Compose reads `healthcheck.test`, except that a list may also be the bare arguments.
fn health_command(reader: &mut Reader, node: &Node) -> Option<At<Vec<String>>> {
    let mut words: Vec<String> = reader.texts(node).into_iter().map(|text| text.value).collect();
    if matches!(node.kind, Kind::Scalar { .. }) {
        words.insert(0, "CMD-SHELL".into());
    } else if !matches!(words.first().map(String::as_str), Some("CMD" | "CMD-SHELL")) {
        words.insert(0, "CMD".into());
    }
    if words.len() < 2 {
        reader.error(codes::INVALID_VALUE, "the command is empty", &node.span);
        return None;
    }
    Some(At::new(words, node.span.clone()))
}

fn publish(reader: &mut Reader, node: &Node) -> Option<Publish> {
    let fields = reader.fields(node, &PUBLISH, "a map with keys such as `tags`")?;
    let publish = Publish {
        to: fields.get("to").map(|node| reader.texts(node)).unwrap_or_default(),
        when: fields.get("when").map(|node| when(reader, node)).unwrap_or_default(),
        tags: fields.get("tags").map(|node| tags(reader, node)),
    };
    Some(publish)
}

fn tags(reader: &mut Reader, node: &Node) -> Vec<Tag> {
    let items = match &node.kind {
        Kind::List(items) => items.clone(),
        _ => vec![Rc::new(node.clone())],
    };
    items
        .iter()
        .filter_map(|item| match item.kind {
            Kind::Map(_) => {
                let fields = reader.fields(item, &TAG, "a tag, or a map with `tag` and `when`")?;
                let tag = required_text(reader, &fields, "tag", item, "this entry")?;
                Some(Tag { tag, when: fields.get("when").map(|node| when(reader, node)).unwrap_or_default() })
            }
            _ => reader.text(item).map(|tag| Tag { tag, when: Vec::new() }),
        })
        .collect()
}

fn when(reader: &mut Reader, node: &Node) -> Vec<WhenRule> {
    let items = match &node.kind {
        Kind::List(items) => items.clone(),
        _ => vec![Rc::new(node.clone())],
    };
    items.iter().filter_map(|item| when_rule(reader, item)).collect()
}

fn when_rule(reader: &mut Reader, node: &Node) -> Option<WhenRule> {
    let fields = reader.fields(node, &WHEN, "a map such as `{branch: main}`")?;
    let patterns = |reader: &mut Reader, key: &str| fields.get(key).map(|node| reader.texts(node)).unwrap_or_default();
    let rule = WhenRule {
        branch: patterns(reader, "branch"),
        event: patterns(reader, "event"),
        tag: patterns(reader, "tag"),
        path: patterns(reader, "path"),
        env: fields.get("env").map(|node| env_patterns(reader, node)).unwrap_or_default(),
    };
    for event in &rule.event {
        const EVENTS: [&str; 3] = ["push", "tag", "pull_request"];
        if !EVENTS.contains(&event.value.as_str()) {
            let near = match event.value.as_str() {
                "pr" | "merge_request" | "merge_request_event" => Some("pull_request"),
                other => dockerfile::nearest(other, EVENTS),
            };
            let label = near.map(|near| format!("did you mean `{near}`?"));
            let message =
                format!("`{}` is not an event; there are `push`, `tag` and `pull_request`", shorten(&event.value));
            reader.error(codes::INVALID_VALUE, message, &event.span).label = label;
        }
    }
    for pattern in rule.branch.iter().chain(&rule.tag).chain(&rule.path) {
        if !pattern.value.contains('$') && globset::Glob::new(&pattern.value).is_err() {
            reader.error(codes::INVALID_VALUE, "the pattern is not a valid glob", &pattern.span);
        }
    }
    if rule.branch.is_empty()
        && rule.event.is_empty()
        && rule.tag.is_empty()
        && rule.path.is_empty()
        && rule.env.is_empty()
    {
        reader.error(codes::MISSING_KEY, "the condition is empty", &node.span);
    }
    Some(rule)
}

/// A name alone is a condition, too: `env: RELEASE`.
fn env_patterns(reader: &mut Reader, node: &Node) -> super::Pairs {
    match node.kind {
        Kind::Scalar { .. } => {
            let list = Node::list_of(node);
            reader.pairs(&list)
        }
        _ => reader.pairs(node),
    }
}

fn keep(reader: &mut Reader, node: &Node) -> Option<Keep> {
    let fields = reader.fields(node, &KEEP, "a map with keys such as `runs`")?;
    Some(Keep {
        failed: fields.get("failed").and_then(|node| reader.duration(node)),
        runs: fields.get("runs").and_then(|node| reader.number(node, 1, 1_000_000)),
    })
}

fn limits(reader: &mut Reader, node: &Node) -> Option<Limits> {
    let fields = reader.fields(node, &LIMITS, "a map with keys such as `layers`")?;
    Some(Limits {
        layers: fields.get("layers").and_then(|node| reader.number(node, 1, 500)),
        size: fields.get("size").and_then(|node| reader.size(node)),
    })
}
