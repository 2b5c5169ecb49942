//! Images of the pipeline file that services start `from`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use engine::{BuildError, Cancel, Engine, Root};
use events::{EventSink, Verdict};
use pipeline::{Outcome, Plan, RunContext, RunError, RunOptions, ServiceError, Stages};

use super::Owner;
use crate::{
    commands,
    failure::{self, Failure},
    settings,
    solution::{protocol::Up, told::service_failure},
};

/// Builds those that the wanted services are started from, with those that they are built on. An unchanged one costs nothing.
pub(super) async fn build(
    owner: &Owner,
    engine: &dyn Engine,
    plan: &Plan,
    up: &Up,
    events: &EventSink,
    cancel: &Cancel,
) -> Result<BTreeMap<String, Root>, Failure> {
    let names = wanted(plan, up);
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let allowed = settings::locally_allowed(&|name| up.source.env().get(name).map(Into::into));
    let allows = |what: &str| allowed.iter().any(|line| line == what);
    let options = RunOptions {
        stages: Stages::Images,
        images: if plan.images.is_empty() { Vec::new() } else { names.iter().cloned().collect() },
        no_cache: up.no_cache,
        pull: up.pull,
        allow_host_commands: allows(commands::HOST_COMMANDS),
        allow_secret_commands: allows(commands::SECRET_COMMANDS),
        ..RunOptions::default()
    };
    let run = owner.store.new_run().map_err(|error| failure::explain(error.into()))?;
    let cx = RunContext { engine, store: &owner.store, registry: &owner.registry, events, run: &run, cancel };
    let begun = Instant::now();
    let outcome = pipeline::run(cx, plan, &options).await;
    let verdict = match &outcome {
        Ok(outcome) => outcome.verdict,
        Err(_) => Verdict::Skipped,
    };
    let has_log = std::fs::read_dir(run.path.join("log")).is_ok_and(|mut logs| logs.next().is_some());
    if has_log && verdict != Verdict::Passed {
        commands::record_of_up(&run, &plan.name, verdict, begun.elapsed());
    } else {
        // There is nothing to look at later, and runs of the pipeline are not to be crowded out (`keep.runs`).
        fs_err::remove_dir_all(&run.path).map_err(|error| failure::explain(error.into()))?;
    }
    let outcome = outcome.map_err(not_built)?;
    let is_single = plan.images.is_empty();
    let mut built = BTreeMap::new();
    for name in names {
        let part = outcome.parts().find(|part| is_single || part.entry.as_ref() == Some(&name));
        let root = part.and_then(|part| Some(part.image.as_ref()?.built.root.clone()));
        let root = root.ok_or_else(|| failed(&outcome, &name))?;
        built.insert(name, root);
    }
    Ok(built)
}

/// The images of the services that are to come up.
fn wanted(plan: &Plan, up: &Up) -> BTreeSet<String> {
    let services = &plan.services.project.services;
    let all = || services.iter().map(|service| service.name.clone()).collect();
    let names = if up.services.is_empty() { all() } else { up.services.clone() };
    let needed = match up.with_dependencies {
        // Names that nobody has are told of where they are started.
        true => services::needed(services, &names).unwrap_or_default(),
        false => services.iter().filter(|service| names.contains(&service.name)).collect(),
    };
    needed.into_iter().filter_map(|service| service.from.clone()).collect()
}

/// The step that failed: of the image itself, or of one that it is built on.
fn failed(outcome: &Outcome, name: &str) -> Failure {
    let own = outcome.parts().filter(|part| part.entry.as_deref() == Some(name));
    let step = own.chain(outcome.parts()).find_map(|part| {
        let step = part.before_failure.clone().or_else(|| part.build_failure.clone())?;
        Some((part.entry.clone().unwrap_or_else(|| name.to_owned()), step))
    });
    match step {
        Some((image, step)) => {
            service_failure(ServiceError::Image { service: image, source: BuildError::Step(Box::new(step)) })
        }
        None => Failure::refused(format!("image {name} was not built")),
    }
}

fn not_built(error: RunError) -> Failure {
    match error {
        RunError::Cancelled => Failure::cancelled(),
        RunError::Build(error) => failure::build(error, 0),
        RunError::Usage { message, hint: Some(hint) } => Failure::usage(message).hint(hint),
        error => failure::explain(error.into()),
    }
}
