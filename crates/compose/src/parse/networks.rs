//! What a service has to do with networks: `networks`, `network_mode`, `links`, `extra_hosts`, `dns`.

use std::net::IpAddr;

use crate::{
    At, Attachment, HostAddress, Link, NetworkMode, codes,
    parse::Cx,
    read::{Fields, Keys, shorten},
    yaml::{Kind, Node},
};

pub(crate) const ATTACHMENT: Keys = Keys {
    what: "a service's network",
    known: &["aliases", "ipv4_address", "ipv6_address", "priority", "gw_priority"],
    later: &["driver_opts", "interface_name", "link_local_ips", "mac_address"],
    foreign: &[("alias", "aliases"), ("ip", "ipv4_address"), ("ip_address", "ipv4_address")],
};

/// More is a slip: priorities order a handful of networks.
const PRIORITY_MAX: i64 = 1_000_000;

pub(crate) fn attachments(cx: &mut Cx<'_>, node: &Node) -> Vec<At<Attachment>> {
    let mut attachments: Vec<At<Attachment>> = Vec::new();
    if let Kind::List(items) = &node.kind {
        for item in items {
            let Some(network) = cx.text(item) else { continue };
            if !attachments.iter().any(|own| own.value.network == network) {
                attachments.push(At::new(Attachment { network, ..Attachment::default() }, item.span.clone()));
            }
        }
        return attachments;
    }
    for (name, node) in cx.reader.entries(node, "a list of networks, or a map") {
        let mut attachment = Attachment { network: name.value, ..Attachment::default() };
        if !matches!(node.kind, Kind::Null)
            && let Some(fields) = cx.fields(node, &ATTACHMENT, "a map with keys such as `aliases`")
        {
            attachment.aliases = cx.values_of(&fields, "aliases");
            attachment.ipv4 = address_of(cx, &fields, "ipv4_address", "an IPv4 address");
            attachment.ipv6 = address_of(cx, &fields, "ipv6_address", "an IPv6 address");
            if let (Some(_), Some((span, _))) = (attachment.ipv6, fields.entry("ipv6_address")) {
                cx.no_effect("`ipv6_address` has no effect here: networks have IPv4 addresses", span);
            }
            attachment.priority = priority_of(cx, &fields, "priority");
            attachment.gateway_priority = priority_of(cx, &fields, "gw_priority");
        }
        attachments.push(At::new(attachment, name.span));
    }
    attachments
}

fn address_of<T: std::str::FromStr>(cx: &mut Cx<'_>, fields: &Fields<'_>, key: &str, what: &str) -> Option<T> {
    let node = fields.get(key)?;
    let text = cx.text(node)?;
    if text.is_empty() {
        return None;
    }
    let address = text.parse().ok();
    if address.is_none() {
        cx.invalid(format!("`{}` is not {what}", shorten(&text)), node);
    }
    address
}

fn priority_of(cx: &mut Cx<'_>, fields: &Fields<'_>, key: &str) -> i64 {
    let Some(node) = fields.get(key) else { return 0 };
    let priority = node.scalar().and_then(|text| text.parse::<i64>().ok());
    match priority.filter(|priority| (-PRIORITY_MAX..=PRIORITY_MAX).contains(priority)) {
        Some(priority) => priority,
        None => {
            cx.reader.wrong_type(node, &format!("a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}"));
            0
        }
    }
}

pub(crate) fn network_mode(cx: &mut Cx<'_>, node: &Node) -> Option<NetworkMode> {
    let text = cx.text(node)?;
    let mode = match text.as_str() {
        "" => return None,
        "none" => NetworkMode::None,
        "host" => NetworkMode::Host,
        "bridge" | "default" => NetworkMode::Bridge,
        other => match other.split_once(':') {
            Some(("service", name)) if !name.is_empty() => NetworkMode::Service(name.into()),
            Some(("container", name)) if !name.is_empty() => NetworkMode::Container(name.into()),
            _ => {
                let known = ["none", "host", "bridge", "service:…", "container:…"];
                let near = dockerfile::nearest(other, known).map(|near| format!("did you mean `{near}`?"));
                let message = format!(
                    "`{}` is not a network mode; there are `none`, `host`, `bridge`, `service:NAME` and `container:NAME`",
                    shorten(other)
                );
                cx.invalid(message, node).label = near;
                return None;
            }
        },
    };
    Some(mode)
}

/// `SERVICE`, or `SERVICE:ALIAS`.
pub(crate) fn links(cx: &mut Cx<'_>, fields: &Fields<'_>) -> Vec<At<Link>> {
    let links = cx.texts_of(fields, "links");
    links
        .into_iter()
        .filter_map(|At { value, span }| {
            let (service, alias) = value.split_once(':').unwrap_or((&value, &value));
            if service.is_empty() || alias.is_empty() {
                cx.error(codes::INVALID_VALUE, "expected `service` or `service:alias`", &span);
                return None;
            }
            Some(At::new(Link { service: service.into(), alias: alias.into() }, span))
        })
        .collect()
}

/// `name=address`, `name:address`, or a map; IPv6 addresses may be in brackets.
pub(crate) fn extra_hosts(cx: &mut Cx<'_>, node: &Node) -> Vec<(String, HostAddress)> {
    let mut pairs: Vec<(String, At<String>)> = Vec::new();
    if let Kind::List(items) = &node.kind {
        for text in items.iter().filter_map(|item| cx.reader.text(item)).collect::<Vec<_>>() {
            match text.value.split_once('=').or_else(|| text.value.split_once(':')) {
                Some((name, address)) => pairs.push((name.into(), At::new(address.into(), text.span))),
                None => {
                    cx.error(codes::INVALID_VALUE, "expected `name=address`", &text.span);
                }
            }
        }
    } else {
        for (name, node) in cx.reader.entries(node, "a map, or a list of `name=address`") {
            let addresses = cx.reader.texts(node);
            pairs.extend(addresses.into_iter().map(|address| (name.value.clone(), address)));
        }
    }
    let mut hosts = Vec::new();
    for (name, At { value, span }) in pairs {
        let bare = value.strip_prefix('[').and_then(|value| value.strip_suffix(']')).unwrap_or(&value);
        let address = match bare {
            "host-gateway" => Some(HostAddress::HostGateway),
            _ => bare.parse::<IpAddr>().ok().map(HostAddress::Address),
        };
        let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
        match address {
            Some(address) if is_name => {
                let host = (name, address);
                if !hosts.contains(&host) {
                    hosts.push(host);
                }
            }
            Some(_) => {
                cx.error(codes::INVALID_VALUE, format!("`{}` is not a host name", shorten(&name)), &span);
            }
            None => {
                let message = format!("`{}` is neither an IP address nor `host-gateway`", shorten(&value));
                cx.error(codes::INVALID_VALUE, message, &span);
            }
        }
    }
    hosts
}

/// `dns`.
pub(crate) fn name_servers(cx: &mut Cx<'_>, fields: &Fields<'_>) -> Vec<IpAddr> {
    let servers = cx.texts_of(fields, "dns");
    servers
        .into_iter()
        .filter_map(|text| match text.value.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let message = format!("`{}` is not an IP address", shorten(&text.value));
                cx.error(codes::INVALID_VALUE, message, &text.span);
                None
            }
        })
        .collect()
}

/// A name of a host or domain (RFC 1123).
pub(crate) fn host_name_of(cx: &mut Cx<'_>, fields: &Fields<'_>, key: &str) -> Option<String> {
    let name = cx.name_of(fields, key)?;
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        let node = fields.get(key)?;
        cx.invalid(format!("`{}` is not a host name", shorten(&name)), node);
        return None;
    }
    Some(name)
}
