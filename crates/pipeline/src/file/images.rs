//! The `images` section: several images of one repository, each with the keys of the file itself.

use std::sync::Arc;

use oci::Reference;

use super::{
    At, Bounds, Build, Health, ImageEntry, Limits, Pairs, PipelineFile, Publish, Test, before, gates,
    read::{Keys, Reader, TopLevel, shorten},
    sections, version,
    yaml::{Kind, Node},
};
use crate::codes;

pub(super) const IMAGE: Keys = Keys {
    what: "an image",
    known: &["image", "before", "build", "version", "test", "health", "publish", "limits"],
    later: &[],
    foreign: &[
        ("name", "image"),
        ("tests", "test"),
        ("gates", "test"),
        ("healthcheck", "health"),
        ("push", "publish"),
        ("tags", "publish"),
        ("context", "build"),
        ("dockerfile", "build"),
        ("labels", "build"),
    ],
};

/// Keys of the file that all images share.
const SHARED: TopLevel =
    TopLevel { keys: &["secrets", "keep", "include", "services", "networks", "volumes", "configs"], by: "images" };
/// The name is a part of the image's name and of its stages' files.
const NAME_LENGTH_MAX: usize = 64;
/// Each has a build of its own at the same time.
const IMAGES_MAX: usize = 100;

pub(super) fn images(reader: &mut Reader, node: &Node) -> Vec<(At<String>, ImageEntry)> {
    let entries = reader.entries(node, "a map from names to images");
    if entries.len() > IMAGES_MAX {
        reader.error(codes::TOO_LARGE, format!("more than {IMAGES_MAX} images"), &node.span);
        return Vec::new();
    }
    if entries.is_empty() && matches!(node.kind, Kind::Map(_)) {
        reader.error(codes::MISSING_KEY, "`images` names no image", &node.span);
    }
    let mut images = Vec::new();
    for (name, node) in entries {
        check_name(reader, &name);
        images.extend(image(reader, node).map(|image| (name, image)));
    }
    images
}

/// As a part of an image's name (distribution-spec, "Pulling manifests").
fn check_name(reader: &mut Reader, name: &At<String>) {
    let is_part = !name.value.contains(['/', ':', '@']) && name.value.parse::<Reference>().is_ok();
    if !is_part || name.value.len() > NAME_LENGTH_MAX {
        let message = format!(
            "`{}` is no name of an image: it has lower-case letters, digits, `-`, `_` and `.`, {NAME_LENGTH_MAX} at most",
            shorten(&name.value)
        );
        reader.error(codes::INVALID_VALUE, message, &name.span);
    }
}

fn image(reader: &mut Reader, node: &Arc<Node>) -> Option<ImageEntry> {
    match &node.kind {
        Kind::Null => return Some(ImageEntry::default()),
        Kind::Scalar { .. } => {
            return Some(ImageEntry { build: sections::build(reader, node), ..ImageEntry::default() });
        }
        _ => {}
    }
    let fields =
        reader.fields_of_one(node, &IMAGE, Some(&SHARED), "a directory, or a map with keys such as `build`")?;
    Some(ImageEntry {
        image: sections::text(reader, &fields, "image"),
        before: fields.get("before").map(|node| before::before(reader, node)).unwrap_or_default(),
        build: fields.get("build").and_then(|node| sections::build(reader, node)),
        version: fields.get("version").and_then(|node| version::version(reader, node)),
        test: fields.get("test").and_then(|node| gates::test(reader, node)),
        health: fields.get("health").and_then(|node| sections::health(reader, node)),
        publish: fields.get("publish").and_then(|node| sections::publish(reader, node)),
        limits: fields.get("limits").and_then(|node| sections::limits(reader, node)),
    })
}

impl PipelineFile {
    /// The file as one image sees it: what its entry does not say is taken from the top level. Maps are filled up key by key,
    /// `environment`, `args` and the like name by name; lists are replaced. Gates of the top level are no image's own.
    pub(crate) fn of_image(&self, entry: &ImageEntry) -> PipelineFile {
        PipelineFile {
            image: entry.image.clone().or_else(|| self.image.clone()),
            before: list(&entry.before, &self.before),
            build: merged(&entry.build, &self.build, build),
            version: entry.version.clone().or_else(|| self.version.clone()),
            // Who has no tests of its own needs no defaults for them.
            test: entry.test.as_ref().map(|own| match &self.test {
                Some(shared) => test(own, shared),
                None => own.clone(),
            }),
            health: merged(&entry.health, &self.health, health),
            publish: merged(&entry.publish, &self.publish, publish),
            limits: merged(&entry.limits, &self.limits, limits),
            images: Vec::new(),
            ..self.clone()
        }
    }
}

fn merged<T: Clone>(own: &Option<T>, shared: &Option<T>, merge: fn(&T, &T) -> T) -> Option<T> {
    match (own, shared) {
        (Some(own), Some(shared)) => Some(merge(own, shared)),
        (own, shared) => own.clone().or_else(|| shared.clone()),
    }
}

fn list<T: Clone>(own: &[T], shared: &[T]) -> Vec<T> {
    if own.is_empty() { shared.to_vec() } else { own.to_vec() }
}

/// Names of both; the image's own value counts.
fn pairs(own: &Pairs, shared: &Pairs) -> Pairs {
    let is_own = |name: &At<String>| own.iter().any(|(known, _)| known.value == name.value);
    shared.iter().filter(|(name, _)| !is_own(name)).chain(own).cloned().collect()
}

fn build(own: &Build, shared: &Build) -> Build {
    // Both say what the Dockerfile is.
    let has_dockerfile = own.dockerfile.is_some() || own.dockerfile_inline.is_some();
    let shared_dockerfile = if has_dockerfile { &Build::default() } else { shared };
    Build {
        context: own.context.clone().or_else(|| shared.context.clone()),
        dockerfile: own.dockerfile.clone().or_else(|| shared_dockerfile.dockerfile.clone()),
        dockerfile_inline: own.dockerfile_inline.clone().or_else(|| shared_dockerfile.dockerfile_inline.clone()),
        target: own.target.clone().or_else(|| shared.target.clone()),
        args: pairs(&own.args, &shared.args),
        labels: pairs(&own.labels, &shared.labels),
        additional_contexts: pairs(&own.additional_contexts, &shared.additional_contexts),
        network: own.network.clone().or_else(|| shared.network.clone()),
        platform: own.platform.clone().or_else(|| shared.platform.clone()),
        extra_hosts: pairs(&own.extra_hosts, &shared.extra_hosts),
        secrets: list(&own.secrets, &shared.secrets),
        no_cache: own.no_cache || shared.no_cache,
        pull: own.pull || shared.pull,
        oci_labels: own.oci_labels || shared.oci_labels,
    }
}

fn test(own: &Test, shared: &Test) -> Test {
    let uses = if own.uses.services.is_empty() && own.uses.links.is_empty() { &shared.uses } else { &own.uses };
    Test {
        workdir: own.workdir.clone().or_else(|| shared.workdir.clone()),
        user: own.user.clone().or_else(|| shared.user.clone()),
        environment: pairs(&own.environment, &shared.environment),
        entrypoint: own.entrypoint.clone().or_else(|| shared.entrypoint.clone()),
        mounts: list(&own.mounts, &shared.mounts),
        setup: list(&own.setup, &shared.setup),
        gates: own.gates.clone(),
        timeout: own.timeout.or(shared.timeout),
        retries: own.retries.or(shared.retries),
        bounds: bounds(&own.bounds, &shared.bounds),
        uses: uses.clone(),
    }
}

fn bounds(own: &Bounds, shared: &Bounds) -> Bounds {
    Bounds {
        mem_limit: own.mem_limit.or(shared.mem_limit),
        cpus: own.cpus.or(shared.cpus),
        pids_limit: own.pids_limit.or(shared.pids_limit),
        shm_size: own.shm_size.or(shared.shm_size),
        tmpfs: list(&own.tmpfs, &shared.tmpfs),
        ulimits: list(&own.ulimits, &shared.ulimits),
        network: own.network.clone().or_else(|| shared.network.clone()),
        secrets: list(&own.secrets, &shared.secrets),
    }
}

fn health(own: &Health, shared: &Health) -> Health {
    Health {
        span: own.span.clone(),
        off: own.off,
        interval: own.interval.or(shared.interval),
        attempts: own.attempts.or(shared.attempts),
        timeout: own.timeout.or(shared.timeout),
        start_period: own.start_period.or(shared.start_period),
        command: own.command.clone().or_else(|| shared.command.clone()),
        prove: own.prove || shared.prove,
        stop_grace_period: own.stop_grace_period.or(shared.stop_grace_period),
        environment: pairs(&own.environment, &shared.environment),
        uses: if own.uses.services.is_empty() && own.uses.links.is_empty() {
            shared.uses.clone()
        } else {
            own.uses.clone()
        },
    }
}

fn publish(own: &Publish, shared: &Publish) -> Publish {
    Publish {
        off: own.off,
        to: list(&own.to, &shared.to),
        when: list(&own.when, &shared.when),
        tags: own.tags.clone().or_else(|| shared.tags.clone()),
        flavor: own.flavor.clone().or_else(|| shared.flavor.clone()),
        git_tag: own.git_tag.clone().or_else(|| shared.git_tag.clone()),
        files: list(&own.files, &shared.files),
        sign: own.sign.clone().or_else(|| shared.sign.clone()),
    }
}

fn limits(own: &Limits, shared: &Limits) -> Limits {
    Limits {
        layers: own.layers.or(shared.layers),
        size: own.size.or(shared.size),
        above_base: own.above_base.or(shared.above_base),
    }
}
