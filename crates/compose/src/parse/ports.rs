//! `ports` and `expose`.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry as Slot},
    net::IpAddr,
    ops::RangeInclusive,
};

use dockerfile::Span;

use crate::{
    ExposedPort, HostPort, Protocol, PublishedPort, codes,
    parse::Cx,
    read::{Keys, shorten},
    yaml::{Kind, Node},
};

pub(crate) const PORT: Keys = Keys {
    what: "a port",
    known: &["target", "published", "host_ip", "protocol", "name", "app_protocol", "mode"],
    later: &[],
    foreign: &[("container", "target"), ("host", "published"), ("ip", "host_ip")],
};

/// Every container of a project with all its ports has fewer; `1-65535` a hundred times does not.
const PORTS_MAX: usize = 100_000;

/// A port of several; those with the same address, ports and protocol are one, and the last one counts.
pub(crate) fn ports(cx: &mut Cx<'_>, node: &Node) -> Vec<PublishedPort> {
    let mut ports: Vec<PublishedPort> = Vec::new();
    // Ranges are long: a search in the list for each of their ports would take minutes.
    let mut known: HashMap<(Option<IpAddr>, HostPort, u16, Protocol), usize> = HashMap::new();
    for item in cx.items(node, "a list of ports") {
        let some = match item.kind {
            Kind::Map(_) => long_port(cx, item).into_iter().collect(),
            _ => short_port(cx, item).unwrap_or_default(),
        };
        for port in some {
            match known.entry((port.host_ip, port.host, port.target, port.protocol)) {
                Slot::Occupied(at) => ports[*at.get()] = port,
                Slot::Vacant(slot) => {
                    slot.insert(ports.len());
                    ports.push(port);
                }
            }
        }
    }
    ports
}

pub(crate) fn expose(cx: &mut Cx<'_>, node: &Node) -> Vec<ExposedPort> {
    let mut ports: Vec<ExposedPort> = Vec::new();
    let mut known: HashSet<ExposedPort> = HashSet::new();
    for item in cx.items(node, "a list of ports") {
        let Some(text) = cx.text(item) else { continue };
        let (range, protocol) = text.split_once('/').unwrap_or((&text, ""));
        let Some(range) = port_range(cx, range, &item.span) else { continue };
        let Some(protocol) = protocol_of(cx, protocol, &item.span) else { continue };
        if !count(cx, &range, &item.span) {
            return ports;
        }
        for port in range {
            let port = ExposedPort { port, protocol };
            if known.insert(port) {
                ports.push(port);
            }
        }
    }
    ports
}

fn long_port(cx: &mut Cx<'_>, node: &Node) -> Option<PublishedPort> {
    let fields = cx.fields(node, &PORT, "a port, or a map with `target`")?;
    let Some(target) = fields.get("target") else {
        cx.error(codes::MISSING_KEY, "a port needs `target`", &node.span);
        return None;
    };
    let target = cx.whole(target, 1, 65_535).and_then(|port| u16::try_from(port).ok())?;
    let host = match fields.get("published") {
        None => HostPort::Any,
        Some(published) => {
            let text = cx.text(published)?;
            if text.is_empty() { HostPort::Any } else { host_port(&port_range(cx, &text, &published.span)?) }
        }
    };
    let host_ip = match fields.get("host_ip") {
        None => None,
        Some(ip) => {
            let text = cx.text(ip)?;
            address(cx, &text, &ip.span)?
        }
    };
    let protocol = match fields.get("protocol") {
        None => Protocol::Tcp,
        Some(node) => {
            let text = cx.text(node)?;
            protocol_of(cx, &text, &node.span)?
        }
    };
    // `mode` tells a swarm how to spread; there is none here.
    fields.get("mode").and_then(|node| cx.word(node, "a mode", &[("host", ()), ("ingress", ())]));
    Some(PublishedPort {
        place: cx.place(&node.span),
        host_ip,
        host,
        target,
        protocol,
        name: cx.name_of(&fields, "name"),
        app_protocol: cx.name_of(&fields, "app_protocol"),
    })
}

/// `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, where ports may be ranges of the same length, or the host's a range for one port.
fn short_port(cx: &mut Cx<'_>, node: &Node) -> Option<Vec<PublishedPort>> {
    let text = cx.text(node)?;
    let span = &node.span;
    let (ports, protocol) = text.rsplit_once('/').unwrap_or((&text, ""));
    let protocol = protocol_of(cx, protocol, span)?;
    let (before, container) = match ports.rsplit_once(':') {
        Some((before, container)) => (Some(before), container),
        None => (None, ports),
    };
    let (ip, host) = match before {
        None => (None, None),
        Some(before) => match before.rsplit_once(':') {
            Some((ip, host)) => (Some(ip), Some(host)),
            None => (None, Some(before)),
        },
    };
    let host_ip = match ip {
        Some(ip) => address(cx, ip, span)?,
        None => None,
    };
    let targets = port_range(cx, container, span)?;
    let hosts = match host {
        None | Some("") => None,
        Some(host) => Some(port_range(cx, host, span)?),
    };
    if !count(cx, &targets, span) {
        return None;
    }
    let place = cx.place(span);
    let port = |host: HostPort, target: u16| PublishedPort {
        place: place.clone(),
        host_ip,
        host,
        target,
        protocol,
        name: None,
        app_protocol: None,
    };
    match hosts {
        None => Some(targets.map(|target| port(HostPort::Any, target)).collect()),
        Some(hosts) if targets.len() == 1 => Some(vec![port(host_port(&hosts), *targets.start())]),
        Some(hosts) if hosts.len() == targets.len() => {
            Some(hosts.zip(targets).map(|(host, target)| port(HostPort::Port(host), target)).collect())
        }
        Some(hosts) => {
            let message = format!("{} ports of the host do not fit {} of the container", hosts.len(), targets.len());
            cx.error(codes::INVALID_VALUE, message, span);
            None
        }
    }
}

fn host_port(range: &RangeInclusive<u16>) -> HostPort {
    match (*range.start(), *range.end()) {
        (start, end) if start == end => HostPort::Port(start),
        (start, end) => HostPort::Range(start, end),
    }
}

/// Notes that ports come from a range; `false` when there are too many.
fn count(cx: &mut Cx<'_>, range: &RangeInclusive<u16>, span: &Span) -> bool {
    let total = cx.expanded.get() + range.len();
    if total > PORTS_MAX {
        cx.error(codes::TOO_LARGE, format!("more than {PORTS_MAX} ports in all"), span);
        return false;
    }
    cx.expanded.set(total);
    true
}

fn port_range(cx: &mut Cx<'_>, text: &str, span: &Span) -> Option<RangeInclusive<u16>> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u32>().ok();
    let (Some(start), Some(end)) = (port(start), port(end)) else {
        let message = format!("`{}` is not a port", shorten(text));
        cx.error(codes::INVALID_VALUE, message, span).label =
            Some("write it like `8080:80`, `127.0.0.1:8080:80/udp` or `3000-3005`".into());
        return None;
    };
    match (u16::try_from(start), u16::try_from(end)) {
        (Ok(start), Ok(end)) if (1..=end).contains(&start) => Some(start..=end),
        (Ok(start), Ok(end)) if start > end => {
            cx.error(codes::INVALID_VALUE, format!("the range `{}` runs backwards", shorten(text)), span);
            None
        }
        _ => {
            let wrong = if (1..=65_535).contains(&start) { end } else { start };
            cx.error(codes::INVALID_VALUE, format!("{wrong} is not a port: there are 1 to 65535"), span);
            None
        }
    }
}

fn protocol_of(cx: &mut Cx<'_>, text: &str, span: &Span) -> Option<Protocol> {
    match text.to_ascii_lowercase().as_str() {
        "" | "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => {
            let message = format!("`{}` is not a protocol; there are `tcp` and `udp`", shorten(text));
            cx.error(codes::INVALID_VALUE, message, span);
            None
        }
    }
}

/// `Some(None)`: all addresses.
fn address(cx: &mut Cx<'_>, text: &str, span: &Span) -> Option<Option<IpAddr>> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare.is_empty() {
        return Some(None);
    }
    match bare.parse::<IpAddr>() {
        Ok(address) => Some(Some(address)),
        Err(_) => {
            cx.error(codes::INVALID_VALUE, format!("`{}` is not an IP address", shorten(text)), span);
            None
        }
    }
}
