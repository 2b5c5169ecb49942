//! Which images have to have which evidence before they are used.

use oci::Reference;

use crate::{Policy, Requirement};

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

impl Trust {
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
