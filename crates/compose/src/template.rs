//! `${VARIABLE:-default}` in values.
//!
//! The syntax is Compose's (compose-spec, "Interpolation"): `$VAR`, `${VAR}`, `${VAR-default}`, `${VAR:-default}`,
//! `${VAR:?message}`, `${VAR:+other}`, and `$$` for a dollar sign; what stands behind the operator may be a template again.

use std::collections::BTreeMap;

/// What templates are filled in with.
pub trait Variables {
    /// The value of a name.
    ///
    /// # Errors
    /// [`TemplateError::Absent`] or [`TemplateError::Unknown`].
    fn look_up(&self, name: &str) -> Result<String, TemplateError>;

    /// What stands for a name without a value where the template says nothing about that case.
    ///
    /// # Errors
    /// The error that is given, unless another value stands for it.
    fn absent(&self, error: TemplateError) -> Result<String, TemplateError> {
        Err(error)
    }

    /// The environment variables among them, for files that are read with their own rules.
    fn environment(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

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
pub fn interpolate(template: &str, values: &dyn Variables) -> Result<String, TemplateError> {
    fill(template, values, 0)
}

/// Whether a template is well-formed and names nothing unknown, whatever has a value now.
///
/// # Errors
/// As [`interpolate`], without [`TemplateError::Absent`].
pub fn check(template: &str, values: &dyn Variables) -> Result<(), TemplateError> {
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

fn fill(template: &str, values: &dyn Variables, depth: usize) -> Result<String, TemplateError> {
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

fn evaluate(expression: &Expression<'_>, values: &dyn Variables, depth: usize) -> Result<String, TemplateError> {
    let Expression::Value { name, operator } = expression else { return Ok("$".into()) };
    let found = values.look_up(name);
    let Some((Operator { kind, empty_is_unset }, operand)) = operator else {
        return match found {
            Err(error @ TemplateError::Absent { .. }) => values.absent(error),
            found => found,
        };
    };
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
            // A message may name variables, too; one that cannot be filled in is shown as it is.
            reason: match fill(operand, values, depth + 1) {
                Ok(message) if !message.is_empty() => message,
                Ok(_) => format!("`{name}` is not set"),
                Err(_) => (*operand).into(),
            },
        }),
    }
}
