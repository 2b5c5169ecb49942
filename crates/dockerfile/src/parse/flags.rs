//! The `--flags` of an instruction.

use super::instruction::Context;
use crate::syntax::words::Letters;
use crate::{Diagnostic, Word, nearest};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// `true`, `false`, or nothing, which means `true`.
    Switch,
    /// One value.
    Value,
    /// A value, and the flag may be repeated.
    Values,
}

/// Flags of each instruction.
pub(super) fn known(keyword: &str) -> &'static [(&'static str, Takes)] {
    use Takes::{Switch, Value, Values};
    match keyword {
        "ADD" => &[
            ("chown", Value),
            ("chmod", Value),
            ("link", Switch),
            ("exclude", Values),
            ("checksum", Value),
            ("keep-git-dir", Switch),
            ("unpack", Switch),
        ],
        "COPY" => &[
            ("from", Value),
            ("chown", Value),
            ("chmod", Value),
            ("link", Switch),
            ("parents", Switch),
            ("exclude", Values),
        ],
        "FROM" => &[("platform", Value)],
        "HEALTHCHECK" => &[
            ("interval", Value),
            ("timeout", Value),
            ("start-period", Value),
            ("start-interval", Value),
            ("retries", Value),
        ],
        "RUN" => &[("mount", Values), ("network", Value), ("security", Value), ("device", Values)],
        _ => &[],
    }
}

/// Flags that were checked.
#[derive(Default)]
pub(super) struct Flags {
    given: Vec<(&'static str, Letters, Option<Letters>)>,
}

impl Flags {
    /// Checks names, repetition, and that there is a value where one is needed. Wrong flags are reported and dropped.
    pub(super) fn check(keyword: &str, flags: &[Letters], context: &mut Context) -> Flags {
        let mut checked = Flags::default();
        for flag in flags {
            let (name, value) = flag.skip(2).split_equals();
            let name_text = name.text();
            let Some(&(known_name, takes)) = known(keyword).iter().find(|(known, _)| *known == name_text) else {
                context.error(unknown_flag(keyword, &name_text, flag));
                continue;
            };
            if takes != Takes::Values && checked.given.iter().any(|(earlier, ..)| *earlier == known_name) {
                context.error(
                    Diagnostic::error("ST106", format!("flag `--{name_text}` is given twice")).with_span(flag.span()),
                );
                continue;
            }
            let is_missing = match (&value, takes) {
                (None, Takes::Switch) => false,
                (None, _) => true,
                (Some(value), Takes::Switch) => value.text().is_empty(),
                (Some(_), _) => false,
            };
            if is_missing {
                context.error(
                    Diagnostic::error("ST107", format!("flag `--{name_text}` needs a value"))
                        .with_span(flag.span())
                        .with_label(format!("write `--{name_text}=value`")),
                );
                continue;
            }
            let is_boolean = |text: &str| text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
            if let (Takes::Switch, Some(value)) = (takes, &value)
                && !is_boolean(&value.text())
            {
                let message = format!("flag `--{name_text}` is true or false, not `{}`", value.text());
                context.error(Diagnostic::error("ST107", message).with_span(value.to_word().span));
                continue;
            }
            checked.given.push((known_name, flag.clone(), value));
        }
        checked
    }

    /// The value of a flag.
    pub(super) fn value(&self, name: &str) -> Option<Word> {
        self.letters(name).next().map(|(_, value)| value.to_word())
    }

    /// The values of a flag that may be repeated.
    pub(super) fn values(&self, name: &str) -> Vec<Word> {
        self.letters(name).map(|(_, value)| value.to_word()).collect()
    }

    /// Whole flag and value, in order.
    pub(super) fn letters(&self, name: &str) -> impl Iterator<Item = (&Letters, &Letters)> {
        let given = self.given.iter().filter(move |(given, ..)| *given == name);
        given.filter_map(|(_, flag, value)| value.as_ref().map(|value| (flag, value)))
    }

    /// A switch: `None` when it is not given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        let (_, _, value) = self.given.iter().find(|(given, ..)| *given == name)?;
        Some(value.as_ref().is_none_or(|value| value.text().eq_ignore_ascii_case("true")))
    }
}

fn unknown_flag(keyword: &str, name: &str, flag: &Letters) -> Diagnostic {
    let names: Vec<String> = known(keyword).iter().map(|(name, _)| format!("--{name}")).collect();
    let written = format!("--{name}");
    let diagnostic = Diagnostic::error("ST105", format!("{keyword} has no flag `{written}`")).with_span(flag.span());
    if let Some(near) = nearest(&written, names.iter().map(String::as_str)) {
        return diagnostic.with_suggestion(Some(near));
    }
    let others = super::KEYWORDS.iter().filter(|other| known(other).iter().any(|(known, _)| *known == name));
    let others: Vec<&str> = others.copied().collect();
    let diagnostic = match &others[..] {
        [] => diagnostic,
        others => diagnostic.with_note(format!("{} has such a flag", others.join(" and "))),
    };
    match &names[..] {
        [] => diagnostic.with_help(format!("{keyword} takes no flags")),
        names => diagnostic.with_help(format!("{keyword} takes {}", names.join(", "))),
    }
}
