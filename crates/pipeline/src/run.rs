//! The story of a run: build, gates and health side by side with sealing and upload, verdict, tags, push.

mod before;
mod build;
mod checks;
mod elsewhere;
mod evidence;
mod files;
mod gate;
mod git_tag;
mod health;
mod image;
mod images;
mod locate;
mod log;
mod names;
mod number;
mod publish;
mod record;
mod reports;
mod secrets;
mod selection;
mod services;
mod several;
mod siblings;
mod verdicts;
mod version;
mod words;

use std::{collections::BTreeMap, time::Instant};

use engine::{Built, FailedStep, Scope};
use events::{Event, EventSink, RunId, Verdict};
use futures::FutureExt as _;
use tokio::sync::Semaphore;

pub use evidence::{git_ref, public_url, resource_of};
pub use files::STAGE as FILES_STAGE;
pub use number::is_claim_tag;
pub use record::{StageRecord, has_passed, stage_record};
pub use reports::matching as report_files;
pub use secrets::known_secrets;
pub use verdicts::NAMESPACE as GATE_VERDICTS;
pub(crate) use words::FILE_NAME_BYTES_MAX;
pub use words::{file_name, name_in_image};

use crate::{GateOutcome, HealthOutcome, Outcome, Plan, RunContext, RunError, RunOptions, TriedImage};
use images::Images;
use publish::{Intention, Sealed};
use selection::Course;
use siblings::Siblings;

/// Does what the plan says, as far as the options ask for it. Everything that was started has ended when this returns,
/// on every path.
///
/// # Errors
/// We could not find out: see [`RunError`]. A failing step, gate or health check is an [`Outcome`].
pub async fn run(cx: RunContext<'_>, plan: &Plan, options: &RunOptions) -> Result<Outcome, RunError> {
    let course = Course::of(plan, options)?;
    course.check_rights(options)?;
    course.check_services(plan)?;
    let started = Instant::now();
    announce(cx, plan, options, &course);
    let result = match cx.engine.open_scope(RunId(cx.run.number)).await {
        Ok(mut scope) => {
            let outcome = trial(cx, plan, options, &course, &*scope).await;
            let closed = scope.close().await;
            match (outcome, closed) {
                (Ok(outcome), Ok(())) => Ok(outcome),
                (Ok(_), Err(cleanup)) => Err(RunError::Cleanup(cleanup)),
                (Err(error), Ok(())) => Err(error),
                (Err(error), Err(cleanup)) => Err(error.with_cleanup(cleanup)),
            }
        }
        Err(error) => Err(RunError::Engine(error)),
    };
    let result = result.map(|outcome| Outcome { duration: started.elapsed(), ..outcome });
    let verdict = match &result {
        Ok(outcome) => outcome.verdict,
        Err(error) if error.is_verdict() => Verdict::Failed,
        Err(_) => Verdict::Skipped,
    };
    cx.events.emit(Event::RunFinished { verdict, duration_ms: words::millis(started.elapsed()) });
    result
}

/// What all parts of a run share.
#[derive(Clone, Copy)]
struct Run<'a> {
    cx: RunContext<'a>,
    /// The plan of the file; of a single image that image's.
    whole: &'a Plan,
    options: &'a RunOptions,
    course: &'a Course<'a>,
    scope: &'a dyn Scope,
    siblings: &'a Siblings,
    images: &'a Images<'a>,
    /// One for each gate that may run at the same time.
    permits: &'a Semaphore,
}

impl<'a> Run<'a> {
    fn heard_by(self, events: &'a EventSink) -> Run<'a> {
        Run { cx: RunContext { events, ..self.cx }, ..self }
    }
}

/// The story itself. The scope is the caller's, who closes it whatever happens here.
async fn trial(
    cx: RunContext<'_>,
    plan: &Plan,
    options: &RunOptions,
    course: &Course<'_>,
    scope: &dyn Scope,
) -> Result<Outcome, RunError> {
    let siblings = Siblings::new(course.parts.iter().map(|part| part.plan.name.as_str()));
    let (images, permits) = (Images::new(cx, options.pull, &siblings), Semaphore::new(checks::jobs(options)));
    let (siblings, images, permits) = (&siblings, &images, &permits);
    let run = Run { cx, whole: plan, options, course, scope, siblings, images, permits };
    // Boxed: the whole story as one type would be too deep for the compiler.
    let [part] = course.parts.as_slice() else { return several::trial(run).boxed().await };
    if part.plan.entry.is_some() {
        return several::trial(run).boxed().await;
    }
    let image::Tried { outcome, ready } = image::attempt(run, part, &BTreeMap::new()).boxed().await?;
    match ready {
        Some(ready) => {
            let names = ready.names(run, plan).await?;
            image::give_names(run, plan, outcome, &ready, names, &[]).await
        }
        None => Ok(outcome),
    }
}

fn announce(cx: RunContext<'_>, plan: &Plan, options: &RunOptions, course: &Course<'_>) {
    let mut stages: Vec<String> = Vec::new();
    for selection::Part { plan, work } in &course.parts {
        let before = (!plan.before.is_empty()).then_some(before::STAGE);
        let setup = work.has_setup(plan).then_some(checks::SETUP_STAGE);
        let first = before.into_iter().chain([build::STAGE]).chain(setup);
        let health = (work.health && plan.health.enabled).then_some(health::STAGE);
        let publishes = options.publish && plan.publish.is_some() && work.names;
        let last = health.into_iter().chain(publishes.then_some(publish::STAGE));
        let files = if publishes { files::stages(plan) } else { Vec::new() };
        stages.extend(first.map(|stage| plan.stage(stage)));
        stages.extend(work.gates.iter().map(|gate| gate.name.clone()));
        stages.extend(files);
        stages.extend(last.map(|stage| plan.stage(stage)));
    }
    stages.extend(course.whole.gates.iter().map(|gate| gate.name.clone()));
    cx.events.emit(Event::RunStarted {
        run: RunId(cx.run.number),
        name: plan.name.clone(),
        commit: plan.source.short.clone(),
        branch: plan.source.branch.clone().or_else(|| plan.source.tag.clone()),
        stages,
    });
    if options.publish && plan.parts().any(|part| part.publish.is_some()) && plan.source.is_dirty {
        let commit = plan.source.short.as_deref().unwrap_or_default();
        let message = format!("the working tree has changes: what is published is not what commit {commit} holds");
        cx.events.emit(Event::Warning { message, place: None });
    }
    for message in &plan.source.warnings {
        cx.events.emit(Event::Warning { message: message.clone(), place: None });
    }
}

impl Outcome {
    fn new(cx: RunContext<'_>, plan: &Plan) -> Outcome {
        Outcome {
            run: RunId(cx.run.number),
            name: plan.name.clone(),
            entry: plan.entry.clone(),
            images: Vec::new(),
            source: plan.source.clone(),
            verdict: Verdict::Passed,
            skipped: None,
            image: None,
            before_failure: None,
            build_failure: None,
            setup_failure: None,
            gates: Vec::new(),
            health: None,
            services: Vec::new(),
            broken_limits: Vec::new(),
            tagged: Vec::new(),
            publish_tags: Vec::new(),
            published: Vec::new(),
            evidence: None,
            files: Vec::new(),
            files_failure: None,
            not_published: None,
            publish_refused: false,
            skipped_tags: Vec::new(),
            kept_tags: Vec::new(),
            foreseen: Vec::new(),
            git_tag: None,
            tests: None,
            coverage: None,
            findings: None,
            slowest: Vec::new(),
            stages: Vec::new(),
            duration: std::time::Duration::ZERO,
        }
    }

    fn before_failed(self, failed: FailedStep) -> Outcome {
        Outcome { verdict: Verdict::Failed, before_failure: Some(failed), ..self }
    }

    fn build_failed(self, failed: FailedStep) -> Outcome {
        Outcome { verdict: Verdict::Failed, build_failure: Some(failed), ..self }
    }

    fn checked(mut self, plan: &Plan, checked: checks::Checked) -> Outcome {
        let verdict = checked.verdict();
        let gates = &checked.gates;
        let tests = gates.iter().filter_map(|gate| gate.tests).reduce(|sum, one| sum + one);
        let coverage = gates.iter().filter_map(|gate| gate.coverage).reduce(|sum, one| sum + one);
        let findings = gates.iter().filter_map(|gate| gate.findings).reduce(|sum, one| sum + one);
        let slowest = slowest(plan, &checked.gates, checked.health.as_ref());
        let gates = checked.gates.iter().filter(|gate| gate.verdict != Verdict::Skipped);
        let health = checked.health.iter().filter(|health| health.verdict != Verdict::Skipped);
        self.stages.extend(checked.setup.map(|duration| (plan.stage(checks::SETUP_STAGE), duration)));
        self.stages.extend(gates.map(|gate| (gate.gate.clone(), gate.duration)));
        self.stages.extend(health.map(|health| (plan.stage(health::STAGE), health.duration)));
        Outcome {
            verdict,
            setup_failure: checked.setup_failure,
            gates: checked.gates,
            health: checked.health,
            services: checked.services,
            tests,
            coverage,
            findings,
            slowest,
            ..self
        }
    }

    fn with_built(self, built: Built) -> Outcome {
        let image = TriedImage { built, id: None, digest: None, size_bytes: None, compressed_bytes: None };
        Outcome { image: Some(image), ..self }
    }

    fn with_sealed(mut self, sealed: Option<&Sealed>) -> Outcome {
        if let (Some(image), Some(sealed)) = (&mut self.image, sealed) {
            image.id = Some(sealed.image.id.clone());
            image.digest = Some(sealed.manifest.digest.clone());
            image.size_bytes = Some(sealed.image.size_bytes);
            image.compressed_bytes = Some(sealed.manifest.size_bytes);
        }
        self
    }

    fn with_tags(self, tags: publish::Tags, intention: &Intention) -> Outcome {
        let not_published = match (&intention.refusal, self.published.is_empty() && self.files.is_empty()) {
            (Some(reason), _) => Some(reason.clone()),
            (None, true) if intention.is_planned && self.kept_tags.is_empty() => Some("no rule gives it a tag".into()),
            (None, true) if intention.is_planned => Some("none of its tags may move".into()),
            _ => None,
        };
        Outcome {
            publish_tags: tags.registry,
            skipped_tags: tags.skipped,
            not_published,
            publish_refused: intention.is_forbidden,
            ..self
        }
    }
}

/// Parts worth showing as slow.
const SLOWEST_MAX: usize = 3;

fn slowest(plan: &Plan, gates: &[GateOutcome], health: Option<&HealthOutcome>) -> Vec<(String, std::time::Duration)> {
    let mut parts: Vec<_> = gates.iter().map(|gate| (gate.gate.clone(), gate.busy)).collect();
    parts.extend(health.map(|health| (plan.stage(health::STAGE), health.duration)));
    parts.sort_by_key(|(_, duration)| std::cmp::Reverse(*duration));
    parts.truncate(SLOWEST_MAX);
    parts
}
