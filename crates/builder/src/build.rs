//! The story of a build.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dockerfile::{Diagnostic, Dockerfile, InstructionKind, Word};
use engine::{BuildError, BuildRequest, Built, Root};
use events::EventSink;
use oci::Platform;

use crate::{
    base,
    context::Context,
    plan::{Plan, find_target},
    stage::State,
    step::Layers,
    tree,
    variables::Globals,
    work::{Host, Work, invalid, locked},
};

/// Id of a root without any layer.
const EMPTY_ROOT: &str = "empty";

/// Builds the Dockerfile's target. Blocks; nothing of an unchanged build touches a container, a mount or the network.
///
/// # Errors
/// The Dockerfile is wrong, a step failed, a base cannot be had, it was cancelled, or the surroundings failed.
pub fn build(request: &BuildRequest, host: &Host<'_>, events: &EventSink) -> Result<Built, BuildError> {
    let file = dockerfile::parse(&request.dockerfile.text).map_err(|problems| invalid(request, problems))?;
    let plan = plan(request, &file)?;
    let context = Context::open(request)?;
    let epoch = epoch(request, &file, &plan, &context)?;
    let work = Work::new(host, request, &file, &plan, events, &context, epoch);

    let solved = work.solve();
    // What was hashed is worth remembering also when a later step failed.
    context.save(host.store);
    work.save_chains();
    work.remotes.save(host.store);
    let state = solved?;
    host.ensure(&state.layers.layers)?;

    warn_of_unused_args(&work);
    Ok(built(&work, &state))
}

fn plan(request: &BuildRequest, file: &Dockerfile) -> Result<Plan, BuildError> {
    let wrong = |diagnostic: Box<Diagnostic>| invalid(request, vec![*diagnostic]);
    let target = find_target(file, request.target.as_deref()).map_err(wrong)?;
    let target_name = file.stages[target].name.as_ref().map_or("default", |name| name.raw.as_str());
    let globals = Globals::new(
        &file.global_args,
        &request.build_args,
        &Platform::host(),
        &request.platform,
        target_name,
        file.directives.escape,
    )
    .map_err(|(at, error)| {
        let word = file.global_args[at].default.as_ref().unwrap_or(&file.global_args[at].name);
        let message = format!("`{}`: {error}", word.raw);
        invalid(request, vec![Diagnostic::error("ST118", message).with_span(word.span.clone())])
    })?;
    Plan::new(file, request.target.as_deref(), globals, &request.build_contexts).map_err(wrong)
}

/// The time that no file of the image may be newer than: asked for, or that of the newest file that a COPY can reach.
fn epoch(request: &BuildRequest, file: &Dockerfile, plan: &Plan, context: &Context) -> Result<SystemTime, BuildError> {
    if let Some(text) = request.build_args.get("SOURCE_DATE_EPOCH") {
        return match text.parse() {
            Ok(seconds) => Ok(UNIX_EPOCH + Duration::from_secs(seconds)),
            Err(_) => {
                let message = format!("build argument SOURCE_DATE_EPOCH is `{text}`, not a number of seconds");
                Err(invalid(request, vec![Diagnostic::error("ST123", message)]))
            }
        };
    }
    if let Some(epoch) = request.epoch {
        return Ok(epoch);
    }
    let newest = if context.exists() { context.newest(&reachable(file, plan)) } else { None };
    let dockerfile = request.dockerfile.path.as_ref().and_then(|path| path.metadata().ok()?.modified().ok());
    let epoch = newest.max(dockerfile).unwrap_or(UNIX_EPOCH);
    // Tars keep whole seconds.
    Ok(UNIX_EPOCH + Duration::from_secs(epoch.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()))
}

/// Paths of the context below which all sources lie: the parts before the first pattern or variable.
fn reachable(file: &Dockerfile, plan: &Plan) -> Vec<Vec<u8>> {
    let mut paths = BTreeSet::new();
    let mut add = |word: &Word| {
        let is_plain = |part: &&[u8]| !part.iter().any(|byte| b"*?[\\$'\"".contains(byte)) && *part != b"..";
        let plain: Vec<&[u8]> = tree::parts(word.raw.as_bytes()).take_while(is_plain).collect();
        paths.insert(plain.join(&b'/'));
    };
    for at in plan.needed.iter().filter(|at| !plan.stages[**at].is_replaced) {
        for instruction in &file.stages[*at].instructions {
            match &instruction.kind {
                InstructionKind::Copy(copy) | InstructionKind::Add(copy) if copy.from.is_none() => {
                    copy.sources.iter().for_each(&mut add);
                }
                InstructionKind::Run(run) => {
                    for mount in &run.mounts {
                        let value = |key: &str| mount.options.iter().find(|(name, _)| name.raw == key);
                        if mount.kind == dockerfile::MountKind::Bind && value("from").is_none() {
                            match value("source").or_else(|| value("src")) {
                                Some((_, Some(word))) => add(word),
                                _ => add(&Word { raw: String::new(), span: 0..0 }),
                            }
                        }
                    }
                }
                _ => {}
            }
        }
    }
    // What lies below another of them is scanned with it.
    let all: Vec<Vec<u8>> = paths.into_iter().collect();
    let is_below = |path: &[u8], above: &[u8]| {
        path.len() > above.len() && path.starts_with(above) && (above.is_empty() || path[above.len()] == b'/')
    };
    all.iter().filter(|path| !all.iter().any(|above| is_below(path, above))).cloned().collect()
}

fn warn_of_unused_args(work: &Work<'_>) {
    let declared = locked(&work.declared_args);
    let is_global = |name: &str| work.file.global_args.iter().any(|arg| arg.name.raw == name);
    let globals = &work.plan.globals;
    for name in globals.given() {
        if !declared.contains(name) && !globals.is_predefined(name) && !is_global(name) {
            work.warn(format!("build argument `{name}` is declared by no ARG and was not used"), None);
        }
    }
}

fn built(work: &Work<'_>, state: &State) -> Built {
    let mut config = state.config.clone();
    config.config.labels.extend(work.request.labels.clone());
    if state.unpublishable.is_some() {
        base::keep_mark(&mut config);
    }
    config.created = Some(rfc3339(work.epoch));
    // Diff ids come with sealing.
    config.rootfs.diff_ids.clear();
    let (steps, steps_cached, saved) = work.tally.read();
    Built {
        root: Root { id: root_id(&state.layers), config },
        layers: state.layers.layers.clone(),
        epoch: work.epoch,
        steps,
        steps_cached,
        saved,
        bases: locked(&work.bases).clone().into_iter().collect(),
        materials: locked(&work.materials).values().cloned().collect(),
        unpublishable: state.unpublishable.clone(),
    }
}

/// The [`Root`] id of a file system: its top snapshot.
pub(crate) fn root_id(layers: &Layers) -> String {
    layers.top().map_or_else(|| EMPTY_ROOT.to_owned(), ToString::to_string)
}

/// The top snapshot that a [`Root`] id of this crate names; `Ok(None)` is the empty root.
///
/// # Errors
/// The id was made by something else.
pub fn root_snapshot(root: &Root) -> Result<Option<store::SnapshotId>, store::InvalidSnapshotId> {
    if root.id == EMPTY_ROOT { Ok(None) } else { root.id.clone().try_into().map(Some) }
}

/// A [`Root`] made of an image of the store.
pub fn image_root(image: &store::Image) -> Root {
    let id = image.top().map_or_else(|| EMPTY_ROOT.to_owned(), ToString::to_string);
    Root { id, config: image.config.clone() }
}

/// RFC 3339 in UTC with whole seconds, as image configs have it.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let timestamp = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    timestamp.unwrap_or_default().to_string()
}
