//! The top level beside `services`: networks, volumes, configs, secrets.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use dockerfile::Span;

use crate::{
    At, FileContent, FileSource, Network, Subnet, Volume, codes,
    parse::Cx,
    read::{Fields, Keys, shorten},
    yaml::{Kind, Node},
};

pub(crate) const FILE: Keys = Keys {
    what: "a Compose file",
    known: &["version", "name", "include", "services", "networks", "volumes", "configs", "secrets"],
    later: &["models"],
    foreign: &[("service", "services"), ("network", "networks"), ("volume", "volumes"), ("extends", "include")],
};
pub(crate) const NETWORK: Keys = Keys {
    what: "a network",
    known: &["name", "driver", "driver_opts", "internal", "external", "enable_ipv6", "ipam", "labels"],
    later: &["attachable", "enable_ipv4"],
    foreign: &[("subnet", "ipam")],
};
pub(crate) const IPAM: Keys = Keys { what: "`ipam`", known: &["config"], later: &["driver", "options"], foreign: &[] };
pub(crate) const SUBNET: Keys = Keys {
    what: "an address range",
    known: &["subnet", "gateway", "ip_range"],
    later: &["aux_addresses"],
    foreign: &[("range", "ip_range"), ("cidr", "subnet")],
};
pub(crate) const VOLUME: Keys = Keys {
    what: "a volume",
    known: &["name", "driver", "driver_opts", "external", "labels"],
    later: &[],
    foreign: &[],
};
pub(crate) const CONFIG: Keys = Keys {
    what: "a config",
    known: &["name", "file", "environment", "content", "external"],
    later: &["labels", "template_driver"],
    foreign: &[("env", "environment"), ("path", "file"), ("inline", "content")],
};
pub(crate) const SECRET: Keys = Keys {
    what: "a secret",
    known: &["name", "file", "environment", "external"],
    later: &["labels", "driver", "driver_opts", "template_driver"],
    foreign: &[("env", "environment"), ("path", "file")],
};
const EXTERNAL: Keys = Keys { what: "`external`", known: &["name"], later: &[], foreign: &[] };

/// Something of the top level with its place.
pub(crate) type Named<T> = BTreeMap<String, At<T>>;

/// Reads every entry; one that is empty has its defaults.
fn entries<T>(
    cx: &mut Cx<'_>,
    node: Option<&Arc<Node>>,
    mut read: impl FnMut(&mut Cx<'_>, &At<String>, Option<&Arc<Node>>) -> Option<T>,
) -> Named<T> {
    let mut named = BTreeMap::new();
    for (name, node) in node.map(|node| cx.reader.entries(node, "a map of names")).unwrap_or_default() {
        check_name(cx, &name);
        let node = Some(node).filter(|node| !matches!(node.kind, Kind::Null));
        if let Some(value) = read(cx, &name, node) {
            named.insert(name.value, At::new(value, name.span));
        }
    }
    named
}

/// Names of services, networks and so on (compose-spec.json).
pub(crate) fn check_name(cx: &mut Cx<'_>, name: &At<String>) {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.value.is_empty() || !name.value.chars().all(legal) {
        let message =
            format!("`{}` is not a name: there may be letters, digits, `-`, `_` and `.`", shorten(&name.value));
        cx.error(codes::INVALID_VALUE, message, &name.span);
    }
}

/// `external: true`, or the old `external: {name: …}`; and the name outside of the project.
fn outside(cx: &mut Cx<'_>, fields: &Fields<'_>, project: &str, key: &str) -> (String, bool) {
    let given = cx.name_of(fields, "name");
    let (external, old_name) = match fields.get("external") {
        None => (false, None),
        Some(node) if matches!(node.kind, Kind::Map(_)) => {
            let inner = cx.fields(node, &EXTERNAL, "`true` or `false`");
            (true, inner.and_then(|inner| cx.name_of(&inner, "name")))
        }
        Some(node) => (cx.flag(node).unwrap_or(false), None),
    };
    let name = given.or(old_name).unwrap_or_else(|| match external {
        true => key.to_owned(),
        false => format!("{project}_{key}"),
    });
    (name, external)
}

/// What exists already cannot be described as well.
fn check_external(cx: &mut Cx<'_>, fields: &Fields<'_>, external: bool, others: &[&str]) {
    for key in others.iter().filter(|_| external) {
        if let Some(node) = fields.get(key) {
            cx.error(codes::CONTRADICTION, format!("`{key}` and `external` exclude each other"), &node.span);
        }
    }
}

pub(crate) fn networks(cx: &mut Cx<'_>, node: Option<&Arc<Node>>, project: &str) -> Named<Network> {
    entries(cx, node, |cx, key, node| {
        let place = cx.place(&key.span);
        let Some(node) = node else {
            return Some(Network { name: format!("{project}_{}", key.value), place, ..Network::default() });
        };
        let fields = cx.fields(node, &NETWORK, "a map with keys such as `internal`")?;
        let (name, external) = outside(cx, &fields, project, &key.value);
        let others = ["driver", "driver_opts", "internal", "ipam", "labels", "enable_ipv6"];
        check_external(cx, &fields, external, &others);
        warn_of_network(cx, &fields, external);
        Some(Network {
            name,
            place,
            external,
            driver: cx.name_of(&fields, "driver"),
            driver_opts: cx.labels_of(&fields, "driver_opts"),
            internal: cx.flag_of(&fields, "internal"),
            ipv6: cx.flag_of(&fields, "enable_ipv6"),
            subnets: fields.get("ipam").map(|node| subnets(cx, node)).unwrap_or_default(),
            labels: cx.labels_of(&fields, "labels"),
        })
    })
}

/// What a private network of a project's own cannot be.
fn warn_of_network(cx: &mut Cx<'_>, fields: &Fields<'_>, external: bool) {
    if let Some((span, _)) = fields.entry("external").filter(|_| external) {
        cx.no_effect(
            "`external` has no effect here: a network belongs to one project, and others cannot join it",
            span,
        );
        return;
    }
    warn_of_driver(cx, fields, &["bridge", "default"], "networks are bridges of this project");
    if let Some((span, node)) = fields.entry("enable_ipv6")
        && cx.flag(node) == Some(true)
    {
        cx.no_effect("`enable_ipv6` has no effect here: networks have IPv4 addresses", span);
    }
}

/// A driver that is another than ours, and options for any.
fn warn_of_driver(cx: &mut Cx<'_>, fields: &Fields<'_>, ours: &[&str], reason: &str) {
    if let Some((span, node)) = fields.entry("driver")
        && node.scalar().is_some_and(|driver| !driver.is_empty() && !ours.contains(&driver))
    {
        cx.no_effect(format!("`driver` has no effect here: {reason}"), span);
    }
    if let Some((span, node)) = fields.entry("driver_opts")
        && !matches!(&node.kind, Kind::Map(entries) if entries.is_empty())
    {
        cx.no_effect(format!("`driver_opts` has no effect here: {reason}"), span);
    }
}

fn subnets(cx: &mut Cx<'_>, node: &Node) -> Vec<Subnet> {
    let Some(fields) = cx.fields(node, &IPAM, "a map with `config`") else { return Vec::new() };
    let items = cx.items_of(&fields, "config", "a list of address ranges");
    let read = items
        .iter()
        .filter_map(|item| {
            let fields = cx.fields(item, &SUBNET, "a map with `subnet`")?;
            let gateway = fields.get("gateway").and_then(|node| {
                let text = cx.text(node)?;
                let gateway = text.parse::<IpAddr>().ok();
                if gateway.is_none() {
                    cx.invalid(format!("`{}` is not an IP address", shorten(&text)), node);
                }
                gateway
            });
            Some(Subnet {
                subnet: range_of(cx, &fields, "subnet"),
                gateway,
                ip_range: range_of(cx, &fields, "ip_range"),
            })
        })
        .collect::<Vec<Subnet>>();
    let first = read.iter().position(|subnet| subnet.ipv4().is_some());
    for (at, (subnet, item)) in read.iter().zip(items).enumerate() {
        if subnet.subnet.is_some() && Some(at) != first {
            cx.no_effect("this range has no effect here: a network has one of IPv4 addresses", &item.span);
        }
    }
    read
}

/// `address/prefix`.
fn range_of(cx: &mut Cx<'_>, fields: &Fields<'_>, key: &str) -> Option<String> {
    let node = fields.get(key)?;
    let text = cx.text(node)?;
    let is_range = text.split_once('/').is_some_and(|(address, prefix)| {
        let bits = address.parse::<IpAddr>().map(|address| if address.is_ipv4() { 32 } else { 128 });
        bits.is_ok_and(|bits| prefix.parse::<u8>().is_ok_and(|prefix| prefix <= bits))
    });
    if !is_range {
        cx.invalid(format!("`{}` is not an address range", shorten(&text)), node).label =
            Some("write it like `172.16.238.0/24`".into());
        return None;
    }
    Some(text)
}

pub(crate) fn volumes(cx: &mut Cx<'_>, node: Option<&Arc<Node>>, project: &str) -> Named<Volume> {
    entries(cx, node, |cx, key, node| {
        let place = cx.place(&key.span);
        let Some(node) = node else {
            return Some(Volume { name: format!("{project}_{}", key.value), place, ..Volume::default() });
        };
        let fields = cx.fields(node, &VOLUME, "a map with keys such as `driver`")?;
        let (name, external) = outside(cx, &fields, project, &key.value);
        check_external(cx, &fields, external, &["driver", "driver_opts", "labels"]);
        if !external {
            warn_of_driver(cx, &fields, &["local"], "volumes are directories of this machine");
        }
        Some(Volume {
            name,
            place,
            external,
            driver: cx.name_of(&fields, "driver"),
            driver_opts: cx.labels_of(&fields, "driver_opts"),
            labels: cx.labels_of(&fields, "labels"),
        })
    })
}

/// `configs` or `secrets`.
pub(crate) fn files(cx: &mut Cx<'_>, node: Option<&Arc<Node>>, project: &str, keys: &Keys) -> Named<FileSource> {
    entries(cx, node, |cx, key, node| {
        let missing = |cx: &mut Cx<'_>| {
            let ways: Vec<String> = ["file", "environment", "content", "external"]
                .iter()
                .filter(|way| keys.known.contains(way))
                .map(|way| format!("`{way}`"))
                .collect();
            cx.error(codes::MISSING_KEY, format!("{} needs one of {}", keys.what, ways.join(", ")), &key.span);
        };
        let Some(node) = node else {
            missing(cx);
            return None;
        };
        let fields = cx.fields(node, keys, "a map with keys such as `file`")?;
        let (name, external) = outside(cx, &fields, project, &key.value);
        let mut contents = Vec::new();
        if external {
            contents.push((FileContent::External, node.span.clone()));
        }
        if let Some(node) = fields.get("file") {
            let text = cx.text(node)?;
            contents.push((FileContent::File(cx.host_path(&text, &node.span)?), node.span.clone()));
        }
        if let Some(node) = fields.get("environment") {
            contents.push((FileContent::Environment(cx.text(node)?), node.span.clone()));
        }
        if keys.known.contains(&"content")
            && let Some(node) = fields.get("content")
        {
            contents.push((FileContent::Inline(cx.text(node)?), node.span.clone()));
        }
        let mut contents: std::vec::IntoIter<(FileContent, Span)> = contents.into_iter();
        let Some((content, _)) = contents.next() else {
            missing(cx);
            return None;
        };
        if let Some((_, span)) = contents.next() {
            cx.error(codes::CONTRADICTION, format!("{} has one content only", keys.what), &span);
        }
        Some(FileSource { name, place: cx.place(&key.span), content })
    })
}
