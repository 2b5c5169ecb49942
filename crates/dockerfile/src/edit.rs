//! Small edits that keep everything else as it is: comments, order, blanks, quotes.

use crate::expand::expand;
use crate::{Dockerfile, InstructionKind, Span, Word, parse};

/// Why an edit was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum EditError {
    #[error("the Dockerfile has mistakes")]
    Invalid,
    #[error("no ENV or ARG sets `{0}`")]
    NoSuchName(String),
    #[error("there is no stage {0}")]
    NoSuchStage(usize),
    #[error("`{0}` cannot be written into a Dockerfile")]
    Unwritable(String),
}

/// Gives `name` the value in every ENV and ARG that gives it one; where none does, in the first ARG that declares it.
///
/// Quotes are kept where they stand and added where the value needs them. The value is taken literally: a `$` in it is
/// escaped.
///
/// # Errors
/// The text is no Dockerfile, nothing sets the name, or the value cannot be written on one line.
pub fn set_value(text: &str, name: &str, value: &str) -> Result<String, EditError> {
    let file = parse(text).map_err(|_| EditError::Invalid)?;
    if value.contains(['\n', '\r']) {
        return Err(EditError::Unwritable(value.to_owned()));
    }
    let places = assignments(&file, name);
    let escape = file.directives.escape;
    let mut edits: Vec<(Span, String)> = Vec::new();
    for place in &places {
        if let Place::Value(word) = place {
            edits.push((word.span.clone(), quote(value, Some(&word.raw), escape)));
        }
    }
    if edits.is_empty() {
        let Some(Place::Bare(word)) = places.first() else { return Err(EditError::NoSuchName(name.to_owned())) };
        edits.push((word.span.end..word.span.end, format!("={}", quote(value, None, escape))));
    }
    let edited = apply(text, edits);
    // What was written has to be read back as the value.
    let again = parse(&edited).map_err(|_| EditError::Unwritable(value.to_owned()))?;
    let is_read_back = assignments(&again, name).iter().any(|place| match place {
        Place::Value(word) => expand(&word.raw, escape, &|_| None).as_deref() == Ok(value),
        Place::Bare(_) => false,
    });
    if is_read_back { Ok(edited) } else { Err(EditError::Unwritable(value.to_owned())) }
}

/// Replaces what the FROM of a stage (from 0) names.
///
/// # Errors
/// The text is no Dockerfile, there is no such stage, or `image` is not one word.
pub fn set_base(text: &str, stage: usize, image: &str) -> Result<String, EditError> {
    let file = parse(text).map_err(|_| EditError::Invalid)?;
    let base = &file.stages.get(stage).ok_or(EditError::NoSuchStage(stage))?.base;
    let edited = apply(text, vec![(base.span.clone(), image.to_owned())]);
    let is_read_back =
        parse(&edited).is_ok_and(|again| again.stages.get(stage).is_some_and(|found| found.base.raw == image));
    if is_read_back { Ok(edited) } else { Err(EditError::Unwritable(image.to_owned())) }
}

enum Place<'a> {
    Value(&'a Word),
    /// An ARG without a default.
    Bare(&'a Word),
}

fn assignments<'a>(file: &'a Dockerfile, name: &str) -> Vec<Place<'a>> {
    let mut places = Vec::new();
    let in_stages = file.stages.iter().flat_map(|stage| &stage.instructions);
    let args = file.global_args.iter().chain(in_stages.clone().flat_map(|instruction| match &instruction.kind {
        InstructionKind::Arg(args) => &args[..],
        _ => &[],
    }));
    for arg in args.filter(|arg| arg.name.raw == name) {
        places.push(arg.default.as_ref().map_or(Place::Bare(&arg.name), Place::Value));
    }
    for instruction in in_stages {
        if let InstructionKind::Env(pairs) = &instruction.kind {
            places.extend(pairs.iter().filter(|(known, _)| known.raw == name).map(|(_, value)| Place::Value(value)));
        }
    }
    places
}

/// The value as it is written; `before` is what stood there.
fn quote(value: &str, before: Option<&str>, escape: char) -> String {
    let was = before.and_then(|before| before.chars().next()).filter(|ch| ['"', '\''].contains(ch));
    if was == Some('\'') && !value.contains('\'') {
        return format!("'{value}'");
    }
    let is_plain = |ch: char| !ch.is_whitespace() && !['"', '\'', '$', '<', escape].contains(&ch);
    if was.is_none() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    let mut quoted = String::from("\"");
    for ch in value.chars() {
        if ['"', '$', escape].contains(&ch) {
            quoted.push(escape);
        }
        quoted.push(ch);
    }
    quoted.push('"');
    quoted
}

fn apply(text: &str, mut edits: Vec<(Span, String)>) -> String {
    edits.sort_by_key(|(span, _)| span.start);
    let mut edited = text.to_owned();
    for (span, replacement) in edits.into_iter().rev() {
        edited.replace_range(span, &replacement);
    }
    edited
}
