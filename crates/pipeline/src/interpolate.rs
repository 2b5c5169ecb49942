//! `${git.sha}`, `${version}`, `${VAR:-default}` in values of the pipeline file; never in command text.
//!
//! The syntax is Compose's: [`compose::template`].

use std::collections::BTreeMap;

use compose::template::Variables;
pub(crate) use compose::template::check;
pub use compose::template::{TemplateError, interpolate};

use crate::{Source, Version, plan};

/// What templates are filled in with.
#[derive(Clone, Debug)]
pub struct Values {
    /// `git.sha`.
    pub git_sha: Option<String>,
    /// `git.short`.
    pub git_short: Option<String>,
    /// `git.branch`.
    pub git_branch: Option<String>,
    /// `git.tag`.
    pub git_tag: Option<String>,
    /// `version`.
    pub version: Version,
    /// `run.number`.
    pub run_number: Option<u64>,
    /// Everything else.
    pub env: BTreeMap<String, String>,
}

impl Values {
    /// Of a source, without a version.
    pub fn of(source: &Source, run_number: Option<u64>, env: BTreeMap<String, String>) -> Values {
        Values {
            git_sha: source.sha.clone(),
            git_short: source.short.clone(),
            git_branch: source.branch.clone(),
            git_tag: source.tag.clone(),
            version: Version::Absent(plan::NO_VERSION.into()),
            run_number,
            env,
        }
    }
}

impl Variables for Values {
    fn look_up(&self, name: &str) -> Result<String, TemplateError> {
        let git = |value: &Option<String>, reason: &str| {
            value.clone().ok_or_else(|| TemplateError::Absent { name: name.into(), reason: reason.into() })
        };
        match name {
            "git.sha" | "git.short" => {
                let value = if name == "git.sha" { &self.git_sha } else { &self.git_short };
                git(value, "there is no Git commit")
            }
            "git.branch" => git(&self.git_branch, "HEAD is on no branch"),
            "git.tag" => git(&self.git_tag, "the commit has no Git tag"),
            "run.number" => git(&self.run_number.map(|number| number.to_string()), "there is no run"),
            "version" => match &self.version {
                Version::Known(version) => Ok(version.clone()),
                Version::Absent(reason) => Err(TemplateError::Absent { name: name.into(), reason: reason.clone() }),
                Version::ImageEnv(_) | Version::ImageLabel(_) | Version::Command { .. } => Err(TemplateError::Absent {
                    name: name.into(),
                    reason: "the version is only known once the image is built".into(),
                }),
            },
            _ if name.contains('.') => {
                let nearest = dockerfile::nearest(name, OUR_NAMES.iter().copied());
                Err(TemplateError::Unknown { name: name.into(), nearest })
            }
            _ => self
                .env
                .get(name)
                .cloned()
                .ok_or_else(|| TemplateError::Absent { name: name.into(), reason: format!("`{name}` is not set") }),
        }
    }

    fn environment(&self) -> BTreeMap<String, String> {
        self.env.clone()
    }
}

/// Names that are ours; all others are environment variables.
pub const OUR_NAMES: &[&str] = &["git.sha", "git.short", "git.branch", "git.tag", "version", "run.number"];

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values {
            git_sha: Some("3f2a91c0".into()),
            git_short: Some("3f2a91c".into()),
            git_branch: Some("feature/x".into()),
            git_tag: None,
            version: Version::Known("1.4.2".into()),
            run_number: Some(7),
            env: [("A", "a"), ("EMPTY", ""), ("EVIL", "${A} $$ $(rm)")].map(|(k, v)| (k.into(), v.into())).into(),
        }
    }

    #[test]
    fn templates_are_filled_in() {
        for (template, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("${git.sha}/${git.short}", "3f2a91c0/3f2a91c"),
            ("base-${version}", "base-1.4.2"),
            ("build-${run.number}", "build-7"),
            ("$A${A}$A", "aaa"),
            ("$$A", "$A"),
            ("$$${A}", "$a"),
            ("${B:-default}", "default"),
            ("${B-default}", "default"),
            ("${EMPTY:-default}", "default"),
            ("${EMPTY-default}", ""),
            ("${A:-default}", "a"),
            ("${B:-${A}-${C:-x}}", "a-x"),
            ("${git.tag:-none}", "none"),
            ("${A:+yes}${B:+no}${EMPTY:+no}${EMPTY+set}", "yesset"),
            ("${B:-}", ""),
            ("${B:-a}b}", "ab}"),
            ("é${A}é", "éaé"),
            // Values are not templates.
            ("$EVIL", "${A} $$ $(rm)"),
        ] {
            assert_eq!(interpolate(template, &values()).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn absent_values_say_why() {
        for (template, expected) in [
            ("${git.tag}", "the commit has no Git tag"),
            ("${B}", "`B` is not set"),
            ("$B", "`B` is not set"),
            ("${B:?set B to go on}", "set B to go on"),
            ("${EMPTY:?}", "`EMPTY` is not set"),
        ] {
            let error = interpolate(template, &values()).expect_err(template);
            assert!(matches!(error, TemplateError::Absent { .. }), "{template}: {error:?}");
            assert_eq!(error.to_string(), expected);
            assert_eq!(check(template, &values()), Ok(()), "{template}");
        }
    }

    #[test]
    fn mistakes_are_found_also_behind_absent_values() {
        for (template, expected) in [
            ("${git.tga}", "`${git.tga}` is not known"),
            ("${B}${git.tga:-x}", "`${git.tga}` is not known"),
            ("${", "`${` has no `}`"),
            ("${}", "`${` needs a name, such as `${git.sha}` or `${VARIABLE}`"),
            ("a $ b", "a `$` alone means nothing; write `$$` for a dollar sign"),
            ("$", "a `$` alone means nothing; write `$$` for a dollar sign"),
            ("${A!}", "after `A` there may be `:-default`, `:+other` or `:?message`"),
            ("${A:}", "after `A` there may be `:-default`, `:+other` or `:?message`"),
        ] {
            assert_eq!(
                check(template, &values()).map_err(|error| error.to_string()),
                Err(expected.into()),
                "{template}"
            );
        }
        let deep = format!("{}x{}", "${B:-".repeat(50), "}".repeat(50));
        assert!(matches!(interpolate(&deep, &values()), Err(TemplateError::Syntax(_))));
    }
}
