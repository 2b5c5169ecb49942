//! What images have to have before they are used.

use std::path::{Path, PathBuf};

use evidence::{Policy, PolicyError, Requirement, Trust, TrustRule};
use oci::Reference;
use serde::Serialize;

use super::{Planner, names_repository};
use crate::{
    Plan, codes,
    file::{self, At, PipelineFile},
};

/// What is asked of images below one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustPlan {
    /// The beginning of their names, up to a slash.
    pub prefix: String,
    /// Public keys that are trusted.
    pub keys: Vec<TrustedKey>,
    /// What they need before a build, a gate or a service uses them.
    pub pull: Vec<String>,
}

/// Where a public key is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustedKey {
    /// A file of the repository.
    File(PathBuf),
    /// The key itself, in PEM.
    Inline(String),
}

impl Planner<'_> {
    /// A rule without a prefix speaks of the images beside those that this file names and publishes.
    pub(super) fn trust(&mut self, file: &PipelineFile, own: &[Reference]) -> Vec<TrustPlan> {
        let mut plans = Vec::new();
        for rule in &file.trust {
            let keys: Vec<TrustedKey> = rule.keys.iter().filter_map(|key| self.trusted_key(key)).collect();
            let pull: Vec<String> = rule.pull.iter().map(|wanted| wanted.value.clone()).collect();
            for prefix in self.prefixes(rule, own) {
                plans.push(TrustPlan { prefix, keys: keys.clone(), pull: pull.clone() });
            }
        }
        plans
    }

    fn prefixes(&mut self, rule: &file::TrustRule, own: &[Reference]) -> Vec<String> {
        if let Some(prefix) = &rule.prefix {
            let Some(text) = self.fill(prefix) else { return Vec::new() };
            // As images are called in full: `docker.io/acme`, whatever the beginning is written like.
            return vec![text.trim_end_matches('/').to_owned()];
        }
        let mut prefixes: Vec<String> = own
            .iter()
            .filter(|image| names_repository(&image.familiar()))
            .filter_map(|image| Some(image.repository().rsplit_once('/')?.0.to_owned()))
            .collect();
        prefixes.sort();
        prefixes.dedup();
        if prefixes.is_empty() {
            let message = "`trust` does not say of which images: this file names and publishes none of a registry";
            self.error(codes::INVALID_VALUE, message, &rule.span).help = Some(
                "write the beginning of their names: `trust: {\"registry.example/team/\": {keys: […], pull: […]}}`"
                    .into(),
            );
        }
        prefixes
    }

    fn trusted_key(&mut self, key: &At<String>) -> Option<TrustedKey> {
        if key.value.contains("-----BEGIN ") {
            return Some(TrustedKey::Inline(key.value.clone()));
        }
        self.path(key, self.base).map(TrustedKey::File)
    }
}

impl Plan {
    /// The rules with their keys.
    ///
    /// # Errors
    /// A key cannot be read.
    pub fn trust(&self) -> Result<Trust, PolicyError> {
        let rules = self.trust.iter().map(|plan| {
            let keys: Vec<String> = plan
                .keys
                .iter()
                .map(|key| match key {
                    TrustedKey::File(path) => path.to_string_lossy().into_owned(),
                    TrustedKey::Inline(pem) => pem.clone(),
                })
                .collect();
            let require = plan.pull.iter().filter_map(|wanted| wanted.parse::<Requirement>().ok()).collect();
            let policy = Policy::of(&keys, require, Path::new("/"))?;
            Ok(TrustRule { prefix: plan.prefix.clone(), policy })
        });
        Ok(Trust { rules: rules.collect::<Result<_, _>>()? })
    }
}
