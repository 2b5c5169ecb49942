//! A service.

use std::{collections::BTreeMap, sync::Arc};

use dockerfile::Diagnostic;

use crate::{
    At, Condition, Dependency, Evidence, NetworkMode, Service, Snapshot, codes,
    dotenv::{self, Format},
    files,
    parse::{
        Cx,
        build::{self, build},
        health,
        mounts::{self, Mounts},
        networks, ports, process, resources, watch,
    },
    read::{Fields, Keys, both, shorten},
    yaml::{Kind, Node},
};

pub(crate) const SERVICE: Keys = Keys {
    what: "a service",
    known: &[
        "annotations",
        "attach",
        "build",
        "cap_add",
        "cap_drop",
        "command",
        "configs",
        "container_name",
        "cpus",
        "depends_on",
        "deploy",
        "develop",
        "devices",
        "dns",
        "dns_opt",
        "dns_search",
        "domainname",
        "entrypoint",
        "env_file",
        "environment",
        "expose",
        "extends",
        "extra_hosts",
        "group_add",
        "healthcheck",
        "hostname",
        "image",
        "init",
        "label_file",
        "labels",
        "links",
        "logging",
        "mem_limit",
        "network_mode",
        "networks",
        "pids_limit",
        "platform",
        "ports",
        "pre_start",
        "privileged",
        "profiles",
        "pull_policy",
        "read_only",
        "restart",
        "scale",
        "secrets",
        "security_opt",
        "shm_size",
        "stdin_open",
        "stop_grace_period",
        "stop_signal",
        "sysctls",
        "tmpfs",
        "tty",
        "ulimits",
        "user",
        "volumes",
        "volumes_from",
        "working_dir",
    ],
    later: &[
        "blkio_config",
        "cgroup",
        "cgroup_parent",
        "cpu_count",
        "cpu_percent",
        "cpu_period",
        "cpu_quota",
        "cpu_rt_period",
        "cpu_rt_runtime",
        "cpu_shares",
        "cpuset",
        "credential_spec",
        "device_cgroup_rules",
        "external_links",
        "gpus",
        "ipc",
        "isolation",
        "mac_address",
        "mem_reservation",
        "mem_swappiness",
        "memswap_limit",
        "models",
        "oom_kill_disable",
        "oom_score_adj",
        "pid",
        "post_start",
        "pre_stop",
        "pull_refresh_after",
        "runtime",
        "storage_opt",
        "use_api_socket",
        "userns_mode",
        "uts",
    ],
    foreign: FOREIGN,
};

/// Keys whose values are read and checked, and that nothing acts on yet.
const WITHOUT_EFFECT: &[&str] =
    &["dns", "dns_opt", "dns_search", "domainname", "group_add", "logging", "stdin_open", "tty"];

/// As [`SERVICE`], with the keys of the pipeline file.
pub(crate) const OWN_SERVICE: Keys = Keys { known: OWN_KNOWN, ..SERVICE };

/// Seatrial's own keys.
pub(crate) const OWN: &[&str] = &["from", "ready", "seed", "snapshot", "verify"];

const OWN_KNOWN: &[&str] = &both::<_, { SERVICE.known.len() + OWN.len() }>(OWN, SERVICE.known);

const FOREIGN: &[(&str, &str)] = &[
    ("cmd", "command"),
    ("args", "command"),
    ("run", "command"),
    ("env", "environment"),
    ("workdir", "working_dir"),
    ("memory", "mem_limit"),
    ("mounts", "volumes"),
    ("health", "healthcheck"),
    ("needs", "depends_on"),
    ("replicas", "scale"),
    ("hosts", "extra_hosts"),
    ("stop_timeout", "stop_grace_period"),
];

pub(crate) const DEPENDENCY: Keys = Keys {
    what: "a dependency",
    known: &["condition", "required", "restart"],
    later: &[],
    foreign: &[("optional", "required")],
};
pub(crate) const ENV_FILE: Keys = Keys {
    what: "an entry of `env_file`",
    known: &["path", "required", "format"],
    later: &[],
    foreign: &[("file", "path")],
};

/// A service with what other services are asked about once all are read.
pub(crate) struct Draft {
    pub(crate) service: Service,
    pub(crate) name: At<String>,
    /// Places of names that have to be defined at the top level.
    pub(crate) networks: Vec<At<String>>,
    pub(crate) volumes_from: Vec<At<String>>,
    /// The place of the whole service's value.
    pub(crate) node: Arc<Node>,
}

pub(crate) fn service(cx: &mut Cx<'_>, name: &At<String>, node: &Arc<Node>) -> Option<Draft> {
    super::top::check_name(cx, name);
    if let Some(provider) = node.get("provider") {
        let message = "services of a `provider` are made by other programs, which Seatrial does not start";
        cx.error(codes::NOT_YET, message, &provider.span);
        return None;
    }
    let keys = if cx.own_keys { &OWN_SERVICE } else { &SERVICE };
    let fields = cx.fields(node, keys, "a map with keys such as `image`")?;
    let f = &fields;
    for key in WITHOUT_EFFECT {
        if let Some((span, _)) = f.entry(key).filter(|(_, node)| node.scalar() != Some("false")) {
            cx.reader.no_effect(key, keys.what, span);
        }
    }
    let mut all = Mounts::default();
    if let Some(node) = f.get("volumes") {
        mounts::volumes(cx, node, &mut all);
    }
    mounts::tmpfs(cx, f, &mut all);
    let resources = resources::resources(cx, f);
    let attachments = f.get("networks").map(|node| networks::attachments(cx, node)).unwrap_or_default();
    let links = networks::links(cx, f);
    let network_mode = f.get("network_mode").and_then(|node| networks::network_mode(cx, node));
    let volumes_from = cx.texts_of(f, "volumes_from");
    let mut depends_on = f.get("depends_on").map(|node| dependencies(cx, node)).unwrap_or_default();
    let mut implied: Vec<At<String>> =
        links.iter().map(|link| At::new(link.value.service.clone(), link.span.clone())).collect();
    implied.extend(
        volumes_from
            .iter()
            .filter(|from| !from.value.starts_with("container:"))
            .map(|from| At::new(from.value.split(':').next().unwrap_or_default().to_owned(), from.span.clone())),
    );
    if let (Some(NetworkMode::Service(other)), Some(node)) = (&network_mode, f.get("network_mode")) {
        implied.push(At::new(other.clone(), node.span.clone()));
    }
    for other in implied {
        if !depends_on.iter().any(|own| own.service == other.value) {
            depends_on.push(Dependency {
                place: cx.place(&other.span),
                service: other.value,
                condition: Condition::ServiceStarted,
                required: true,
                restart: false,
            });
        }
    }
    let service = Service {
        name: name.value.clone(),
        place: cx.place(&name.span),
        image: f.get("image").filter(|node| node.scalar() != Some("")).and_then(|node| cx.reference(node)),
        from: cx.name_of(f, "from").filter(|_| cx.own_keys),
        build: f.get("build").and_then(|node| build(cx, node)),
        pull_policy: process::pull_policy(cx, f),
        platform: cx.texts_of(f, "platform").first().and_then(|text| build::platform(cx, text)),
        verify: evidence(cx, f),
        command: f.get("command").and_then(|node| cx.command(node)),
        entrypoint: f.get("entrypoint").and_then(|node| cx.command(node)),
        environment: environment(cx, f),
        user: cx.name_of(f, "user"),
        groups: cx.values_of(f, "group_add"),
        working_dir: cx.name_of(f, "working_dir"),
        init: f.get("init").and_then(|node| cx.flag(node)),
        tty: cx.flag_of(f, "tty"),
        stdin_open: cx.flag_of(f, "stdin_open"),
        stop_signal: f.get("stop_signal").and_then(|node| process::stop_signal(cx, node)),
        stop_grace_period: cx.duration_of(f, "stop_grace_period"),
        restart: resources.restart,
        pre_start: cx.items_of(f, "pre_start", "a list of steps").iter().filter_map(|n| process::hook(cx, n)).collect(),
        mounts: all.mounts,
        tmpfs: all.tmpfs,
        shm_size_bytes: cx.size_of(f, "shm_size"),
        read_only: cx.flag_of(f, "read_only"),
        configs: f.get("configs").map(|node| mounts::grants(cx, node, "/")).unwrap_or_default(),
        secrets: f.get("secrets").map(|node| mounts::grants(cx, node, "/run/secrets")).unwrap_or_default(),
        seed: seed(cx, f),
        snapshot: match (cx.own_keys, f.get("snapshot")) {
            (true, Some(node)) => cx.word(node, "a state", &[("ready", Snapshot::Ready)]),
            _ => None,
        },
        depends_on,
        healthcheck: f.get("healthcheck").and_then(|node| health::healthcheck(cx, node)),
        ready: f.get("ready").filter(|_| cx.own_keys).and_then(|node| health::ready(cx, node)),
        ports: f.get("ports").map(|node| ports::ports(cx, node)).unwrap_or_default(),
        expose: f.get("expose").map(|node| ports::expose(cx, node)).unwrap_or_default(),
        network_mode,
        networks: attachments.iter().map(|attachment| attachment.value.clone()).collect(),
        links: links.into_iter().map(|link| link.value).collect(),
        hostname: networks::host_name_of(cx, f, "hostname"),
        domainname: networks::host_name_of(cx, f, "domainname"),
        extra_hosts: f.get("extra_hosts").map(|node| networks::extra_hosts(cx, node)).unwrap_or_default(),
        dns: networks::name_servers(cx, f),
        dns_search: cx.values_of(f, "dns_search"),
        dns_opt: cx.values_of(f, "dns_opt"),
        memory_limit_bytes: resources.memory_bytes,
        cpus: resources.cpus,
        pids_limit: resources.pids,
        ulimits: f.get("ulimits").map(|node| resources::ulimits(cx, node)).unwrap_or_default(),
        cap_add: resources::capabilities(cx, f, "cap_add"),
        cap_drop: resources::capabilities(cx, f, "cap_drop"),
        privileged: cx.flag_of(f, "privileged"),
        no_new_privileges: resources::no_new_privileges(cx, f),
        sysctls: resources::sysctls(cx, f),
        devices: f.get("devices").map(|node| resources::devices(cx, node)).unwrap_or_default(),
        container_name: container_name(cx, f),
        labels: labels(cx, f),
        annotations: cx.labels_of(f, "annotations"),
        profiles: profiles(cx, f),
        replicas: resources.replicas,
        quiet: f.get("attach").and_then(|node| cx.flag(node)) == Some(false),
        logging: f.get("logging").and_then(|node| resources::logging(cx, node)),
        watch: f.get("develop").map(|node| watch::watch(cx, node)).unwrap_or_default(),
    };
    check_contradictions(cx, &service, f, name);
    warn_of_refusals(cx, &service, f);
    Some(Draft {
        service,
        name: name.clone(),
        networks: attachments.into_iter().map(|At { value, span }| At::new(value.network, span)).collect(),
        volumes_from,
        node: Arc::clone(node),
    })
}

/// What is refused when the service is started: no mistake of a file that is read for other services.
fn warn_of_refusals(cx: &mut Cx<'_>, service: &Service, fields: &Fields<'_>) {
    let mut warn = |key: &str, what: &str| {
        let Some((span, _)) = fields.entry(key) else { return };
        let message = format!("{what}, so that this service cannot be started");
        cx.reader.diagnostics.push(Diagnostic::warning(codes::NOT_YET, message).with_span(span.clone()));
    };
    if service.privileged {
        warn("privileged", "`privileged` is not given to services");
    }
    match service.network_mode {
        Some(NetworkMode::Host) => warn("network_mode", "the host's network is not given to services"),
        Some(NetworkMode::Service(_) | NetworkMode::Container(_)) => {
            warn("network_mode", "sharing the network of another container is not supported yet");
        }
        _ => {}
    }
}

fn check_contradictions(cx: &mut Cx<'_>, service: &Service, fields: &Fields<'_>, name: &At<String>) {
    if service.image.is_none() && service.build.is_none() && service.from.is_none() && fields.get("image").is_none() {
        let ways = if cx.own_keys { "`image`, `build` or `from`" } else { "`image` or `build`" };
        cx.error(codes::NO_IMAGE, format!("service `{}` needs {ways}", shorten(&name.value)), &name.span);
    }
    if let (Some(from), true) = (fields.get("from"), service.image.is_some() || service.build.is_some()) {
        cx.error(codes::CONTRADICTION, "`from` names the image; `image` and `build` go without it", &from.span);
    }
    if let (Some(_), Some(networks)) = (&service.network_mode, fields.get("networks")) {
        cx.error(codes::CONTRADICTION, "`network_mode` and `networks` exclude each other", &networks.span);
    }
    if let (Some(NetworkMode::Host), Some(ports)) = (&service.network_mode, fields.get("ports")) {
        cx.error(codes::CONTRADICTION, "with `network_mode: host` there is nothing to publish", &ports.span);
    }
    if let (Some(node), true) = (fields.get("container_name"), service.replicas.unwrap_or(1) > 1) {
        cx.error(codes::CONTRADICTION, "several containers cannot have one `container_name`", &node.span);
    }
}

fn dependencies(cx: &mut Cx<'_>, node: &Node) -> Vec<Dependency> {
    let mut dependencies: Vec<Dependency> = Vec::new();
    let started = |cx: &Cx<'_>, name: At<String>| Dependency {
        place: cx.place(&name.span),
        service: name.value,
        condition: Condition::ServiceStarted,
        required: true,
        restart: false,
    };
    if let Kind::List(_) = node.kind {
        for name in cx.reader.texts(node) {
            if !dependencies.iter().any(|own| own.service == name.value) {
                dependencies.push(started(cx, name));
            }
        }
        return dependencies;
    }
    let conditions = [
        ("service_started", Condition::ServiceStarted),
        ("service_healthy", Condition::ServiceHealthy),
        ("service_completed_successfully", Condition::ServiceCompletedSuccessfully),
    ];
    for (name, node) in cx.reader.entries(node, "a list of services, or a map") {
        let mut dependency = started(cx, name.clone());
        if !matches!(node.kind, Kind::Null)
            && let Some(fields) = cx.fields(node, &DEPENDENCY, "a map with `condition`")
        {
            if let Some(node) = fields.get("condition") {
                dependency.condition = cx.word(node, "a condition", &conditions).unwrap_or_default();
            }
            dependency.required = fields.get("required").and_then(|node| cx.flag(node)).unwrap_or(true);
            dependency.restart = cx.flag_of(&fields, "restart");
        }
        dependencies.push(dependency);
    }
    dependencies
}

/// `env_file` in order, then `environment`; a name there without a value is the environment's or taken out.
fn environment(cx: &mut Cx<'_>, fields: &Fields<'_>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    let items = match fields.get("env_file") {
        Some(node) if matches!(node.kind, Kind::List(_)) => cx.items(node, "a list of files").to_vec(),
        Some(node) => vec![Arc::clone(node)],
        None => Vec::new(),
    };
    for item in items {
        let (path, required, format) = match item.kind {
            Kind::Map(_) => {
                let Some(inner) = cx.fields(&item, &ENV_FILE, "a file, or a map with `path`") else { continue };
                let Some(path) = inner.get("path") else {
                    cx.error(codes::MISSING_KEY, "an entry of `env_file` needs `path`", &item.span);
                    continue;
                };
                let required = inner.get("required").and_then(|node| cx.flag(node)).unwrap_or(true);
                let formats = [("raw", Format::Raw)];
                let format =
                    inner.get("format").and_then(|node| cx.word(node, "a format", &formats)).unwrap_or_default();
                (Arc::clone(path), required, format)
            }
            _ => (item, true, Format::Compose),
        };
        read_pairs(cx, &path, required, format, &mut environment);
    }
    if let Some(node) = fields.get("environment") {
        let names: Vec<String> = match &crate::merge::pairs(node).kind {
            Kind::Map(entries) => entries.iter().map(|entry| entry.key.clone()).collect(),
            _ => Vec::new(),
        };
        // "This holds true even if those values are empty or undefined."
        environment.retain(|name, _| !names.contains(name));
        environment.extend(cx.environment(node));
    }
    environment
}

/// `label_file` in order, then `labels`.
fn labels(cx: &mut Cx<'_>, fields: &Fields<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for text in cx.texts_of(fields, "label_file") {
        let node = Arc::new(Node::text(text.value, text.span));
        read_pairs(cx, &node, true, Format::Compose, &mut labels);
    }
    labels.extend(cx.labels_of(fields, "labels"));
    labels
}

fn read_pairs(cx: &mut Cx<'_>, path: &Node, required: bool, format: Format, map: &mut BTreeMap<String, String>) {
    let Some(text) = cx.text(path) else { return };
    let Some(host_path) = cx.host_path(&text, &path.span) else { return };
    let variables = std::rc::Rc::clone(&cx.sources.of(&path.span).variables);
    let content = match files::read(&host_path) {
        Ok(content) => content,
        Err(files::ReadError::Missing) if !required => return,
        Err(error) => {
            let code =
                if matches!(error, files::ReadError::Missing) { codes::NO_SUCH_PATH } else { codes::INVALID_VALUE };
            cx.error(code, format!("`{}` {error}", shorten(&text)), &path.span);
            return;
        }
    };
    match dotenv::parse(&content, format, &*variables) {
        Ok(lines) => {
            for (name, value) in lines {
                match value.or_else(|| variables.look_up(&name).ok()) {
                    Some(value) => map.insert(name, value),
                    None => map.remove(&name),
                };
            }
        }
        Err(error) => {
            cx.error(codes::INVALID_VALUE, format!("`{}`, {error}", shorten(&text)), &path.span);
        }
    }
}

/// `verify` (ours).
fn evidence(cx: &mut Cx<'_>, fields: &Fields<'_>) -> Vec<Evidence> {
    if !cx.own_keys {
        return Vec::new();
    }
    let words = [("gates", Evidence::Gates), ("signature", Evidence::Signature)];
    let texts = cx.texts_of(fields, "verify");
    texts.into_iter().filter_map(|text| cx.word(&Node::text(text.value, text.span), "evidence", &words)).collect()
}

/// `seed` (ours): files and directories that exist.
fn seed(cx: &mut Cx<'_>, fields: &Fields<'_>) -> Vec<std::path::PathBuf> {
    if !cx.own_keys {
        return Vec::new();
    }
    let mut seed = Vec::new();
    for text in cx.texts_of(fields, "seed") {
        let Some(path) = cx.host_path(&text.value, &text.span) else { continue };
        if path.exists() {
            seed.push(path);
        } else {
            cx.error(codes::NO_SUCH_PATH, format!("`{}` does not exist", shorten(&text.value)), &text.span);
        }
    }
    seed
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
fn is_long_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.len() > 1 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(legal)
}

fn container_name(cx: &mut Cx<'_>, fields: &Fields<'_>) -> Option<String> {
    let name = cx.name_of(fields, "container_name")?;
    if !is_long_name(&name) {
        let message = format!("`{}` is not the name of a container", shorten(&name));
        cx.invalid(message, fields.get("container_name")?).label =
            Some("two or more letters, digits, `_`, `.` and `-`".into());
    }
    Some(name)
}

fn profiles(cx: &mut Cx<'_>, fields: &Fields<'_>) -> Vec<String> {
    let profiles = cx.texts_of(fields, "profiles");
    for profile in &profiles {
        if !is_long_name(&profile.value) {
            let message = format!("`{}` is not the name of a profile", shorten(&profile.value));
            cx.error(codes::INVALID_VALUE, message, &profile.span).label =
                Some("two or more letters, digits, `_`, `.` and `-`".into());
        }
    }
    profiles.into_iter().map(|profile| profile.value).collect()
}
