//! One image: from its source to a verdict, and then to its names.

use std::{
    collections::BTreeMap,
    time::{Instant, SystemTime},
};

use engine::{BuildError, Built, Cancel};
use events::Verdict;
use oci::Digest;

use super::{
    Run, before, build, checks, evidence, files, git_tag, names, number,
    publish::{self, Intention, Sealed, Tags},
    record,
    secrets::Secrets,
    selection::Part,
    version,
};
use crate::{GateOutcome, Outcome, Plan, RunError, Stages, Values};

/// An image with its verdict, before anything has a name.
pub(super) struct Tried {
    pub(super) outcome: Outcome,
    /// `None` when the verdict is no, or nothing was to be sealed.
    pub(super) ready: Option<Ready>,
}

/// What can get names.
pub(super) struct Ready {
    pub(super) sealed: Sealed,
    pub(super) intention: Intention,
    built: Built,
    values: Values,
    secrets: Secrets,
    began: SystemTime,
}

/// The names that an image is to get. Nothing is written yet.
pub(super) struct Names<'a> {
    pub(super) tags: Tags,
    git_tag: git_tag::Wanted<'a>,
    /// With the number of the build.
    values: Values,
}

/// Builds and checks an image. `bases` are images of the run that it is built on.
pub(super) async fn attempt(
    run: Run<'_>,
    part: &Part<'_>,
    bases: &BTreeMap<String, Digest>,
) -> Result<Tried, RunError> {
    let (Run { cx, options, .. }, Part { plan, work }) = (run, part);
    let (mut outcome, began) = (Outcome::new(cx, plan), SystemTime::now());
    let secrets = Secrets::read(cx, plan, options, work)?;
    let start = Instant::now();
    let context = match before::prepare(cx, plan, options).await? {
        Ok(context) => context,
        Err(failed) => return Ok(outcome.before_failed(failed).without_names()),
    };
    if !plan.before.is_empty() {
        outcome.stages.push((plan.stage(before::STAGE), start.elapsed()));
    }
    let start = Instant::now();
    let built = match build::build_image(cx, plan, options, context, &secrets, bases).await {
        Ok(built) => built,
        Err(RunError::Build(BuildError::Step(failed))) => return Ok(outcome.build_failed(*failed).without_names()),
        Err(error) => return Err(error),
    };
    outcome.stages.push((plan.stage(build::STAGE), start.elapsed()));
    run.siblings.is_built(&plan.name, &built.root);
    let values = version::values(cx, plan, options, run.scope, &built).await?;
    let intention = Intention::of(run, part, &built);

    // Gates need the root filesystem only: sealing and upload go on beside them, and stop when the verdict is no.
    let (abandon, begun) = (Cancel::new(), Cancel::new());
    let subject = checks::Subject { built: &built, secrets: &secrets, values: &values, begun: &begun };
    let (sealed, checked) = tokio::join!(
        publish::seal_and_upload(run, part, &built, &intention, publish::Moments { abandon: &abandon, begun: &begun }),
        checks::check(run, part, subject, &abandon),
    );
    let checked = checked?;
    let failed = checked.verdict() == Verdict::Failed;
    outcome = outcome.checked(plan, checked).with_built(built.clone());
    if failed {
        return Ok(outcome.with_sealed(sealed.ok().flatten().as_ref()).without_names());
    }
    let Some(sealed) = sealed? else { return Ok(outcome.without_names()) };
    let outcome = outcome.with_sealed(Some(&sealed));
    let broken_limits = build::broken_limits(cx, plan, &built, &sealed.image);
    if !broken_limits.is_empty() {
        return Ok(Outcome { verdict: Verdict::Failed, broken_limits, ..outcome }.without_names());
    }
    Ok(Tried { outcome, ready: Some(Ready { sealed, intention, built, values, secrets, began }) })
}

impl Ready {
    /// The names that it earns. What stands in the way of one is found before anything is written.
    pub(super) async fn names<'a>(&self, run: Run<'a>, plan: &'a Plan) -> Result<Names<'a>, RunError> {
        let (cx, intention) = (run.cx, &self.intention);
        // A Git tag that stands in the way is found before anything else, unless its name has the number.
        let early = match git_tag::is_numbered(plan) {
            true => None,
            false => Some(git_tag::look(cx, plan, intention, &self.values).await?),
        };
        let values = number::reserve(cx, plan, intention, self.values.clone(), &self.sealed).await?;
        let git_tag = match early {
            Some(found) => found,
            None => git_tag::look(cx, plan, intention, &values).await?,
        };
        let mut tags = publish::choose(cx, plan, intention, &values, &self.sealed);
        if let git_tag::Wanted::Skipped(skipped) = &git_tag {
            tags.skipped.push(skipped.clone());
        }
        Ok(Names { tags, git_tag, values })
    }
}

/// Gives an image its names, first in the store, then in registries. `whole` are gates of several images that speak of this one
/// as well.
pub(super) async fn give_names(
    run: Run<'_>,
    plan: &Plan,
    mut outcome: Outcome,
    ready: &Ready,
    names: Names<'_>,
    whole: &[GateOutcome],
) -> Result<Outcome, RunError> {
    let (cx, Ready { sealed, intention, built, secrets, began, .. }) = (run.cx, ready);
    let Names { tags, git_tag, values } = names;
    outcome.tagged = publish::tag_locally(cx, plan, sealed, &tags).await?;
    if run.options.stages == Stages::All && run.course.is_whole {
        record::remember_passed(run, plan, sealed)?;
    }
    let said = match run.options.stages {
        Stages::All if plan.publish.is_some() => {
            let gates = outcome.gates.iter().chain(whole);
            evidence::say(run, plan, built, sealed, evidence::Passed { gates, health: outcome.health.as_ref() }, *began)
        }
        _ => evidence::recall(cx, sealed),
    };
    let signed = evidence::sign(plan, sealed, said).await?;
    let (options, scope) = (run.options, run.scope);
    let work = files::Work { cx, plan, options, scope, built, secrets, values: &values };
    match files::publish(&work, intention).await? {
        Ok(published) => outcome.files = published,
        Err(failure) => return Ok(Outcome { verdict: Verdict::Failed, files_failure: Some(failure), ..outcome }),
    }
    let named = names::write_names(cx, plan, intention, sealed, &tags, signed).await;
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
    Ok(outcome.with_tags(tags, intention))
}

impl Outcome {
    pub(super) fn without_names(self) -> Tried {
        Tried { outcome: self, ready: None }
    }
}
