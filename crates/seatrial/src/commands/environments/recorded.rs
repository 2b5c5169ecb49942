//! Environments that no pipeline file tells of: found by the records in the registry.

use std::collections::{BTreeMap, BTreeSet};

use evidence::promotion::{PROMOTION, records_of_each};
use oci::{Digest, Reference};
use pipeline::EnvironmentPlan;

use super::{
    desk::Desk,
    steps::{Counting, Step, of_records},
};
use crate::terminal;

/// Images of one repository whose records are asked for.
const IMAGES_MAX: usize = 500;

/// A record, and the tags of its image.
pub(super) type Tagged = (Step, BTreeSet<String>);

/// The environments of a repository: those that the pipeline file has for it, and those that a tag and its image's records tell of.
pub(super) fn of_repository(desk: &Desk, repository: &Reference, found: &[Tagged]) -> Vec<EnvironmentPlan> {
    // An environment is where its tag is.
    let steps = found.iter().filter(|(step, tags)| tags.contains(&step.promotion.tag)).map(|(step, _)| step.clone());
    let steps: Vec<Step> = steps.collect();
    with_recorded(desk, repository, &steps)
}

/// Those that count for one environment.
pub(super) fn of_environment(found: &[Tagged], counting: &Counting<'_>) -> Vec<Step> {
    found.iter().map(|(step, _)| step).filter(|step| counting.counts(step)).cloned().collect()
}

/// What is recorded of the images of a repository that have a tag.
pub(super) async fn of_tagged(desk: &Desk, repository: &Reference) -> anyhow::Result<Vec<Tagged>> {
    let mut tags = desk.client.list_tags(repository).await?;
    tags.retain(|tag| !pipeline::is_claim_tag(tag) && !tag.starts_with("sha256-"));
    let mut images: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    for (tag, found) in desk.client.resolve_tags(repository, tags).await? {
        let Some(found) = found else { continue };
        images.entry(found.digest).or_default().insert(tag);
    }
    if images.len() > IMAGES_MAX {
        terminal::warning(&format!("{repository} has {} images: {IMAGES_MAX} of them are looked at", images.len()));
    }
    let images: Vec<(Digest, BTreeSet<String>)> = images.into_iter().take(IMAGES_MAX).collect();
    let places: Vec<Reference> = images.iter().map(|(digest, _)| repository.with_digest(digest.clone())).collect();
    let found = records_of_each(&desk.client, &places, PROMOTION).await?;
    let mut steps = Vec::new();
    for ((digest, tags), records) in images.iter().zip(found) {
        steps.extend(of_records(digest, records).map(|step| (step, tags.clone())));
    }
    Ok(steps)
}

/// The environments that the pipeline file has for a repository, and those that these records tell of.
pub(super) fn with_recorded(desk: &Desk, repository: &Reference, steps: &[Step]) -> Vec<EnvironmentPlan> {
    let mut known = desk.environments_of(repository).to_vec();
    let promotions = steps.iter().map(|step| &step.promotion);
    // Two pipelines may have one repository and the same names, and then they differ in the tag.
    let found: BTreeSet<(&str, &str)> = promotions
        .filter(|promotion| known.iter().all(|environment| environment.name != promotion.environment))
        .filter(|promotion| oci::is_valid_tag(&promotion.tag))
        .map(|promotion| (promotion.environment.as_str(), promotion.tag.as_str()))
        .collect();
    known.extend(found.into_iter().map(|(name, tag)| EnvironmentPlan {
        name: name.to_owned(),
        after: Vec::new(),
        when: Vec::new(),
        approve: Vec::new(),
        require: Vec::new(),
        keys: Vec::new(),
        tag: tag.to_owned(),
    }));
    known
}
