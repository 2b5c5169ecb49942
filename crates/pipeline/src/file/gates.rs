//! The `test` section: setup, gates, their mounts and reports.

use std::sync::Arc;

use super::{
    At, Bounds, Gate, Mount, SetupStep, Test, Uses, bounds, matrix,
    read::{Fields, Keys, Reader, both, shorten},
    sections::{pairs, required_text, text},
    uses,
    yaml::{Kind, Node},
};
use crate::codes;

/// What all gates have in common, or one has by itself.
const SHARED: &[&str] = &[
    "workdir",
    "user",
    "environment",
    "entrypoint",
    "mounts",
    "timeout",
    "retries",
    "mem_limit",
    "cpus",
    "pids_limit",
    "shm_size",
    "tmpfs",
    "ulimits",
    "network",
    "secrets",
    "services",
    "links",
];
const SHARED_FOREIGN: &[(&str, &str)] = &[
    ("working_dir", "workdir"),
    ("env", "environment"),
    ("volumes", "mounts"),
    ("memory", "mem_limit"),
    ("pids", "pids_limit"),
    ("limits", "mem_limit"),
];

const OF_TEST: &[&str] = &["setup", "gates"];
const OF_TEST_FOREIGN: &[(&str, &str)] =
    &[("before_script", "setup"), ("steps", "gates"), ("jobs", "gates"), ("checks", "gates")];

pub(super) const TEST: Keys = Keys {
    what: "`test`",
    known: &both::<_, { SHARED.len() + OF_TEST.len() }>(SHARED, OF_TEST),
    later: &[],
    foreign: &both::<_, { SHARED_FOREIGN.len() + OF_TEST_FOREIGN.len() }>(SHARED_FOREIGN, OF_TEST_FOREIGN),
};

const OF_GATE: &[&str] = &["run", "reports", "needs", "allow_failure", "in", "matrix", "rerun"];
const OF_GATE_FOREIGN: &[(&str, &str)] = &[
    ("command", "run"),
    ("commands", "run"),
    ("script", "run"),
    ("depends_on", "needs"),
    ("artifacts", "reports"),
    ("continue-on-error", "allow_failure"),
    ("image", "in"),
    ("container", "in"),
    ("strategy", "matrix"),
    ("retry", "retries"),
    ("network_mode", "network"),
];

pub(super) const GATE: Keys = Keys {
    what: "a gate",
    known: &both::<_, { SHARED.len() + OF_GATE.len() }>(SHARED, OF_GATE),
    later: &["when"],
    foreign: &both::<_, { SHARED_FOREIGN.len() + OF_GATE_FOREIGN.len() }>(SHARED_FOREIGN, OF_GATE_FOREIGN),
};

pub(super) const SETUP: Keys = Keys {
    what: "a setup command",
    known: &["run", "user", "secrets"],
    later: &["workdir", "environment", "mounts"],
    foreign: &[("command", "run"), ("script", "run")],
};

pub(super) const MOUNT: Keys = Keys {
    what: "a mount",
    known: &["source", "target", "read_only"],
    later: &["type", "bind", "volume", "tmpfs"],
    foreign: &[("src", "source"), ("dst", "target"), ("destination", "target"), ("readonly", "read_only")],
};

pub(super) const REPORTS: Keys = Keys {
    what: "`reports`",
    known: &["junit", "sarif", "coverage"],
    later: &[],
    foreign: &[
        ("xunit", "junit"),
        ("cobertura", "coverage"),
        ("coverage_report", "coverage"),
        ("jacoco", "coverage"),
        ("lcov", "coverage"),
        ("codequality", "sarif"),
        ("sast", "sarif"),
    ],
};

/// Stages of a run that gates may not be named like.
const RESERVED_NAMES: &[&str] = &["build", "setup", "health", "publish", "publish-files", "tags"];
/// Gate names are file names, too.
const GATE_NAME_LENGTH_MAX: usize = 64;
/// Beyond this a run's view makes no sense any more.
const GATES_MAX: usize = 1_000;
/// What fails ten times fails.
const RETRIES_MAX: u64 = 10;
pub(super) fn test(reader: &mut Reader, node: &Node) -> Option<Test> {
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
        retries: retries(reader, &fields),
        bounds: bounds::bounds(reader, &fields),
        uses: uses::uses(reader, &fields),
    };
    Some(test)
}

fn retries(reader: &mut Reader, fields: &Fields<'_>) -> Option<u32> {
    let number = fields.get("retries").and_then(|node| reader.number(node, 0, RETRIES_MAX))?;
    u32::try_from(number).ok()
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

fn setup(reader: &mut Reader, node: &Node) -> Vec<SetupStep> {
    let items = match &node.kind {
        Kind::List(items) => items.clone(),
        _ => vec![Arc::new(node.clone())],
    };
    items
        .iter()
        .filter_map(|item| match item.kind {
            Kind::Map(_) => {
                let fields = reader.fields(item, &SETUP, "a command, or a map with `run`")?;
                let run = required_text(reader, &fields, "run", item, "a setup command")?;
                Some(SetupStep {
                    run,
                    user: text(reader, &fields, "user"),
                    secrets: fields.get("secrets").map(|node| bounds::secret_uses(reader, node)).unwrap_or_default(),
                })
            }
            _ => reader.text(item).map(|run| SetupStep { run, user: None, secrets: Vec::new() }),
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

fn gate(reader: &mut Reader, node: &Arc<Node>, name: &At<String>) -> Option<Gate> {
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
        image: None,
        matrix: None,
        retries: None,
        rerun: false,
        bounds: Bounds::default(),
        uses: Uses::default(),
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
        gate.image = text(reader, &fields, "in");
        gate.matrix = fields.entry("matrix").and_then(|(span, node)| matrix::matrix(reader, node, span));
        gate.retries = retries(reader, &fields);
        gate.rerun = fields.get("rerun").and_then(|node| reader.boolean(node)).unwrap_or(false);
        gate.bounds = bounds::bounds(reader, &fields);
        gate.uses = uses::uses(reader, &fields);
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
    let kinds: Vec<(String, Vec<At<String>>)> =
        REPORTS.known.iter().filter_map(|kind| Some(((*kind).to_owned(), reader.texts(fields.get(kind)?)))).collect();
    for pattern in kinds.iter().flat_map(|(_, patterns)| patterns) {
        let parts = pattern.value.split('/').collect::<Vec<_>>();
        if pattern.value.starts_with('/') || parts.contains(&"..") {
            let message = "reports are named relative to `$SEATRIAL_REPORTS`";
            reader.error(codes::LEAVES_REPOSITORY, message, &pattern.span);
        } else if globset::Glob::new(&pattern.value).is_err() {
            reader.error(codes::INVALID_VALUE, "the pattern is not a valid glob", &pattern.span);
        }
    }
    kinds
}
