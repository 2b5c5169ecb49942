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
mod images;
mod locate;
mod log;
mod names;
mod number;
mod publish;
mod record;
mod reports;
mod secrets;
mod services;
mod verdicts;
mod version;
mod words;

use std::time::{Instant, SystemTime};

use engine::{BuildError, Built, Cancel, FailedStep, Scope};
use events::{Event, RunId, Verdict};

pub use files::STAGE as FILES_STAGE;
pub use record::{StageRecord, has_passed, stage_record};
pub use reports::matching as report_files;
pub use secrets::known_secrets;
pub use verdicts::NAMESPACE as GATE_VERDICTS;
pub(crate) use words::FILE_NAME_BYTES_MAX;
pub use words::file_name;

use crate::{GateOutcome, HealthOutcome, Outcome, Plan, RunContext, RunError, RunOptions, Stages, TriedImage};
use publish::{Intention, Sealed};
use secrets::Secrets;

/// Does what the plan says, as far as the options ask for it. Everything that was started has ended when this returns,
/// on every path.
///
/// # Errors
/// We could not find out: see [`RunError`]. A failing step, gate or health check is an [`Outcome`].
pub async fn run(cx: RunContext<'_>, plan: &Plan, options: &RunOptions) -> Result<Outcome, RunError> {
    let work = checks::Selection::of(plan, options)?;
    work.check_rights(options)?;
    let started = Instant::now();
    announce(cx, plan, options, &work);
    let result = match cx.engine.open_scope(RunId(cx.run.number)).await {
        Ok(mut scope) => {
            let outcome = trial(cx, plan, options, &work, &*scope).await;
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

/// The story itself. The scope is the caller's, who closes it whatever happens here.
async fn trial(
    cx: RunContext<'_>,
    plan: &Plan,
    options: &RunOptions,
    work: &checks::Selection<'_>,
    scope: &dyn Scope,
) -> Result<Outcome, RunError> {
    let (mut outcome, began) = (Outcome::new(cx, plan), SystemTime::now());
    let secrets = Secrets::read(cx, plan, options, work)?;
    let start = Instant::now();
    let context = match before::prepare(cx, plan, options).await? {
        Ok(context) => context,
        Err(failed) => return Ok(outcome.build_failed(failed)),
    };
    if !plan.before.is_empty() {
        outcome.stages.push((before::STAGE.to_owned(), start.elapsed()));
    }
    let start = Instant::now();
    let built = match build::build_image(cx, plan, options, context, &secrets).await {
        Ok(built) => built,
        Err(RunError::Build(BuildError::Step(failed))) => return Ok(outcome.build_failed(*failed)),
        Err(error) => return Err(error),
    };
    outcome.stages.push((build::STAGE.to_owned(), start.elapsed()));
    let values = version::values(cx, plan, options, scope, &built).await?;
    let intention = Intention::of(plan, options, &built);

    // Gates need the root filesystem only: sealing and upload go on beside them, and stop when the verdict is no.
    let abandon = Cancel::new();
    let (sealed, checked) = tokio::join!(
        publish::seal_and_upload(cx, plan, work, &built, &intention, &abandon),
        checks::check(
            cx,
            plan,
            options,
            work,
            scope,
            checks::Subject { built: &built, secrets: &secrets, values: &values },
            &abandon
        ),
    );
    let checked = checked?;
    let failed = checked.verdict() == Verdict::Failed;
    outcome = outcome.checked(&built, checked);
    if failed {
        return Ok(outcome.with_sealed(sealed.ok().flatten()));
    }
    let Some(sealed) = sealed? else { return Ok(outcome.with_built(built)) };

    let broken_limits = build::broken_limits(plan, &built, &sealed.image);
    if !broken_limits.is_empty() {
        return Ok(Outcome { verdict: Verdict::Failed, broken_limits, ..outcome }.with_sealed(Some(sealed)));
    }
    // A Git tag that stands in the way is found before anything is written, unless its name has the number.
    let early = match git_tag::is_numbered(plan) {
        true => None,
        false => Some(git_tag::look(cx, plan, &intention, &values).await?),
    };
    let values = number::reserve(cx, plan, &intention, values.clone(), &sealed).await?;
    let git_tag = match early {
        Some(found) => found,
        None => git_tag::look(cx, plan, &intention, &values).await?,
    };
    let mut tags = publish::choose(cx, plan, &intention, &values, &sealed);
    if let git_tag::Wanted::Skipped(skipped) = &git_tag {
        tags.skipped.push(skipped.clone());
    }
    outcome.tagged = publish::tag_locally(cx, plan, &sealed, &tags).await?;
    if options.stages == Stages::All {
        record::remember_passed(cx, plan, &sealed)?;
    }
    let said = match options.stages {
        Stages::All if plan.publish.is_some() => evidence::say(cx, plan, &built, &sealed, &outcome, began),
        _ => evidence::recall(cx, &sealed),
    };
    let signed = evidence::sign(plan, &sealed, said).await?;
    let secrets = &secrets;
    let work = files::Work { cx, plan, options, scope, built: &built, secrets, values: &values };
    match files::publish(&work, &intention).await? {
        Ok(published) => outcome.files = published,
        Err(failure) => {
            let failed = Outcome { verdict: Verdict::Failed, files_failure: Some(failure), ..outcome };
            return Ok(failed.with_sealed(Some(sealed)));
        }
    }
    let named = names::write_names(cx, &intention, &sealed, &tags, signed).await;
    let named = named.map_err(|error| files::in_part(&outcome.files, vec!["the image".into()], error))?;
    outcome.evidence = named.attached.words().filter(|_| !named.published.is_empty());
    (outcome.published, outcome.kept_tags, outcome.foreseen) = (named.published, named.kept, named.foreseen);
    if let git_tag::Wanted::Tag(tag) = git_tag {
        if intention.is_dry {
            outcome.foreseen.push(tag.foresee());
        } else if !outcome.published.is_empty() || !outcome.files.is_empty() {
            outcome.git_tag = Some(tag.make().await?);
        }
    }
    Ok(outcome.with_tags(tags, &intention).with_sealed(Some(sealed)))
}

fn announce(cx: RunContext<'_>, plan: &Plan, options: &RunOptions, work: &checks::Selection<'_>) {
    let before = (!plan.before.is_empty()).then(|| before::STAGE.to_owned());
    let mut stages: Vec<String> = before.into_iter().chain([build::STAGE.to_owned()]).collect();
    if work.has_setup(plan) {
        stages.push(checks::SETUP_STAGE.to_owned());
    }
    stages.extend(work.gates.iter().map(|gate| gate.name.clone()));
    if work.health && plan.health.enabled {
        stages.push(health::STAGE.to_owned());
    }
    if options.publish && plan.publish.is_some() && work.seals {
        stages.extend(files::stages(plan));
        stages.push(publish::STAGE.to_owned());
    }
    cx.events.emit(Event::RunStarted {
        run: RunId(cx.run.number),
        name: plan.name.clone(),
        commit: plan.source.short.clone(),
        branch: plan.source.branch.clone().or_else(|| plan.source.tag.clone()),
        stages,
    });
    if options.publish && plan.publish.is_some() && plan.source.is_dirty {
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
            source: plan.source.clone(),
            verdict: Verdict::Passed,
            image: None,
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

    fn build_failed(self, failed: FailedStep) -> Outcome {
        Outcome { verdict: Verdict::Failed, build_failure: Some(failed), ..self }
    }

    fn checked(mut self, built: &Built, checked: checks::Checked) -> Outcome {
        let verdict = checked.verdict();
        let gates = &checked.gates;
        let tests = gates.iter().filter_map(|gate| gate.tests).reduce(|sum, one| sum + one);
        let coverage = gates.iter().filter_map(|gate| gate.coverage).reduce(|sum, one| sum + one);
        let findings = gates.iter().filter_map(|gate| gate.findings).reduce(|sum, one| sum + one);
        let slowest = slowest(&checked.gates, checked.health.as_ref());
        let gates = checked.gates.iter().filter(|gate| gate.verdict != Verdict::Skipped);
        let health = checked.health.iter().filter(|health| health.verdict != Verdict::Skipped);
        self.stages.extend(checked.setup.map(|duration| (checks::SETUP_STAGE.to_owned(), duration)));
        self.stages.extend(gates.map(|gate| (gate.gate.clone(), gate.duration)));
        self.stages.extend(health.map(|health| (health::STAGE.to_owned(), health.duration)));
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
        .with_built(built.clone())
    }

    fn with_built(self, built: Built) -> Outcome {
        let image = TriedImage { built, id: None, digest: None, size_bytes: None, compressed_bytes: None };
        Outcome { image: Some(image), ..self }
    }

    fn with_sealed(mut self, sealed: Option<Sealed>) -> Outcome {
        if let (Some(image), Some(sealed)) = (&mut self.image, sealed) {
            image.id = Some(sealed.image.id);
            image.digest = Some(sealed.manifest.digest);
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

fn slowest(gates: &[GateOutcome], health: Option<&HealthOutcome>) -> Vec<(String, std::time::Duration)> {
    let mut parts: Vec<_> = gates.iter().map(|gate| (gate.gate.clone(), gate.busy)).collect();
    parts.extend(health.map(|health| (health::STAGE.to_owned(), health.duration)));
    parts.sort_by_key(|(_, duration)| std::cmp::Reverse(*duration));
    parts.truncate(SLOWEST_MAX);
    parts
}
