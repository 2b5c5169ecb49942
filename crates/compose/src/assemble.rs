//! A whole tree to a [`Project`], and what only the whole shows: names that are not defined, services that wait for
//! themselves.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    At, Attachment, Mount, MountSource, Network, Project, codes,
    load::Loader,
    parse::{
        Cx,
        service::{self, Draft},
        top,
    },
    read::{Keys, shorten},
    yaml::{Kind, Node},
};

/// More make no sense on one machine.
const SERVICES_MAX: usize = 1_000;

/// What a tree is read with.
pub(crate) struct Assembly<'a> {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    pub(crate) files: Vec<PathBuf>,
    /// `*` is all.
    pub(crate) profiles: Vec<String>,
    pub(crate) home: Option<&'a Path>,
    /// The keys of the top level; those of services follow from `own_keys`.
    pub(crate) keys: &'a Keys,
    pub(crate) own_keys: bool,
}

/// The project; diagnostics are added to the loader's.
pub(crate) fn assemble(loader: &mut Loader, tree: &Arc<Node>, assembly: Assembly<'_>) -> Project {
    let mut reader = std::mem::take(&mut loader.reader);
    reader.later_is_warning = true;
    let mut cx = Cx {
        reader,
        sources: &loader.sources,
        confine: loader.confine.as_deref(),
        home: assembly.home,
        own_keys: assembly.own_keys,
        expanded: Cell::new(0),
    };
    let project = project(&mut cx, tree, assembly);
    loader.reader = cx.reader;
    project
}

fn project(cx: &mut Cx<'_>, tree: &Arc<Node>, assembly: Assembly<'_>) -> Project {
    let Some(fields) = cx.fields(tree, assembly.keys, "a map with keys such as `services`") else {
        return Project::default();
    };
    let name = assembly.name;
    let mut networks = top::networks(cx, fields.get("networks"), &name);
    let volumes = top::volumes(cx, fields.get("volumes"), &name);
    let configs = top::files(cx, fields.get("configs"), &name, &top::CONFIG);
    let secrets = top::files(cx, fields.get("secrets"), &name, &top::SECRET);

    let (mut active, mut inactive) = (Vec::new(), Vec::new());
    for draft in drafts(cx, fields.get("services")) {
        let service = &draft.service;
        let chosen = |profile: &String| service.profiles.contains(profile) || profile == "*";
        if service.profiles.is_empty() || assembly.profiles.iter().any(chosen) {
            active.push(draft);
        } else {
            inactive.push(draft);
        }
    }
    check_dependencies(cx, &mut active, &inactive);
    share_volumes(cx, &mut active);
    for draft in &mut active {
        if draft.service.network_mode.is_none() && draft.service.networks.is_empty() {
            draft.service.networks.push(Attachment { network: "default".into(), ..Attachment::default() });
            let network = || Network { name: format!("{name}_default"), ..Network::default() };
            networks.entry("default".into()).or_insert_with(|| At::new(network(), draft.name.span.clone()));
        }
        if draft.networks.iter().any(|network| network.value == "default") && !networks.contains_key("default") {
            let network = Network { name: format!("{name}_default"), ..Network::default() };
            networks.insert("default".into(), At::new(network, draft.name.span.clone()));
        }
        check_resources(cx, draft, &networks, &volumes, &configs, &secrets);
    }
    check_container_names(cx, &active);

    Project {
        name,
        directory: assembly.directory,
        files: assembly.files,
        services: active.into_iter().map(|draft| draft.service).collect(),
        inactive: inactive.into_iter().map(|draft| draft.service).collect(),
        networks: values(networks),
        volumes: values(volumes),
        configs: values(configs),
        secrets: values(secrets),
    }
}

fn values<T>(named: top::Named<T>) -> BTreeMap<String, T> {
    named.into_iter().map(|(name, value)| (name, value.value)).collect()
}

fn drafts(cx: &mut Cx<'_>, node: Option<&Arc<Node>>) -> Vec<Draft> {
    let Some(node) = node else { return Vec::new() };
    let entries = cx.reader.entries(node, "a map from names to services");
    if entries.len() > SERVICES_MAX {
        cx.error(codes::TOO_LARGE, format!("more than {SERVICES_MAX} services"), &node.span);
        return Vec::new();
    }
    entries
        .into_iter()
        .filter_map(|(name, node)| {
            // `db:` with nothing is a service without an image, not one less.
            let empty = Arc::new(Node::new(Kind::Map(Vec::new()), name.span.clone()));
            let node = if matches!(node.kind, Kind::Null) { &empty } else { node };
            service::service(cx, &name, node)
        })
        .collect()
}

/// The place in a service at which it names another one.
fn place_of(draft: &Draft, key: &str, name: &str) -> dockerfile::Span {
    let named = draft.node.get(key).and_then(|node| match &node.kind {
        Kind::Map(entries) => entries.iter().find(|entry| entry.key == name).map(|entry| entry.key_span.clone()),
        Kind::List(items) => {
            let is_it = |item: &&Arc<Node>| item.scalar().is_some_and(|text| text.split(':').next() == Some(name));
            items.iter().find(is_it).map(|item| item.span.clone())
        }
        _ => Some(node.span.clone()),
    });
    named.unwrap_or_else(|| draft.name.span.clone())
}

fn place_of_dependency(draft: &Draft, name: &str) -> dockerfile::Span {
    let keys = ["depends_on", "links", "volumes_from", "network_mode"];
    let places = keys.iter().map(|key| place_of(draft, key, name));
    places.into_iter().find(|span| *span != draft.name.span).unwrap_or_else(|| draft.name.span.clone())
}

/// Every dependency is there; those that need not be are dropped where they are not.
fn check_dependencies(cx: &mut Cx<'_>, active: &mut [Draft], inactive: &[Draft]) {
    let names: BTreeSet<String> = active.iter().map(|draft| draft.service.name.clone()).collect();
    for draft in active.iter_mut() {
        draft.service.depends_on.retain(|dependency| dependency.required || names.contains(&dependency.service));
    }
    for draft in active.iter() {
        for dependency in draft.service.depends_on.iter().filter(|dependency| !names.contains(&dependency.service)) {
            let span = place_of_dependency(draft, &dependency.service);
            let name = shorten(&dependency.service);
            if let Some(other) = inactive.iter().find(|other| other.service.name == dependency.service) {
                let profiles = other.service.profiles.join("`, `");
                let message = format!("service `{name}` belongs to the profile `{profiles}`, which is not active");
                cx.error(codes::UNKNOWN_SERVICE, message, &span);
                continue;
            }
            let near = dockerfile::nearest(&dependency.service, names.iter().map(String::as_str));
            let label = near.map(|near| format!("did you mean `{near}`?"));
            cx.error(codes::UNKNOWN_SERVICE, format!("service `{name}` does not exist"), &span).label = label;
        }
    }
    check_cycles(cx, active);
}

/// Walks dependencies in depth; a service that is met again on the way waits for itself.
fn check_cycles(cx: &mut Cx<'_>, drafts: &[Draft]) {
    let index: BTreeMap<&str, usize> =
        drafts.iter().enumerate().map(|(at, draft)| (draft.service.name.as_str(), at)).collect();
    let mut done = vec![false; drafts.len()];
    for start in 0..drafts.len() {
        // The way from `start`, with the next dependency to look at for each service on it.
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((at, next)) = way.last().copied() {
            let dependency = drafts[at].service.depends_on.get(next);
            let (Some(dependency), false) = (dependency, done[at]) else {
                done[at] = true;
                way.pop();
                continue;
            };
            if let Some(last) = way.last_mut() {
                last.1 += 1;
            }
            let Some(&other) = index.get(dependency.service.as_str()) else { continue };
            if let Some(first) = way.iter().position(|(on_way, _)| *on_way == other) {
                let mut names: Vec<String> =
                    way[first..].iter().map(|(at, _)| shorten(&drafts[*at].service.name)).collect();
                names.push(shorten(&dependency.service));
                let span = place_of_dependency(&drafts[at], &dependency.service);
                let message = format!("service `{}` waits for itself: {}", names[0], names.join(" → "));
                cx.error(codes::CYCLE, message, &span);
            } else if !done[other] {
                way.push((other, 0));
            }
        }
    }
}

/// `volumes_from`: the mounts of another service, where this one has nothing at the target.
fn share_volumes(cx: &mut Cx<'_>, drafts: &mut [Draft]) {
    /// A chain of services that take each other's mounts is short.
    const ROUNDS: usize = 8;
    for _ in 0..ROUNDS {
        let mounts: BTreeMap<String, Vec<Mount>> =
            drafts.iter().map(|draft| (draft.service.name.clone(), draft.service.mounts.clone())).collect();
        for draft in drafts.iter_mut() {
            for from in &draft.volumes_from {
                let mut parts = from.value.split(':');
                let Some(theirs) = parts.next().and_then(|name| mounts.get(name)) else { continue };
                let read_only = parts.next() == Some("ro");
                for mount in theirs {
                    if !draft.service.mounts.iter().any(|own| own.target == mount.target) {
                        let mount = Mount { read_only: mount.read_only || read_only, ..mount.clone() };
                        draft.service.mounts.push(mount);
                    }
                }
            }
        }
    }
    for draft in drafts.iter() {
        for from in &draft.volumes_from {
            if from.value.starts_with("container:") {
                cx.no_effect("volumes of containers outside of the project have no effect here", &from.span);
            }
        }
    }
}

fn check_resources(
    cx: &mut Cx<'_>,
    draft: &Draft,
    networks: &top::Named<Network>,
    volumes: &top::Named<crate::Volume>,
    configs: &top::Named<crate::FileSource>,
    secrets: &top::Named<crate::FileSource>,
) {
    let mut used: Vec<(&str, &str, At<String>, Vec<&str>)> = Vec::new();
    for network in &draft.networks {
        used.push(("network", "networks", network.clone(), keys(networks)));
    }
    check_addresses(cx, draft, networks);
    let volume_nodes = draft.node.get("volumes").map(|node| match &node.kind {
        Kind::List(items) => items.clone(),
        _ => Vec::new(),
    });
    for mount in &draft.service.mounts {
        if let MountSource::Volume { name, .. } = &mount.source {
            let is_it = |item: &&Arc<Node>| {
                item.get("source").unwrap_or(item).scalar().is_some_and(|text| text.split(':').next() == Some(name))
            };
            let node = volume_nodes.iter().flatten().find(is_it);
            let span = node.map_or_else(|| draft.name.span.clone(), |node| node.span.clone());
            used.push(("volume", "volumes", At::new(name.clone(), span), keys(volumes)));
        }
    }
    let build_secrets = draft.service.build.iter().flat_map(|build| &build.secrets);
    for (grants, kind, section, known) in [
        (draft.service.configs.iter().collect::<Vec<_>>(), "config", "configs", keys(configs)),
        (draft.service.secrets.iter().chain(build_secrets).collect(), "secret", "secrets", keys(secrets)),
    ] {
        for grant in grants {
            let is_it = |item: &&Arc<Node>| item.get("source").unwrap_or(item).scalar() == Some(&grant.source);
            let node = draft.node.get(section).and_then(|node| match &node.kind {
                Kind::List(items) => items.iter().find(is_it).cloned(),
                _ => None,
            });
            let span = node.map_or_else(|| draft.name.span.clone(), |node| node.span.clone());
            used.push((kind, section, At::new(grant.source.clone(), span), known.clone()));
        }
    }
    for (kind, section, name, known) in used {
        if known.contains(&name.value.as_str()) {
            continue;
        }
        let near =
            dockerfile::nearest(&name.value, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        let message = format!("{kind} `{}` is not defined", shorten(&name.value));
        let diagnostic = cx.error(codes::UNKNOWN_RESOURCE, message, &name.span);
        diagnostic.label = near;
        diagnostic.help = Some(format!("define it: `{section}: {{{}: …}}`", shorten(&name.value)));
    }
}

/// A fixed address lies in the range that its network has, as docker wants it.
fn check_addresses(cx: &mut Cx<'_>, draft: &Draft, networks: &top::Named<Network>) {
    for joined in &draft.service.networks {
        let (Some(address), Some(network)) = (joined.ipv4, networks.get(&joined.network)) else { continue };
        let node = draft.node.get("networks").and_then(|node| node.get(&joined.network)?.get("ipv4_address"));
        let span = node.map_or_else(|| draft.name.span.clone(), |node| node.span.clone());
        let name = shorten(&joined.network);
        let network = &network.value;
        match network.subnets.iter().find(|subnet| subnet.ipv4().is_some()) {
            // What this network's addresses are is warned of where it is defined.
            _ if network.external => {}
            None => {
                let message = format!("network `{name}` has no range of addresses that {address} could lie in");
                cx.error(codes::CONTRADICTION, message, &span).help = Some(format!(
                    "give it one: `networks: {{{name}: {{ipam: {{config: [{{subnet: {address}/24}}]}}}}}}`"
                ));
            }
            Some(subnet) if !subnet.contains(address) => {
                let range = subnet.subnet.as_deref().unwrap_or_default();
                let message = format!("{address} does not lie in {range}, the range of network `{name}`");
                cx.error(codes::CONTRADICTION, message, &span);
            }
            Some(subnet) if subnet.gateway == Some(IpAddr::V4(address)) => {
                let message = format!("{address} is the gateway of network `{name}`");
                cx.error(codes::CONTRADICTION, message, &span);
            }
            Some(_) => {}
        }
    }
}

fn keys<T>(named: &top::Named<T>) -> Vec<&str> {
    named.keys().map(String::as_str).collect()
}

fn check_container_names(cx: &mut Cx<'_>, drafts: &[Draft]) {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for draft in drafts {
        let Some(name) = &draft.service.container_name else { continue };
        if let Some(other) = seen.insert(name, &draft.service.name) {
            let span = draft.node.get("container_name").map_or(draft.name.span.clone(), |node| node.span.clone());
            let message = format!("service `{}` has the same `container_name`", shorten(other));
            cx.error(codes::CONTRADICTION, message, &span);
        }
    }
}
