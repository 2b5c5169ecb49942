//! Environments that no pipeline file tells of: found by the records in the registry.

use std::collections::{BTreeMap, BTreeSet};

use evidence::promotion::{PROMOTION, records_of_each};
use oci::{Digest, Reference};
use pipeline::EnvironmentPlan;
use registry::RegistryError;

use super::{
    desk::Desk,
    steps::{Counting, Step, of_records},
};
use crate::terminal;

/// Tags of one repository whose images and their records are asked for.
const TAGS_MAX: usize = 1000;

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
    let (tags, left) = choose(desk.client.list_tags(repository).await?, desk.environments_of(repository));
    if left > 0 {
        let all = tags.len() + left;
        terminal::warning(&format!("{repository} has {all} tags: the images of {} are looked at", tags.len()));
    }
    let mut images: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    for (tag, found) in desk.client.resolve_tags(repository, tags).await? {
        let Some(found) = found else { continue };
        images.entry(found.digest).or_default().insert(tag);
    }
    let places: Vec<Reference> = images.keys().map(|digest| repository.with_digest(digest.clone())).collect();
    let found = records_of_each(&desk.client, &places, PROMOTION).await?;
    let mut steps = Vec::new();
    for ((digest, tags), records) in images.iter().zip(found) {
        steps.extend(of_records(digest, records).map(|step| (step, tags.clone())));
    }
    Ok(steps)
}

/// As [`of_tagged`]; none where the tags may not be listed, so that what an image's own records tell has to do.
pub(super) async fn of_tagged_if_shown(desk: &Desk, repository: &Reference) -> anyhow::Result<Vec<Tagged>> {
    match of_tagged(desk, repository).await {
        Err(error) if error.downcast_ref::<RegistryError>().is_some_and(RegistryError::is_auth) => {
            let message =
                format!("the tags of {repository} may not be listed: moves that are not recorded are not seen");
            terminal::warning(&message);
            Ok(Vec::new())
        }
        found => found,
    }
}

/// The tags to look up, and how many are left out: first those of environments, then what the registry lists last, where the
/// higher versions are.
fn choose(mut tags: Vec<String>, environments: &[EnvironmentPlan]) -> (Vec<String>, usize) {
    tags.retain(|tag| !pipeline::is_claim_tag(tag) && !tag.starts_with("sha256-"));
    tags.reverse();
    tags.sort_by_key(|tag| environments.iter().all(|environment| environment.tag != *tag));
    let left = tags.len().saturating_sub(TAGS_MAX);
    tags.truncate(TAGS_MAX);
    (tags, left)
}

/// An environment of which nothing but records tells.
fn plain(name: &str, tag: &str) -> EnvironmentPlan {
    EnvironmentPlan {
        name: name.to_owned(),
        after: Vec::new(),
        when: Vec::new(),
        approve: Vec::new(),
        require: Vec::new(),
        keys: Vec::new(),
        tag: tag.to_owned(),
    }
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
    known.extend(found.into_iter().map(|(name, tag)| plain(name, tag)));
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_tags_those_of_environments_and_the_highest_are_looked_up() {
        let mut tags: Vec<String> = vec!["0-live".into()];
        tags.extend((0..TAGS_MAX).map(|number| format!("1.0.{number:04}")));
        tags.extend(["1.1".into(), format!("sha256-{}", "0".repeat(64))]);
        let (chosen, left) = choose(tags, &[plain("live", "0-live")]);
        assert_eq!((chosen.len(), left), (TAGS_MAX, 2));
        assert_eq!(chosen[..3], ["0-live".to_owned(), "1.1".into(), format!("1.0.{:04}", TAGS_MAX - 1)]);
        assert_eq!(choose(vec!["1".into()], &[]), (vec!["1".into()], 0));
    }
}
