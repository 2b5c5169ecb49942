//! `build`.

use std::{collections::BTreeMap, sync::Arc};

use dockerfile::Span;
use oci::{Platform, Reference};

use crate::{
    At, Build, codes,
    merge::pairs,
    parse::{Cx, mounts, networks},
    read::{Keys, shorten},
    yaml::{Kind, Node},
};

pub(crate) const BUILD: Keys = Keys {
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
        "extra_hosts",
        "no_cache",
        "pull",
        "tags",
        "platforms",
        "secrets",
    ],
    later: &[
        "cache_from",
        "cache_to",
        "entitlements",
        "isolation",
        "no_cache_filter",
        "privileged",
        "provenance",
        "sbom",
        "shm_size",
        "ssh",
        "ulimits",
    ],
    foreign: &[
        ("file", "dockerfile"),
        ("containerfile", "dockerfile"),
        ("build_args", "args"),
        ("path", "context"),
        ("stage", "target"),
        ("platform", "platforms"),
    ],
};

pub(crate) fn build(cx: &mut Cx<'_>, node: &Arc<Node>) -> Option<Build> {
    if matches!(node.kind, Kind::Scalar { .. }) {
        return Some(Build { context: context(cx, node)?, ..Build::default() });
    }
    let fields = cx.fields(node, &BUILD, "a directory, or a map with keys such as `context`")?;
    let build = Build {
        context: match fields.get("context") {
            Some(node) => context(cx, node)?,
            None => cx.host_path(".", &node.span)?.display().to_string(),
        },
        dockerfile: cx.name_of(&fields, "dockerfile"),
        dockerfile_inline: cx.name_of(&fields, "dockerfile_inline"),
        target: cx.name_of(&fields, "target"),
        args: cx.environment_of(&fields, "args"),
        labels: cx.labels_of(&fields, "labels"),
        additional_contexts: fields.get("additional_contexts").map(|n| contexts(cx, n)).unwrap_or_default(),
        network: cx.name_of(&fields, "network"),
        extra_hosts: fields.get("extra_hosts").map(|node| networks::extra_hosts(cx, node)).unwrap_or_default(),
        no_cache: cx.flag_of(&fields, "no_cache"),
        pull: cx.flag_of(&fields, "pull"),
        tags: cx.texts_of(&fields, "tags").into_iter().filter_map(|tag| tag_name(cx, &tag)).collect(),
        platforms: cx.texts_of(&fields, "platforms").into_iter().filter_map(|text| platform(cx, &text)).collect(),
        secrets: fields.get("secrets").map(|node| mounts::grants(cx, node, "")).unwrap_or_default(),
    };
    if let (Some(inline), Some(_)) = (fields.get("dockerfile_inline"), &build.dockerfile) {
        let message = "`dockerfile` and `dockerfile_inline` exclude each other";
        cx.error(codes::CONTRADICTION, message, &inline.span);
    }
    if let Some((span, _)) = fields.entry("tags").filter(|_| !build.tags.is_empty()) {
        cx.no_effect("`tags` has no effect here: the image has the name that `image` says", span);
    }
    if let Some((span, _)) = fields.entry("platforms").filter(|_| build.platforms.len() > 1) {
        cx.no_effect("`platforms` has no effect here but for its first one: a service runs on one platform", span);
    }
    if let Some(node) = fields.get("network") {
        cx.word(node, "a network of a build", &[("default", ()), ("none", ()), ("host", ())]);
    }
    Some(build)
}

/// A directory, absolute; or what is elsewhere, as written.
fn context(cx: &mut Cx<'_>, node: &Node) -> Option<String> {
    let text = cx.text(node)?;
    directory(cx, &text, &node.span)
}

fn directory(cx: &mut Cx<'_>, text: &str, span: &Span) -> Option<String> {
    if is_elsewhere(text) {
        return Some(text.to_owned());
    }
    cx.host_path(text, span).map(|path| path.display().to_string())
}

/// As docker tells Git repositories and URLs from directories.
fn is_elsewhere(text: &str) -> bool {
    text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/")
}

fn contexts(cx: &mut Cx<'_>, node: &Arc<Node>) -> BTreeMap<String, String> {
    let mut contexts = BTreeMap::new();
    for (name, value) in cx.reader.pairs(&pairs(node)) {
        let Some(value) = value else {
            cx.error(codes::MISSING_KEY, format!("the context `{}` has no value", shorten(&name.value)), &name.span);
            continue;
        };
        let elsewhere = value.value.starts_with("service:");
        let context = if elsewhere { Some(value.value) } else { directory(cx, &value.value, &value.span) };
        contexts.extend(context.map(|context| (name.value, context)));
    }
    contexts
}

fn tag_name(cx: &mut Cx<'_>, text: &At<String>) -> Option<Reference> {
    match text.value.parse() {
        Ok(reference) => Some(reference),
        Err(error) => {
            let error: oci::InvalidReference = error;
            cx.error(codes::INVALID_VALUE, error.to_string(), &text.span);
            None
        }
    }
}

pub(crate) fn platform(cx: &mut Cx<'_>, text: &At<String>) -> Option<Platform> {
    match text.value.parse() {
        Ok(platform) => Some(platform),
        Err(error) => {
            let error: oci::InvalidPlatform = error;
            cx.error(codes::INVALID_VALUE, error.to_string(), &text.span);
            None
        }
    }
}
