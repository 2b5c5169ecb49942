//! Which images have to have which evidence before they are used.

use std::time::SystemTime;

use oci::{Platform, Reference};
use registry::{Client, RegistryError};

use crate::{Policy, Requirement, Sought, collect};

/// What is asked of images below one name.
#[derive(Clone, Debug)]
pub struct TrustRule {
    /// The beginning of their names, up to a slash: `registry.example/acme`.
    pub prefix: String,
    /// What they need.
    pub policy: Policy,
}

/// Rules for images by their names.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Of several that fit, the longest decides.
    pub rules: Vec<TrustRule>,
}

/// Why an image may not be used.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// What is asked of it is not there.
    #[error("{0}")]
    Missing(String),
    /// What is said of it cannot be asked for.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Trust {
    /// Judges an image before it is pulled, with what its user asks for beside the rule: gives the name with the digest that
    /// was judged, or `None` where nothing is asked of such images. An index stands for its image of the platform.
    ///
    /// # Errors
    /// Something is missing, no key is trusted, or the registry fails.
    pub async fn admit(
        &self,
        client: &Client,
        image: &Reference,
        platform: &Platform,
        further: &[Requirement],
    ) -> Result<Option<Reference>, NotAdmitted> {
        let Some(policy) = self.pull_policy(image, further) else { return Ok(None) };
        if policy.keys.is_empty() {
            return Err(NotAdmitted::Missing(format!("`trust` has no key for {}", image.repository())));
        }
        let collected = collect(client, image, Some(platform)).await?;
        let report = policy.judge(Sought { collected: &collected, now: SystemTime::now() });
        if !report.passed() {
            let missing: Vec<String> = report.missing().map(|check| check.detail.clone()).collect();
            return Err(NotAdmitted::Missing(missing.join("; ")));
        }
        let judged = collected.platforms.first().map_or(&collected.root, |(digest, _)| digest);
        Ok(Some(image.with_digest(judged.clone())))
    }

    /// What is asked of an image before it is pulled.
    pub fn pull_policy(&self, image: &Reference, further: &[Requirement]) -> Option<Policy> {
        let mut policy = self.policy_for(image, further)?;
        // Whatever is pulled is compared with its digest anyway.
        policy.require.retain(|wanted| *wanted != Requirement::Content);
        (!policy.require.is_empty()).then_some(policy)
    }

    /// The rule that speaks of an image.
    pub fn rule_for(&self, image: &Reference) -> Option<&TrustRule> {
        let name = image.repository();
        let fits = |rule: &&TrustRule| {
            let prefix = rule.prefix.trim_end_matches('/');
            name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.rules.iter().filter(fits).max_by_key(|rule| rule.prefix.trim_end_matches('/').len())
    }

    /// What an image needs before it is used, with what its user asks for beside the rule. `None`: nothing.
    pub fn policy_for(&self, image: &Reference, further: &[Requirement]) -> Option<Policy> {
        let mut policy = self.rule_for(image).map(|rule| rule.policy.clone()).unwrap_or_default();
        let new: Vec<Requirement> = further.iter().filter(|wanted| !policy.require.contains(wanted)).cloned().collect();
        policy.require.extend(new);
        (!policy.require.is_empty()).then_some(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides_and_names_end_at_slashes() {
        let rule = |prefix: &str| TrustRule { prefix: prefix.into(), policy: Policy::default() };
        let trust = Trust {
            rules: vec![rule("registry.example/acme/"), rule("registry.example/acme/base"), rule("docker.io/acme")],
        };
        for (image, expected) in [
            ("registry.example/acme/app:1", Some("registry.example/acme/")),
            ("registry.example/acme/base", Some("registry.example/acme/base")),
            (
                "registry.example/acme/base/deep@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                Some("registry.example/acme/base"),
            ),
            ("registry.example/acme-evil/app", None),
            ("acme/app", Some("docker.io/acme")),
            ("registry.example/other", None),
        ] {
            let image: Reference = image.parse().expect("a name");
            assert_eq!(trust.rule_for(&image).map(|rule| rule.prefix.as_str()), expected, "{image}");
        }
    }
}
