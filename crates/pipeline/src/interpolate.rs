//! `${git.sha}`, `${version}`, `${VAR:-default}` in values of the pipeline file; never in command text.
//!
//! The syntax is Compose's: `$VAR`, `${VAR}`, `${VAR-default}`, `${VAR:-default}`, `${VAR:?message}`, `${VAR:+other}`,
//! and `$$` for a dollar sign.

use std::collections::BTreeMap;

use crate::{Source, Version};

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
            version: Version::Absent("the pipeline file has no `version`".into()),
            run_number,
            env,
        }
    }

    /// The value of a name, or why there is none.
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
                Version::ImageEnv(_) | Version::ImageLabel(_) => Err(TemplateError::Absent {
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
}

/// Names that are ours; all others are environment variables.
pub const OUR_NAMES: &[&str] = &["git.sha", "git.short", "git.branch", "git.tag", "version", "run.number"];

/// Why a template has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The name is right, and has no value now.
    #[error("{reason}")]
    Absent {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// There is no such name.
    #[error("`${{{name}}}` is not known")]
    Unknown {
        /// The name.
        name: String,
        /// What may have been meant.
        nearest: Option<&'static str>,
    },
    /// The template is malformed.
    #[error("{0}")]
    Syntax(String),
}

/// Templates in defaults may be nested this deep.
const DEPTH_MAX: usize = 8;

/// Fills in a template.
///
/// # Errors
/// The first name without a value, or a mistake in the template.
pub fn interpolate(template: &str, values: &Values) -> Result<String, TemplateError> {
    fill(template, values, 0)
}

/// Whether a template is well-formed and names nothing unknown, whatever has a value now.
///
/// # Errors
/// As [`interpolate`], without [`TemplateError::Absent`].
pub(crate) fn check(template: &str, values: &Values) -> Result<(), TemplateError> {
    let (mut rest, mut depth) = (template, 0usize);
    // An absent value hides what comes after it, so each place is looked at alone.
    while let Some(start) = rest.find('$') {
        rest = &rest[start..];
        let (length, result) = match expression(rest) {
            Ok((length, expression)) => (length, evaluate(&expression, values, 0).map(drop)),
            Err(error) => (1, Err(error)),
        };
        if let Err(error @ (TemplateError::Unknown { .. } | TemplateError::Syntax(_))) = result {
            return Err(error);
        }
        depth += 1;
        rest = &rest[length..];
        debug_assert!(depth <= template.len(), "each turn takes at least one byte");
    }
    Ok(())
}

fn fill(template: &str, values: &Values, depth: usize) -> Result<String, TemplateError> {
    if depth > DEPTH_MAX {
        return Err(TemplateError::Syntax(format!("defaults are nested more than {DEPTH_MAX} deep")));
    }
    let (mut text, mut rest) = (String::with_capacity(template.len()), template);
    while let Some(start) = rest.find('$') {
        text.push_str(&rest[..start]);
        rest = &rest[start..];
        let (length, expression) = expression(rest)?;
        text.push_str(&evaluate(&expression, values, depth)?);
        rest = &rest[length..];
    }
    text.push_str(rest);
    Ok(text)
}

enum Expression<'t> {
    Dollar,
    Value { name: &'t str, operator: Option<(Operator, &'t str)> },
}

#[derive(Clone, Copy)]
struct Operator {
    kind: char,
    /// `:` before it: an empty value counts as none.
    empty_is_unset: bool,
}

/// What begins at the dollar sign, and its length.
fn expression(rest: &str) -> Result<(usize, Expression<'_>), TemplateError> {
    let after = &rest[1..];
    if after.starts_with('$') {
        return Ok((2, Expression::Dollar));
    }
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let Some(inside) = after.strip_prefix('{') else {
        if !after.starts_with(is_start) {
            return Err(TemplateError::Syntax("a `$` alone means nothing; write `$$` for a dollar sign".into()));
        }
        let end = after.find(|c: char| !is_word(c)).unwrap_or(after.len());
        return Ok((1 + end, Expression::Value { name: &after[..end], operator: None }));
    };
    let end = closing_brace(inside).ok_or_else(|| TemplateError::Syntax("`${` has no `}`".into()))?;
    let body = &inside[..end];
    let name_end = body.find(|c: char| !is_word(c) && c != '.').unwrap_or(body.len());
    let (name, operation) = body.split_at(name_end);
    if !name.starts_with(is_start) {
        return Err(TemplateError::Syntax("`${` needs a name, such as `${git.sha}` or `${VARIABLE}`".into()));
    }
    let operator = if operation.is_empty() {
        None
    } else {
        let (empty_is_unset, operation) = match operation.strip_prefix(':') {
            Some(operation) => (true, operation),
            None => (false, operation),
        };
        let kind = operation.chars().next().filter(|c| matches!(c, '-' | '?' | '+')).ok_or_else(|| {
            TemplateError::Syntax(format!("after `{name}` there may be `:-default`, `:+other` or `:?message`"))
        })?;
        Some((Operator { kind, empty_is_unset }, &operation[1..]))
    };
    Ok((1 + 1 + end + 1, Expression::Value { name, operator }))
}

fn closing_brace(inside: &str) -> Option<usize> {
    let (mut depth, mut former) = (0usize, ' ');
    for (at, c) in inside.char_indices() {
        match c {
            '{' if former == '$' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
        former = c;
    }
    None
}

fn evaluate(expression: &Expression<'_>, values: &Values, depth: usize) -> Result<String, TemplateError> {
    let Expression::Value { name, operator } = expression else { return Ok("$".into()) };
    let found = values.look_up(name);
    let Some((Operator { kind, empty_is_unset }, operand)) = operator else { return found };
    if let Err(error @ (TemplateError::Unknown { .. } | TemplateError::Syntax(_))) = found {
        return Err(error);
    }
    let set = found.as_ref().is_ok_and(|value| !(*empty_is_unset && value.is_empty()));
    match (kind, set) {
        ('+', true) | ('-', false) => fill(operand, values, depth + 1),
        ('+', false) => Ok(String::new()),
        (_, true) => found,
        _ => Err(TemplateError::Absent {
            name: (*name).into(),
            reason: if operand.is_empty() { format!("`{name}` is not set") } else { (*operand).into() },
        }),
    }
}

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
