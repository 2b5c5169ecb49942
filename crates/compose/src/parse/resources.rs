//! Limits and rights: `deploy`, `ulimits`, capabilities, `devices`, `logging`.

use std::collections::BTreeMap;

use dockerfile::Span;

use crate::{
    Device, Logging, Restart, ULIMITS, Ulimit, codes,
    merge::pairs,
    parse::{Cx, process},
    read::{Fields, Keys, shorten},
    yaml::{Kind, Node},
};

pub(crate) const DEPLOY: Keys = Keys {
    what: "`deploy`",
    known: &["replicas", "resources", "restart_policy"],
    later: &["mode", "endpoint_mode", "labels", "rollback_config", "update_config", "placement"],
    foreign: &[("scale", "replicas"), ("limits", "resources")],
};
pub(crate) const RESOURCES: Keys =
    Keys { what: "`deploy.resources`", known: &["limits"], later: &["reservations"], foreign: &[] };
pub(crate) const LIMITS: Keys = Keys {
    what: "`deploy.resources.limits`",
    known: &["cpus", "memory", "pids"],
    later: &[],
    foreign: &[("cpu", "cpus"), ("mem", "memory"), ("mem_limit", "memory")],
};
pub(crate) const RESTART_POLICY: Keys = Keys {
    what: "`deploy.restart_policy`",
    known: &["condition", "max_attempts"],
    later: &["delay", "window"],
    foreign: &[],
};
pub(crate) const ULIMIT: Keys = Keys { what: "this limit", known: &["soft", "hard"], later: &[], foreign: &[] };
pub(crate) const DEVICE: Keys =
    Keys { what: "a device", known: &["source", "target", "permissions"], later: &[], foreign: &[] };
pub(crate) const LOGGING: Keys =
    Keys { what: "`logging`", known: &["driver", "options"], later: &[], foreign: &[("type", "driver")] };

/// Limits of a service, which may be said at two places.
#[derive(Default)]
pub(crate) struct Resources {
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) cpus: Option<f64>,
    pub(crate) pids: Option<u64>,
    pub(crate) replicas: Option<u32>,
    pub(crate) restart: Restart,
}

/// More containers of one service on one machine are a slip.
const REPLICAS_MAX: u32 = 1_000;
/// docker's least: a container could not even start with less.
const MEMORY_BYTES_MIN: u64 = 6 << 20;

pub(crate) fn resources(cx: &mut Cx<'_>, service: &Fields<'_>) -> Resources {
    let mut resources = Resources {
        memory_bytes: service.get("mem_limit").and_then(|node| memory(cx, node)),
        cpus: service.get("cpus").and_then(|node| cpus(cx, node)),
        pids: service.get("pids_limit").and_then(|node| pids(cx, node)),
        replicas: cx.count_of(service, "scale", REPLICAS_MAX),
        restart: service.get("restart").and_then(|node| process::restart(cx, node)).unwrap_or_default(),
    };
    let deploy = service.get("deploy").and_then(|node| cx.fields(node, &DEPLOY, "a map with keys such as `resources`"));
    let Some(deploy) = deploy else { return resources };
    if let Some(node) = deploy.get("replicas") {
        let replicas = cx.whole(node, 0, u64::from(REPLICAS_MAX)).and_then(|count| u32::try_from(count).ok());
        join(cx, &mut resources.replicas, replicas, ("scale", "deploy.replicas"), &node.span);
    }
    if let Some(node) = deploy.get("restart_policy")
        && let Some(policy) = cx.fields(node, &RESTART_POLICY, "a map with `condition`")
    {
        let attempts = cx.count_of(&policy, "max_attempts", u32::MAX).filter(|attempts| *attempts > 0);
        let words = [("none", 0), ("on-failure", 1), ("any", 2)];
        // docker: without a condition, `any`. `restart` says the same and wins.
        let condition = match policy.get("condition") {
            Some(node) => cx.word(node, "a condition", &words).unwrap_or(2),
            None => 2,
        };
        if service.get("restart").is_none() {
            resources.restart = match condition {
                0 => Restart::No,
                1 => Restart::OnFailure { attempts },
                _ => Restart::Always,
            };
        }
    }
    let limits = deploy.get("resources").and_then(|node| cx.fields(node, &RESOURCES, "a map with `limits`"));
    let limits = limits.and_then(|fields| fields.get("limits").cloned());
    let Some(node) = limits else { return resources };
    let Some(limits) = cx.fields(&node, &LIMITS, "a map with `memory`, `cpus` and `pids`") else { return resources };
    if let Some(node) = limits.get("memory") {
        let value = memory(cx, node);
        let keys = ("mem_limit", "deploy.resources.limits.memory");
        join(cx, &mut resources.memory_bytes, value, keys, &node.span);
    }
    if let Some(node) = limits.get("cpus") {
        let value = cpus(cx, node);
        join(cx, &mut resources.cpus, value, ("cpus", "deploy.resources.limits.cpus"), &node.span);
    }
    if let Some(node) = limits.get("pids") {
        let value = pids(cx, node);
        join(cx, &mut resources.pids, value, ("pids_limit", "deploy.resources.limits.pids"), &node.span);
    }
    resources
}

/// Two keys for one value have to agree.
fn join<T: PartialEq>(cx: &mut Cx<'_>, value: &mut Option<T>, other: Option<T>, keys: (&str, &str), span: &Span) {
    let Some(other) = other else { return };
    if value.as_ref().is_some_and(|value| *value != other) {
        let message = format!("`{}` and `{}` have different values", keys.0, keys.1);
        cx.error(codes::CONTRADICTION, message, span);
    }
    *value = Some(other);
}

/// 0 and -1 are unlimited.
fn memory(cx: &mut Cx<'_>, node: &Node) -> Option<u64> {
    if matches!(node.scalar(), Some("" | "0" | "-1")) {
        return None;
    }
    let bytes = cx.size(node)?;
    if bytes < MEMORY_BYTES_MIN {
        cx.invalid("a container needs 6 MiB at least", node);
    }
    Some(bytes)
}

/// 0 is unlimited.
fn cpus(cx: &mut Cx<'_>, node: &Node) -> Option<f64> {
    match node.scalar().and_then(|text| text.parse::<f64>().ok()) {
        Some(cpus) if (0.0..=4096.0).contains(&cpus) => Some(cpus).filter(|cpus| *cpus > 0.0),
        Some(_) => {
            cx.invalid("the number of processors is from 0 to 4096", node);
            None
        }
        None => {
            cx.reader.wrong_type(node, "a number of processors, such as 1.5");
            None
        }
    }
}

/// 0 and -1 are unlimited.
fn pids(cx: &mut Cx<'_>, node: &Node) -> Option<u64> {
    if matches!(node.scalar(), Some("" | "0" | "-1")) {
        return None;
    }
    cx.whole(node, 1, 1 << 22)
}

pub(crate) fn ulimits(cx: &mut Cx<'_>, node: &Node) -> BTreeMap<String, Ulimit> {
    let mut ulimits = BTreeMap::new();
    for (name, node) in cx.reader.entries(node, "a map from names to limits") {
        if !ULIMITS.contains(&name.value.as_str()) {
            let near = dockerfile::nearest(&name.value, ULIMITS);
            let label = near.map(|near| format!("did you mean `{near}`?"));
            let message = format!("`{}` is not the name of a limit", shorten(&name.value));
            cx.error(codes::INVALID_VALUE, message, &name.span).label = label;
            continue;
        }
        let ulimit = match node.kind {
            Kind::Map(_) => {
                let Some(fields) = cx.fields(node, &ULIMIT, "a number, or a map with `soft` and `hard`") else {
                    continue;
                };
                let (Some(soft), Some(hard)) = (fields.get("soft"), fields.get("hard")) else {
                    cx.error(codes::MISSING_KEY, "this limit needs `soft` and `hard`", &node.span);
                    continue;
                };
                (limit(cx, soft), limit(cx, hard))
            }
            _ => {
                let limit = limit(cx, node);
                (limit, limit)
            }
        };
        let (Some(soft), Some(hard)) = ulimit else { continue };
        if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
            cx.invalid("the soft limit is above the hard one", node);
        }
        ulimits.insert(name.value, Ulimit { soft, hard });
    }
    ulimits
}

/// `Some(None)`: unlimited.
fn limit(cx: &mut Cx<'_>, node: &Node) -> Option<Option<u64>> {
    if node.scalar() == Some("-1") {
        return Some(None);
    }
    cx.whole(node, 0, u64::MAX - 1).map(Some)
}

/// Capabilities without `CAP_`, in capital letters.
pub(crate) fn capabilities(cx: &mut Cx<'_>, fields: &Fields<'_>, key: &str) -> Vec<String> {
    const NAMES: &[&str] = &[
        "ALL",
        "AUDIT_CONTROL",
        "AUDIT_READ",
        "AUDIT_WRITE",
        "BLOCK_SUSPEND",
        "BPF",
        "CHECKPOINT_RESTORE",
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "IPC_LOCK",
        "IPC_OWNER",
        "KILL",
        "LEASE",
        "LINUX_IMMUTABLE",
        "MAC_ADMIN",
        "MAC_OVERRIDE",
        "MKNOD",
        "NET_ADMIN",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_RAW",
        "PERFMON",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYSLOG",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_CHROOT",
        "SYS_MODULE",
        "SYS_NICE",
        "SYS_PACCT",
        "SYS_PTRACE",
        "SYS_RAWIO",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "WAKE_ALARM",
    ];
    let mut capabilities = Vec::new();
    for text in cx.texts_of(fields, key) {
        let upper = text.value.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned();
        if !NAMES.contains(&name.as_str()) {
            let near = dockerfile::nearest(&name, NAMES.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            let message = format!("`{}` is not a capability", shorten(&text.value));
            cx.error(codes::INVALID_VALUE, message, &text.span).label = near;
        } else if !capabilities.contains(&name) {
            capabilities.push(name);
        }
    }
    capabilities
}

/// The one security option that does not name something of the host: `no-new-privileges[:true]`, with `:` or `=`.
pub(crate) fn no_new_privileges(cx: &mut Cx<'_>, fields: &Fields<'_>) -> bool {
    let mut is_wanted = false;
    for text in cx.texts_of(fields, "security_opt") {
        match text.value.replacen('=', ":", 1).strip_prefix("no-new-privileges") {
            // Go's words, as docker reads them.
            Some("" | ":1" | ":t" | ":T" | ":true" | ":TRUE" | ":True") => is_wanted = true,
            Some(":0" | ":f" | ":F" | ":false" | ":FALSE" | ":False") => is_wanted = false,
            Some(value) if value.starts_with(':') => {
                let message = format!("`{}` is neither true nor false", shorten(&value[1..]));
                cx.error(codes::INVALID_VALUE, message, &text.span);
            }
            _ => cx.no_effect(format!("`{}` has no effect here", shorten(&text.value)), &text.span),
        }
    }
    is_wanted
}

/// Kernel parameters that a container has for itself (namespaces(7)); any other would change the host.
pub(crate) fn sysctls(cx: &mut Cx<'_>, fields: &Fields<'_>) -> BTreeMap<String, String> {
    const OF_IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shm_rmid_forced",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
    ];
    let Some(node) = fields.get("sysctls") else { return BTreeMap::new() };
    let mut sysctls = BTreeMap::new();
    for (name, value) in cx.reader.pairs(&pairs(node)) {
        let key = name.value.as_str();
        let is_own = |prefix: &str| key.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
        let is_host_network = fields.get("network_mode").and_then(|node| node.scalar()) == Some("host");
        if key.starts_with("net.") && is_host_network {
            let message = format!("`{}` is the host's with `network_mode: host`", shorten(key));
            cx.error(codes::CONTRADICTION, message, &name.span);
        } else if !OF_IPC.contains(&key) && !is_own("net.") && !is_own("fs.mqueue.") {
            let message = format!("`{}` is a parameter of the whole host, not of a container", shorten(key));
            let diagnostic = cx.error(codes::INVALID_VALUE, message, &name.span);
            diagnostic.label = dockerfile::nearest(key, OF_IPC).map(|near| format!("did you mean `{near}`?"));
            diagnostic.help = Some(format!(
                "a container has `net.*`, `fs.mqueue.*` and {}; set others on the host: `sysctl -w {}=…`",
                OF_IPC.map(|name| format!("`{name}`")).join(", "),
                shorten(key)
            ));
        } else {
            sysctls.insert(name.value, value.map(|value| value.value).unwrap_or_default());
        }
    }
    sysctls
}

/// `SOURCE[:TARGET[:PERMISSIONS]]`, a map, or the name of a CDI device; of two with one target the later one.
pub(crate) fn devices(cx: &mut Cx<'_>, node: &Node) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    for item in cx.items(node, "a list of devices") {
        if let Some(device) = device(cx, item) {
            devices.retain(|own| own.target != device.target);
            devices.push(device);
        }
    }
    devices
}

fn device(cx: &mut Cx<'_>, node: &Node) -> Option<Device> {
    let (source, target, permissions) = match node.kind {
        Kind::Map(_) => {
            let fields = cx.fields(node, &DEVICE, "a device, or a map with `source`")?;
            let Some(source) = cx.name_of(&fields, "source") else {
                cx.error(codes::MISSING_KEY, "a device needs `source`", &node.span);
                return None;
            };
            (source, cx.name_of(&fields, "target"), cx.name_of(&fields, "permissions"))
        }
        _ => {
            let text = cx.text(node)?;
            let mut parts = text.splitn(3, ':').map(str::to_owned);
            (parts.next().unwrap_or_default(), parts.next(), parts.next())
        }
    };
    let permissions = permissions.unwrap_or_else(|| "rwm".into());
    if source.is_empty() || permissions.is_empty() || !permissions.chars().all(|c| "rwm".contains(c)) {
        cx.invalid("expected `/dev/source[:/dev/target[:rwm]]`", node);
        return None;
    }
    let target = target.unwrap_or_else(|| source.clone());
    // A device by another name (CDI) has no path of its own.
    if source.starts_with('/') && !target.starts_with('/') {
        cx.invalid(format!("`{}` is not an absolute path", shorten(&target)), node);
        return None;
    }
    Some(Device { target, source, permissions })
}

pub(crate) fn logging(cx: &mut Cx<'_>, node: &Node) -> Option<Logging> {
    let fields = cx.fields(node, &LOGGING, "a map with `driver` and `options`")?;
    Some(Logging { driver: cx.name_of(&fields, "driver"), options: cx.labels_of(&fields, "options") })
}
