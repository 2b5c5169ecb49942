//! The story of several images: each as soon as those that it is built on have passed, the gates of the whole beside them, one
//! verdict, and names only when all have passed.

use std::collections::BTreeMap;

use events::{EventSink, Verdict};
use futures::{FutureExt as _, future::join_all};

use super::{
    Run, build, checks, gate, health,
    image::{self, Names, Tried},
    secrets::Secrets,
    selection::{Course, Part},
    words::Stage,
};
use crate::{Outcome, RunError};

pub(super) async fn trial(run: Run<'_>) -> Result<Outcome, RunError> {
    let Run { cx, course, whole, .. } = run;
    let sinks: Vec<EventSink> = course.parts.iter().map(|part| cx.events.of_image(&part.plan.name)).collect();
    let each = course.parts.iter().zip(&sinks).map(|(part, events)| try_image(run.heard_by(events), part));
    let (tried, checked) = tokio::join!(join_all(each), check_whole(run));
    let tried: Vec<Tried> = tried.into_iter().collect::<Result<_, _>>()?;
    let mut outcome = Outcome::new(cx, whole).checked(whole, checked?);

    let failed: Vec<&str> = tried
        .iter()
        .filter(|one| one.outcome.verdict != Verdict::Passed)
        .map(|one| one.outcome.name.as_str())
        .collect();
    if !failed.is_empty() || outcome.verdict == Verdict::Failed {
        let reason = match failed.as_slice() {
            [] => "a gate of the whole run did not pass".to_owned(),
            names => format!("{} did not pass", names.join(", ")),
        };
        outcome.verdict = Verdict::Failed;
        outcome.images = tried.into_iter().map(|one| one.held_back(&reason)).collect();
        return Ok(outcome);
    }
    // All names are known, and nothing stands in their way, before the first is written.
    let mut names: Vec<Option<Names<'_>>> = Vec::new();
    for ((part, one), events) in course.parts.iter().zip(&tried).zip(&sinks) {
        names.push(match one.ready.as_ref().filter(|_| part.work.names) {
            Some(ready) => Some(ready.names(run.heard_by(events), part.plan).await?),
            None => None,
        });
    }
    refuse_equal_names(course, &tried, &names)?;
    for (((part, one), names), events) in course.parts.iter().zip(tried).zip(names).zip(&sinks) {
        // What could not be made of one holds back those that come after it.
        if outcome.verdict == Verdict::Failed {
            outcome.images.push(one.held_back("`publish.files` of another image failed"));
            continue;
        }
        let named = match (one.ready, names) {
            (Some(ready), Some(names)) => {
                image::give_names(run.heard_by(events), part.plan, one.outcome, &ready, names, &outcome.gates).await?
            }
            _ => one.outcome,
        };
        if named.verdict == Verdict::Failed {
            outcome.verdict = Verdict::Failed;
        }
        outcome.images.push(named);
    }
    Ok(outcome)
}

/// Waits for the images that this one is built on, then tries it. Whoever waits for it hears how it ended.
async fn try_image(run: Run<'_>, part: &Part<'_>) -> Result<Tried, RunError> {
    let name = &part.plan.name;
    let mut bases = BTreeMap::new();
    for base in part.plan.build.images() {
        let Ok(id) = run.siblings.passed(base).await else {
            run.siblings.is_over(name);
            return Ok(skip(run, part, &format!("needs {base}, which did not pass")).without_names());
        };
        bases.insert(base.to_owned(), id);
    }
    let tried = image::attempt(run, part, &bases).boxed().await;
    if let Ok(Tried { ready: Some(ready), .. }) = &tried {
        run.siblings.has_passed(name, &ready.sealed.image.id);
    }
    run.siblings.is_over(name);
    tried
}

fn skip(run: Run<'_>, part: &Part<'_>, reason: &str) -> Outcome {
    let (cx, Part { plan, work }) = (run.cx, part);
    let tell = |stage: &str| {
        Stage::start(cx.events, &plan.stage(stage)).finish(Verdict::Skipped, reason);
    };
    tell(build::STAGE);
    if work.has_setup(plan) {
        tell(checks::SETUP_STAGE);
    }
    let gates = work.gates.iter().map(|gate| gate::skipped(cx, gate, reason)).collect();
    if work.health && plan.health.enabled {
        tell(health::STAGE);
    }
    Outcome { verdict: Verdict::Skipped, skipped: Some(reason.to_owned()), gates, ..Outcome::new(cx, plan) }
}

/// The gates of the whole, each as soon as the images that they use are built.
async fn check_whole(run: Run<'_>) -> Result<checks::Checked, RunError> {
    let work = &run.course.whole;
    if work.gates.is_empty() {
        return Ok(checks::Checked::default());
    }
    let secrets = Secrets::read(run.cx, run.whole, run.options, work)?;
    let part = Part { plan: run.whole, work: work.clone() };
    let (gates, services) = checks::run_gates(run, &part, None, &secrets, &engine::Cancel::new()).await?;
    Ok(checks::Checked { gates, services, ..checks::Checked::default() })
}

impl Tried {
    /// The outcome of an image that gets no name because others did not pass.
    fn held_back(self, reason: &str) -> Outcome {
        let ready = self.ready.filter(|ready| ready.intention.is_planned || ready.intention.refusal.is_some());
        let not_published = ready.map(|ready| ready.intention.refusal.unwrap_or_else(|| reason.to_owned()));
        Outcome { not_published, ..self.outcome }
    }
}

/// Names that only the built images tell are compared now; the others were compared in the plan.
fn refuse_equal_names(course: &Course<'_>, tried: &[Tried], names: &[Option<Names<'_>>]) -> Result<(), RunError> {
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for ((part, one), names) in course.parts.iter().zip(tried).zip(names) {
        let (Some(ready), Some(names)) = (&one.ready, names) else { continue };
        for name in names.tags.names(part.plan, &ready.intention) {
            if let Some(other) = taken.insert(name.clone(), &part.plan.name).filter(|other| *other != part.plan.name) {
                return Err(RunError::Usage {
                    message: format!("`{other}` and `{}` would both be {name}: nothing was named", part.plan.name),
                    hint: Some("give each its own `image`, or `publish.tags` that tell them apart".into()),
                });
            }
        }
    }
    Ok(())
}
