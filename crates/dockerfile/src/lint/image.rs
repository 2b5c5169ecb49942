//! Checks of the base images and of the image that comes out.

use super::{Findings, LintInput};
use crate::InstructionKind;
use crate::stages::{Base, Stages};

pub(super) fn check(stages: &Stages<'_>, input: &LintInput<'_>, findings: &mut Findings) {
    base_images(stages, findings);
    finished_image(stages, findings);
    layer_count(stages, input, findings);
}

fn base_images(stages: &Stages<'_>, findings: &mut Findings) {
    for ((stage, base), image) in stages.file.stages.iter().zip(&stages.bases).zip(&stages.images) {
        let Base::Image(name) = base else { continue };
        if let Some(reason) = unpinned(name) {
            findings.add("UnpinnedBase", &stage.base.span, format!("base image `{name}` {reason}"));
        } else if !is_ours(name) && !name.contains('@') {
            let message = format!("base image `{name}` is named by a tag, which its publisher can move");
            findings.add("BaseWithoutDigest", &stage.base.span, message);
        }
        if let Some(image) = image.as_ref().filter(|image| image.platform != image.wanted_platform) {
            let message = format!(
                "base image {name} was pulled with platform \"{}\", expected \"{}\" for current build",
                image.platform, image.wanted_platform
            );
            findings.add("InvalidBaseImagePlatform", &stage.base.span, message);
        }
    }
}

/// Images of this machine have no publisher who could move them.
fn is_ours(image: &str) -> bool {
    image.is_empty() || image.starts_with("localhost/")
}

/// Why an image's name may mean another image tomorrow.
fn unpinned(image: &str) -> Option<&'static str> {
    if is_ours(image) || image.contains('@') {
        return None;
    }
    let last_part = image.rsplit('/').next().unwrap_or(image);
    match last_part.split_once(':') {
        None => Some("has no tag, which means `latest`"),
        Some((_, "latest")) => Some("has the tag `latest`, which moves"),
        Some(_) => None,
    }
}

fn finished_image(stages: &Stages<'_>, findings: &mut Findings) {
    let Some(stage) = stages.chain().first().copied() else { return };
    let user = stages.built().filter_map(|instruction| match &instruction.kind {
        InstructionKind::User(user) => Some(user),
        _ => None,
    });
    let is_root = |user: &str| matches!(user.split(':').next(), Some("root" | "0"));
    let below = stages.built_on();
    match (user.last(), below.and_then(|image| image.user.as_deref())) {
        (Some(user), _) if is_root(&user.raw) => {
            findings.add("RootUser", &user.span, "the image runs as root");
        }
        (None, Some(user)) if is_root(user) => {
            findings.add("RootUser", &stage.base.span, "the image runs as root, as its base does");
        }
        (None, None) => {
            let finding = findings.add("RootUser", &stage.base.span, "the image runs as root: no USER is set");
            if below.is_none() {
                finding.notes.push("unless the base image sets one".to_owned());
            }
        }
        _ => {}
    }
    let has_healthcheck = below.is_some_and(|image| image.has_healthcheck)
        || stages.built().any(|instruction| matches!(instruction.kind, InstructionKind::Healthcheck(_)));
    if !has_healthcheck {
        let message = "the image has no HEALTHCHECK, so nobody can tell whether it works";
        findings.add("MissingHealthcheck", &stage.base.span, message);
    }
}

fn layer_count(stages: &Stages<'_>, input: &LintInput<'_>, findings: &mut Findings) {
    let makes_layer = |kind: &InstructionKind| {
        matches!(
            kind,
            InstructionKind::Run(_) | InstructionKind::Copy(_) | InstructionKind::Add(_) | InstructionKind::Workdir(_)
        )
    };
    let mut layers = stages.built().filter(|instruction| makes_layer(&instruction.kind));
    let Some(one_too_many) = layers.nth(input.layer_limit) else { return };
    let count = input.layer_limit + 1 + layers.count();
    let message = format!("{count} layers without those of the base, at most {} are allowed", input.layer_limit);
    findings.add("TooManyLayers", &one_too_many.span, message);
}
