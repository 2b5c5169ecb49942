//! What gates may have of the machine, and secrets: Compose's words for them.

use compose::ULIMITS;

use super::{
    At, Bounds, SecretSource, SecretUse, TmpfsRule, UlimitRule,
    read::{Fields, Keys, Reader, parse_memory, shorten},
    sections::{required_text, text},
    yaml::{Kind, Node},
};
use crate::codes;

pub(super) const SECRET: Keys = Keys {
    what: "a secret",
    known: &["environment", "file", "command"],
    later: &["external", "name"],
    foreign: &[("env", "environment"), ("run", "command"), ("src", "file"), ("source", "file"), ("path", "file")],
};

const SECRET_USE: Keys = Keys {
    what: "a use of a secret",
    known: &["source", "target", "uid", "gid", "mode"],
    later: &[],
    foreign: &[("name", "source"), ("id", "source"), ("src", "source"), ("path", "target")],
};

const ULIMIT: Keys = Keys { what: "a limit", known: &["soft", "hard"], later: &[], foreign: &[] };

const NETWORKS: [&str; 3] = ["default", "none", "host"];
/// Less cannot hold a shell (docker refuses the same).
const MEMORY_BYTES_MIN: u64 = 6 << 20;
/// Linux has no more of them.
const PIDS_MAX: u64 = 4_194_304;
/// Larger machines may say nothing at all.
const CPUS_MAX: f64 = 4096.0;

pub(super) fn bounds(reader: &mut Reader, fields: &Fields<'_>) -> Bounds {
    Bounds {
        mem_limit: fields.get("mem_limit").and_then(|node| mem_limit(reader, node)),
        cpus: fields.get("cpus").and_then(|node| cpus(reader, node)),
        pids_limit: fields.get("pids_limit").and_then(|node| reader.number(node, 1, PIDS_MAX)),
        shm_size: fields.get("shm_size").and_then(|node| reader.memory(node)),
        tmpfs: fields.get("tmpfs").map(|node| tmpfs(reader, node)).unwrap_or_default(),
        ulimits: fields.get("ulimits").map(|node| ulimits(reader, node)).unwrap_or_default(),
        network: network(reader, fields),
        secrets: fields.get("secrets").map(|node| secret_uses(reader, node)).unwrap_or_default(),
    }
}

fn mem_limit(reader: &mut Reader, node: &Node) -> Option<u64> {
    let bytes = reader.memory(node)?;
    if bytes < MEMORY_BYTES_MIN {
        reader.error(
            codes::INVALID_VALUE,
            "the memory limit is below 6m: no program starts with so little",
            &node.span,
        );
        return None;
    }
    Some(bytes)
}

fn cpus(reader: &mut Reader, node: &Node) -> Option<f64> {
    let At { value, span } = reader.text(node)?;
    let number = value.parse::<f64>().ok().filter(|number| (0.01..=CPUS_MAX).contains(number));
    if number.is_none() {
        let message = format!("`{}` is not a number of processors", shorten(&value));
        reader.error(codes::INVALID_VALUE, message, &span).label = Some("write it like `0.5` or `2`".into());
    }
    number
}

/// `default`, `none` or `host`.
pub(super) fn network(reader: &mut Reader, fields: &Fields<'_>) -> Option<At<String>> {
    let network = text(reader, fields, "network")?;
    if !NETWORKS.contains(&network.value.as_str()) {
        let near = dockerfile::nearest(&network.value, NETWORKS).map(|near| format!("did you mean `{near}`?"));
        let message = format!("`{}` is not a network; there are `default`, `none` and `host`", shorten(&network.value));
        reader.error(codes::INVALID_VALUE, message, &network.span).label = near;
    }
    Some(network)
}

/// Compose's short form: a path with options of mount(8).
fn tmpfs(reader: &mut Reader, node: &Node) -> Vec<TmpfsRule> {
    let texts = reader.texts(node);
    texts.into_iter().filter_map(|text| tmpfs_rule(reader, text)).collect()
}

fn tmpfs_rule(reader: &mut Reader, At { value, span }: At<String>) -> Option<TmpfsRule> {
    let (target, options) = value.split_once(':').unwrap_or((&value, ""));
    let is_inside = target.starts_with('/') && !target.split('/').any(|part| part == "..");
    if !is_inside || target.trim_matches('/').is_empty() {
        reader.error(codes::INVALID_VALUE, "a tmpfs needs an absolute path other than the root", &span);
        return None;
    }
    let mut rule = TmpfsRule { target: At::new(target.to_owned(), span.clone()), size: None, mode: None };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let understood = match option.split_once('=') {
            Some(("size", size)) => parse_memory(size).map(|size| rule.size = Some(size)),
            Some(("mode", mode)) => u32::from_str_radix(mode, 8).ok().map(|mode| rule.mode = Some(mode & 0o7777)),
            // What a file system in memory of a container has anyway.
            None if matches!(option, "rw" | "nosuid" | "nodev") => Some(()),
            _ => None,
        };
        if understood.is_none() {
            let message =
                format!("`{}` is no option of a tmpfs; there are `size=64m` and `mode=1777`", shorten(option));
            reader.error(codes::INVALID_VALUE, message, &span);
        }
    }
    Some(rule)
}

fn ulimits(reader: &mut Reader, node: &Node) -> Vec<UlimitRule> {
    let entries = reader.entries(node, "a map such as `{nofile: 1024}`");
    entries.into_iter().filter_map(|(name, node)| ulimit(reader, &name, node)).collect()
}

fn ulimit(reader: &mut Reader, name: &At<String>, node: &Node) -> Option<UlimitRule> {
    if !ULIMITS.contains(&name.value.as_str()) {
        let near = dockerfile::nearest(&name.value, ULIMITS).map(|near| format!("did you mean `{near}`?"));
        let message = format!("there is no limit `{}`", shorten(&name.value));
        reader.error(codes::INVALID_VALUE, message, &name.span).label = near;
        return None;
    }
    let (soft, hard) = match node.kind {
        Kind::Map(_) => {
            let fields = reader.fields(node, &ULIMIT, "a number, or a map with `soft` and `hard`")?;
            let mut of =
                |key| required_text(reader, &fields, key, node, "a limit").and_then(|text| number(reader, &text));
            (of("soft")?, of("hard")?)
        }
        _ => {
            let both = reader.text(node).and_then(|text| number(reader, &text))?;
            (both, both)
        }
    };
    if soft > hard {
        reader.error(codes::INVALID_VALUE, "the soft limit is above the hard one", &node.span);
        return None;
    }
    Some(UlimitRule { name: name.value.clone(), soft, hard })
}

/// -1 is unlimited.
fn number(reader: &mut Reader, text: &At<String>) -> Option<u64> {
    let number = if text.value == "-1" { Some(u64::MAX) } else { text.value.parse().ok() };
    if number.is_none() {
        let message = format!("`{}` is not a whole number", shorten(&text.value));
        reader.error(codes::INVALID_VALUE, message, &text.span);
    }
    number
}

/// The definitions at the top of the file.
pub(super) fn secret_sources(reader: &mut Reader, node: &Node) -> Vec<(At<String>, SecretSource)> {
    let entries = reader.entries(node, "a map from names to secrets");
    entries
        .into_iter()
        .filter_map(|(name, node)| {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.value.is_empty() || name.value.starts_with('.') || !name.value.chars().all(legal) {
                let message = "a secret's name has letters, digits, `-`, `_` and `.`";
                reader.error(codes::INVALID_VALUE, message, &name.span);
                return None;
            }
            let fields = reader.fields(node, &SECRET, "a map with `environment`, `file` or `command`")?;
            let source = SecretSource {
                environment: text(reader, &fields, "environment"),
                file: text(reader, &fields, "file"),
                command: text(reader, &fields, "command"),
            };
            match [&source.environment, &source.file, &source.command].into_iter().flatten().count() {
                1 => Some((name, source)),
                0 => {
                    let message = format!("secret `{}` needs `environment`, `file` or `command`", name.value);
                    reader.error(codes::MISSING_KEY, message, &name.span);
                    None
                }
                _ => {
                    let message = "`environment`, `file` and `command` exclude each other";
                    reader.error(codes::INVALID_VALUE, message, &name.span);
                    None
                }
            }
        })
        .collect()
}

/// Names of secrets, or maps with `source` and how it is shown.
pub(super) fn secret_uses(reader: &mut Reader, node: &Node) -> Vec<SecretUse> {
    let items = match &node.kind {
        Kind::List(items) => items.clone(),
        _ => vec![std::sync::Arc::new(node.clone())],
    };
    items.iter().filter_map(|item| secret_use(reader, item)).collect()
}

fn secret_use(reader: &mut Reader, node: &Node) -> Option<SecretUse> {
    if !matches!(node.kind, Kind::Map(_)) {
        let source = reader.text(node)?;
        return Some(SecretUse { source, target: None, mode: None, uid: None, gid: None });
    }
    let fields = reader.fields(node, &SECRET_USE, "a name, or a map with `source`")?;
    let source = required_text(reader, &fields, "source", node, "a use of a secret")?;
    let target = text(reader, &fields, "target");
    if let Some(target) = &target
        && (target.value.is_empty() || target.value.split('/').any(|part| part == "..") || target.value.ends_with('/'))
    {
        reader.error(codes::INVALID_VALUE, "the target is a name, or an absolute path without `..`", &target.span);
    }
    let mut id = |key: &str, radix: u32, what: &str| {
        let given = text(reader, &fields, key)?;
        // `0o444` is how YAML 1.2 writes octal numbers.
        let digits = given.value.strip_prefix("0o").unwrap_or(&given.value);
        let number = u32::from_str_radix(digits, radix).ok();
        if number.is_none() {
            reader.error(codes::INVALID_VALUE, format!("`{}` is no {what}", shorten(&given.value)), &given.span);
        }
        number
    };
    let (uid, gid, mode) = (id("uid", 10, "number"), id("gid", 10, "number"), id("mode", 8, "octal number"));
    Some(SecretUse {
        source,
        target: target.map(|target| target.value),
        mode: mode.map(|mode| mode & 0o7777),
        uid,
        gid,
    })
}
