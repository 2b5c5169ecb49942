//! The sections of the file, read from the tree. Each map has its [`Keys`] here, beside its reader.

use std::sync::Arc;

use super::{
    At, Build, Health, Keep, Limits, PipelineFile, Publish, Section, WhenRule, before, bounds,
    environments::environments,
    files, gates, images,
    read::{Fields, Keys, Reader, shorten},
    sign, tags, trust, uses,
    version::version,
    yaml::{Kind, Node},
};
use crate::codes;

pub(super) const FILE: Keys = Keys {
    what: "the pipeline file",
    known: &[
        "image",
        "images",
        "before",
        "build",
        "version",
        "test",
        "health",
        "publish",
        "secrets",
        "keep",
        "limits",
        "include",
        "services",
        "networks",
        "volumes",
        "configs",
        "environments",
        "trust",
    ],
    later: &["bump", "triggers", "profiles", "develop"],
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
        "secrets",
        "no_cache",
        "pull",
        "oci_labels",
    ],
    later: &[
        "platforms",
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

pub(super) const HEALTH: Keys = Keys {
    what: "`health`",
    known: &[
        "interval",
        "attempts",
        "timeout",
        "start_period",
        "command",
        "prove",
        "stop_grace_period",
        "environment",
        "services",
        "links",
    ],
    later: &[],
    foreign: &[
        ("retries", "attempts"),
        ("test", "command"),
        ("run", "command"),
        ("start-period", "start_period"),
        ("env", "environment"),
    ],
};

pub(super) const PUBLISH: Keys = Keys {
    what: "`publish`",
    known: &["to", "when", "tags", "flavor", "git_tag", "sign", "files"],
    later: &["annotations"],
    foreign: &[("registry", "to"), ("if", "when"), ("only", "when"), ("tag", "tags")],
};

pub(super) const WHEN: Keys = Keys {
    what: "`when`",
    known: &["branch", "event", "tag", "path", "env"],
    later: &["status", "cron", "evaluate", "repo"],
    foreign: &[("ref", "branch"), ("paths", "path"), ("changes", "path"), ("environment", "env")],
};

pub(super) const KEEP: Keys = Keys { what: "`keep`", known: &["failed", "runs"], later: &["images"], foreign: &[] };

pub(super) const LIMITS: Keys =
    Keys { what: "`limits`", known: &["layers", "size", "above_base"], later: &[], foreign: &[("bytes", "size")] };

/// More attempts than a day has seconds are a slip.
const ATTEMPTS_MAX: u64 = 86_400;

pub(super) fn pipeline_file(reader: &mut Reader, root: &Node) -> PipelineFile {
    let Some(fields) = reader.fields(root, &FILE, "a map with keys such as `image` and `test`") else {
        return PipelineFile::default();
    };
    PipelineFile {
        image: text(reader, &fields, "image"),
        images: fields.get("images").map(|node| images::images(reader, node)).unwrap_or_default(),
        before: fields.get("before").map(|node| before::before(reader, node)).unwrap_or_default(),
        build: fields.get("build").and_then(|node| build(reader, node)),
        version: fields.get("version").and_then(|node| version(reader, node)),
        test: fields.get("test").and_then(|node| gates::test(reader, node)),
        health: fields.get("health").and_then(|node| health(reader, node)),
        publish: fields.get("publish").and_then(|node| publish(reader, node)),
        trust: fields.get("trust").map(|node| trust::trust(reader, node)).unwrap_or_default(),
        secrets: fields.get("secrets").map(|node| bounds::secret_sources(reader, node)).unwrap_or_default(),
        keep: fields.get("keep").and_then(|node| keep(reader, node)),
        limits: fields.get("limits").and_then(|node| limits(reader, node)),
        include: section(&fields, "include"),
        services: section(&fields, "services"),
        networks: section(&fields, "networks"),
        volumes: section(&fields, "volumes"),
        configs: section(&fields, "configs"),
        secret_section: section(&fields, "secrets"),
        environments: fields.get("environments").map(|node| environments(reader, node)).unwrap_or_default(),
    }
}

pub(super) fn text(reader: &mut Reader, fields: &Fields<'_>, key: &str) -> Option<At<String>> {
    fields.get(key).and_then(|node| reader.text(node))
}

/// A section that is read once there is a plan.
fn section(fields: &Fields<'_>, key: &str) -> Option<Section> {
    let (span, value) = fields.entry(key)?;
    Some(Section { key: key.to_owned(), key_span: span.clone(), value: Arc::clone(value) })
}

pub(super) fn build(reader: &mut Reader, node: &Node) -> Option<Build> {
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
        network: bounds::network(reader, &fields),
        platform: text(reader, &fields, "platform"),
        extra_hosts: fields.get("extra_hosts").map(|node| extra_hosts(reader, node)).unwrap_or_default(),
        secrets: fields.get("secrets").map(|node| bounds::secret_uses(reader, node)).unwrap_or_default(),
        no_cache: fields.get("no_cache").and_then(|node| reader.boolean(node)).unwrap_or(false),
        pull: fields.get("pull").and_then(|node| reader.boolean(node)).unwrap_or(false),
        oci_labels: fields.get("oci_labels").and_then(|node| reader.boolean(node)).unwrap_or(false),
    };
    if let (Some(inline), Some(_)) = (&build.dockerfile_inline, &build.dockerfile) {
        reader.error(codes::INVALID_VALUE, "`dockerfile` and `dockerfile_inline` exclude each other", &inline.span);
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

pub(super) fn pairs(reader: &mut Reader, fields: &Fields<'_>, key: &str) -> super::Pairs {
    fields.get(key).map(|node| reader.pairs(node)).unwrap_or_default()
}

pub(super) fn required_text(
    reader: &mut Reader,
    fields: &Fields<'_>,
    key: &str,
    node: &Node,
    what: &str,
) -> Option<At<String>> {
    match fields.get(key) {
        Some(node) => reader.text(node),
        None => {
            reader.error(codes::MISSING_KEY, format!("{what} needs `{key}`"), &node.span);
            None
        }
    }
}

pub(super) fn health(reader: &mut Reader, node: &Node) -> Option<Health> {
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
        prove: fields.get("prove").and_then(|node| reader.boolean(node)).unwrap_or(false),
        stop_grace_period: fields.get("stop_grace_period").and_then(|node| reader.duration(node)),
        environment: pairs(reader, &fields, "environment"),
        uses: uses::uses(reader, &fields),
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

pub(super) fn publish(reader: &mut Reader, node: &Node) -> Option<Publish> {
    if matches!(node.kind, Kind::Scalar { .. }) {
        let on = reader.boolean(node)?;
        return Some(Publish { off: !on, ..Publish::default() });
    }
    let fields = reader.fields(node, &PUBLISH, "a map with keys such as `tags`, or `false`")?;
    let publish = Publish {
        off: false,
        to: fields.get("to").map(|node| reader.texts(node)).unwrap_or_default(),
        when: fields.get("when").map(|node| when(reader, node)).unwrap_or_default(),
        tags: fields.get("tags").map(|node| tags::tags(reader, node)),
        flavor: fields.get("flavor").map(|node| tags::flavor(reader, node)),
        git_tag: text(reader, &fields, "git_tag"),
        sign: fields.get("sign").and_then(|node| sign::sign(reader, node)),
        files: fields.get("files").map(|node| files::files(reader, node)).unwrap_or_default(),
    };
    Some(publish)
}

pub(super) fn when(reader: &mut Reader, node: &Node) -> Vec<WhenRule> {
    let items = match &node.kind {
        Kind::List(items) => items.clone(),
        _ => vec![Arc::new(node.clone())],
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
        const EVENTS: [&str; 4] = ["push", "tag", "pull_request", "schedule"];
        if !EVENTS.contains(&event.value.as_str()) {
            let near = match event.value.as_str() {
                "pr" | "merge_request" | "merge_request_event" => Some("pull_request"),
                "cron" | "nightly" => Some("schedule"),
                other => dockerfile::nearest(other, EVENTS),
            };
            let label = near.map(|near| format!("did you mean `{near}`?"));
            let message = format!(
                "`{}` is not an event; there are `push`, `tag`, `pull_request` and `schedule`",
                shorten(&event.value)
            );
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

pub(super) fn limits(reader: &mut Reader, node: &Node) -> Option<Limits> {
    let fields = reader.fields(node, &LIMITS, "a map with keys such as `layers`")?;
    Some(Limits {
        layers: fields.get("layers").and_then(|node| reader.number(node, 1, 500)),
        size: fields.get("size").and_then(|node| reader.size(node)),
        above_base: fields.get("above_base").and_then(|node| reader.size(node)),
    })
}
