//! Environments, checked: their order, their tags, their keys.

use std::path::PathBuf;

use serde::Serialize;

use super::{Planner, TrustPlan, TrustedKey};
use crate::{
    When, codes,
    file::{At, Environment},
    legal_tag,
};

/// A place that images come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EnvironmentPlan {
    /// Its name.
    pub name: String,
    /// Environments that an image has to be in before.
    pub after: Vec<String>,
    /// Conditions of the source; one of them must hold; empty: always.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<When>,
    /// Names of the keys whose owners have to approve.
    pub approve: Vec<String>,
    /// What has to be attached to the image, by the names of evidence.
    pub require: Vec<String>,
    /// Files with the public keys that are trusted: its own, else those of `trust`.
    pub keys: Vec<PathBuf>,
    /// The tag that stands for it.
    pub tag: String,
}

impl Planner<'_> {
    pub(super) fn environments(
        &mut self,
        given: &[(At<String>, Environment)],
        trust: &[TrustPlan],
    ) -> Vec<EnvironmentPlan> {
        let trusted = key_files(trust);
        let mut plans: Vec<EnvironmentPlan> = Vec::new();
        for (name, environment) in given {
            for after in &environment.after {
                // Only what stands above may be named, so that nothing can wait for itself.
                if plans.iter().any(|plan| plan.name == after.value) {
                    continue;
                }
                let is_below = given.iter().any(|(other, _)| other.value == after.value);
                let message = match is_below {
                    true => format!("`{}` has to stand above `{}`, which comes after it", after.value, name.value),
                    false => format!("there is no environment `{}`", after.value),
                };
                let near = dockerfile::nearest(&after.value, plans.iter().map(|plan| plan.name.as_str()));
                let near = near.map(|near| format!("did you mean `{near}`?"));
                self.error(codes::INVALID_VALUE, message, &after.span).label = near;
            }
            let own: Vec<PathBuf> = environment.keys.iter().filter_map(|key| self.path(key, self.base)).collect();
            let are_found = own.len() == environment.keys.len();
            let keys = if environment.keys.is_empty() { trusted.clone() } else { own };
            let asks = environment.require.first().or(environment.approve.first());
            if let (Some(asks), true) = (asks, keys.is_empty() && are_found) {
                let message = "who signs is not known: this environment needs `keys`, the public keys that are trusted";
                self.error(codes::MISSING_KEY, message, &asks.span).help =
                    Some("or name them once for all: `trust: {keys: [release.pub]}`".into());
            }
            for wanted in &environment.approve {
                let has_key = keys.iter().any(|key| key.file_stem().is_some_and(|stem| stem == wanted.value.as_str()));
                if !has_key && are_found && !keys.is_empty() {
                    let message = format!("there is no key of `{0}` (`{0}.pub`) among `keys`", wanted.value);
                    self.error(codes::INVALID_VALUE, message, &wanted.span);
                }
            }
            let at = environment.tag.as_ref().unwrap_or(name);
            let tag = self.fill(at).unwrap_or_default();
            if !oci::is_valid_tag(&tag) {
                let diagnostic = self.error(codes::INVALID_VALUE, format!("`{tag}` cannot be a tag"), &at.span);
                diagnostic.help = legal_tag(&tag).map(|tag| format!("write `tag: {tag}`"));
            }
            if let Some(other) = plans.iter().find(|plan| plan.tag == tag) {
                let message =
                    format!("`{}` has the tag `{tag}` already: one tag stands for one environment", other.name);
                self.error(codes::INVALID_VALUE, message, &at.span);
            }
            plans.push(EnvironmentPlan {
                name: name.value.clone(),
                after: environment.after.iter().map(|after| after.value.clone()).collect(),
                when: self.conditions(&environment.when),
                approve: environment.approve.iter().map(|name| name.value.clone()).collect(),
                require: environment.require.iter().map(|name| name.value.clone()).collect(),
                keys,
                tag,
            });
        }
        plans
    }
}

/// Those of a rule that are files, each once. Approvals know keys by the names of their files.
fn key_files(trust: &[TrustPlan]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for key in trust.iter().flat_map(|plan| &plan.keys) {
        if let TrustedKey::File(path) = key
            && !files.contains(path)
        {
            files.push(path.clone());
        }
    }
    files
}

impl EnvironmentPlan {
    /// Whether the source may come here.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn takes(&self, source: &crate::Source, values: &crate::Values) -> Result<(), String> {
        crate::tags::holds(&self.when, source, &values.env)
    }
}
