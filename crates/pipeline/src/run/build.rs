//! Asking the engine for the image, and what only the built image knows.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use engine::{BuildContext, BuildError, BuildRequest, Built, DockerfileSource, NamedContext, NetworkMode};
use events::{Event, Verdict};
use oci::{Digest, Platform};

use super::{
    secrets::Secrets,
    words::{self, Stage},
};
use crate::{
    Plan, RunContext, RunError, RunOptions,
    plan::{NAME_DOCKERFILE, NO_DOCKERFILE, OF_RUN},
};

/// The stage's id.
pub(super) const STAGE: &str = "build";

pub(super) async fn build_image(
    cx: RunContext<'_>,
    plan: &Plan,
    options: &RunOptions,
    context: BuildContext,
    secrets: &Secrets,
    bases: &BTreeMap<String, Digest>,
) -> Result<Built, RunError> {
    let stage = Stage::start(cx.events, &plan.stage(STAGE));
    let built = match request(cx, plan, options, context, secrets, bases) {
        Ok(request) => cx.engine.build(request, cx.events).await.map_err(not_cancelled),
        Err(error) => Err(error),
    };
    match built {
        Ok(built) => {
            let size_bytes = known_size(cx, &built);
            cx.events.emit(Event::ImageBuilt {
                id: None,
                size_bytes: size_bytes.unwrap_or(0),
                layers: built.layers.len(),
                steps: built.steps,
                steps_cached: built.steps_cached,
                saved_ms: words::millis(built.saved),
            });
            stage.finish(Verdict::Passed, summary(&built, size_bytes));
            Ok(built)
        }
        Err(error) => {
            let summary = match &error {
                RunError::Build(BuildError::Step(failed)) => format!("exited {}", failed.exit.code),
                error => words::reason(error),
            };
            let verdict = if matches!(error, RunError::Cancelled) { Verdict::Skipped } else { Verdict::Failed };
            stage.finish(verdict, summary);
            Err(error)
        }
    }
}

pub(super) fn not_cancelled(error: BuildError) -> RunError {
    match error {
        BuildError::Cancelled => RunError::Cancelled,
        BuildError::Engine(error) => RunError::Engine(error),
        error => RunError::Build(error),
    }
}

fn summary(built: &Built, size_bytes: Option<u64>) -> String {
    let size = size_bytes.map(|size| words::bytes(size) + ", ").unwrap_or_default();
    format!("{size}{} of {} cached", built.steps_cached, words::count(built.steps as u64, "step"))
}

/// Sum of the layers, if all of them have been measured before (they are while sealing).
fn known_size(cx: RunContext<'_>, built: &Built) -> Option<u64> {
    built.layers.iter().map(|layer| cx.store.snapshot(layer).ok().flatten()?.tar_bytes).sum()
}

fn request(
    cx: RunContext<'_>,
    plan: &Plan,
    options: &RunOptions,
    context: BuildContext,
    secrets: &Secrets,
    bases: &BTreeMap<String, Digest>,
) -> Result<BuildRequest, RunError> {
    let build = &plan.build;
    let text = match (&build.dockerfile_inline, &build.dockerfile_path) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => {
            fs_err::read_to_string(path).map_err(|error| RunError::local("read the Dockerfile", error))?
        }
        (None, None) => {
            let (message, hint) = (NO_DOCKERFILE.to_owned(), Some(NAME_DOCKERFILE.to_owned()));
            return Err(RunError::Usage { message, hint });
        }
    };
    let invalid = |error: String| RunError::Usage { message: error, hint: None };
    let mut build_contexts = BTreeMap::new();
    for (name, text) in &build.additional_contexts {
        let context = match text.strip_prefix(OF_RUN).and_then(|name| bases.get(name)) {
            Some(id) => NamedContext::Stored(id.clone()),
            None => text.parse().map_err(|error: engine::InvalidContext| invalid(error.to_string()))?,
        };
        build_contexts.insert(name.clone(), context);
    }
    let platform = match &build.platform {
        Some(platform) => platform.parse().map_err(|error: oci::InvalidPlatform| invalid(error.to_string()))?,
        None => Platform::host(),
    };
    Ok(BuildRequest {
        stage: plan.stage(STAGE),
        context,
        dockerfile: DockerfileSource { name: build.dockerfile.clone(), path: build.dockerfile_path.clone(), text },
        build_contexts,
        target: build.target.clone(),
        build_args: build.args.clone(),
        labels: build.labels.clone(),
        platform,
        network: match build.network.as_str() {
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            _ => NetworkMode::Default,
        },
        extra_hosts: build.extra_hosts.clone(),
        run: engine::RunSettings { secrets: secrets.of_build(plan), ..engine::RunSettings::default() },
        no_cache: options.no_cache || build.no_cache,
        no_cache_filter: Vec::new(),
        pull: options.pull || build.pull,
        epoch: epoch(plan),
        keep_failed: options.keep_failed.unwrap_or(plan.keep.failed),
        cancel: cx.cancel.clone(),
    })
}

/// `SOURCE_DATE_EPOCH` (reproducible-builds.org), else the commit's time.
pub(super) fn epoch(plan: &Plan) -> Option<SystemTime> {
    let given = plan.values.env.get("SOURCE_DATE_EPOCH").and_then(|text| text.parse().ok());
    let given = given.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    given.or(plan.source.commit_time)
}

/// Limits of the file that the image does not keep, as sentences.
pub(super) fn broken_limits(cx: RunContext<'_>, plan: &Plan, built: &Built, image: &store::Image) -> Vec<String> {
    let layers = plan.limits.layers.filter(|limit| built.layers.len() > *limit);
    let size = plan.limits.size_bytes.filter(|limit| image.size_bytes > *limit);
    let layers = layers.map(|limit| format!("the image has {} layers, the limit is {limit}", built.layers.len()));
    let size = size
        .map(|limit| format!("the image has {}, the limit is {}", words::bytes(image.size_bytes), words::bytes(limit)));
    let above = plan.limits.above_base_bytes.and_then(|limit| {
        let above = above_base_bytes(cx, built, image);
        let words =
            || format!("the image adds {} to its base, the limit is {}", words::bytes(above), words::bytes(limit));
        (above > limit).then(words)
    });
    layers.into_iter().chain(size).chain(above).collect()
}

/// Bytes of the layers above the base of the last stage: the image that this one begins with. Without a base, all of them.
fn above_base_bytes(cx: RunContext<'_>, built: &Built, image: &store::Image) -> u64 {
    let bases = built.bases.iter().filter_map(|(_, id)| cx.store.image(id).ok().flatten());
    let below = bases.filter(|base| !base.layers.is_empty() && image.layers.starts_with(&base.layers));
    let base_bytes = below.map(|base| base.size_bytes).max().unwrap_or(0);
    image.size_bytes.saturating_sub(base_bytes)
}
