//! Arguments in the few forms that instructions share.

use super::instruction::{Context, description};
use crate::syntax::json::{self, NotExec};
use crate::syntax::{Comment, Piece, words};
use crate::{ArgDecl, Command, Diagnostic, Word};

/// The words of a list, and whether it was written as JSON.
pub(super) struct List {
    pub(super) words: Vec<Word>,
    pub(super) is_json: bool,
}

impl Context {
    /// Exec form if it is a JSON array, shell form otherwise.
    pub(super) fn command(&mut self, args: &Piece<'_>) -> Option<Command> {
        match json::parse(args) {
            Ok(words) => Some(Command::Exec(words.into_iter().map(|word| word.raw).collect())),
            Err(NotExec::NotStrings) => self.not_strings(args),
            Err(NotExec::NotJson) => {
                self.warn_of_broken_json(args);
                Some(Command::Shell(args.as_str().to_owned()))
            }
        }
    }

    /// A JSON array, or words between blanks.
    pub(super) fn list(&mut self, args: &Piece<'_>) -> Option<List> {
        match json::parse(args) {
            Ok(words) => Some(List { words, is_json: true }),
            Err(NotExec::NotStrings) => self.not_strings(args),
            Err(NotExec::NotJson) => {
                self.warn_of_broken_json(args);
                let words = words::split_blanks(args).iter().map(Piece::to_word).collect();
                Some(List { words, is_json: false })
            }
        }
    }

    fn not_strings<T>(&mut self, args: &Piece<'_>) -> Option<T> {
        self.error(
            Diagnostic::error("ST113", "an exec form holds strings only")
                .with_span(args.span())
                .with_label("put every element in double quotes"),
        );
        None
    }

    /// `[ -f x ] && …` is a fine shell command; `['a']` and `["a",]` are meant as JSON.
    fn warn_of_broken_json(&mut self, args: &Piece<'_>) {
        let text = args.as_str();
        let Some(inner) = text.strip_prefix('[') else { return };
        if inner.trim_start().starts_with(['"', '\'', '“', '”', '‘', '’']) && text.ends_with(']') {
            self.problems.push(
                Diagnostic::warning("ST117", "this is not valid JSON, so it is read as plain text")
                    .with_span(args.span())
                    .with_label("an exec form is a JSON array of strings in double quotes"),
            );
        }
    }

    /// Exactly one argument, which is all the rest of the line.
    pub(super) fn one(&mut self, keyword: &str, args: &Piece<'_>) -> Option<Word> {
        if args.is_empty() {
            return self.missing(keyword, "exactly one argument", args);
        }
        Some(args.to_word())
    }

    pub(super) fn missing<T>(&mut self, keyword: &str, needs: &str, args: &Piece<'_>) -> Option<T> {
        self.error(Diagnostic::error("ST108", format!("{keyword} needs {needs}")).with_span(args.span()));
        None
    }

    /// `name=value …`, or the old `name value`.
    pub(super) fn pairs(&mut self, keyword: &str, args: &Piece<'_>) -> Option<Vec<(Word, Word)>> {
        let words = words::split_quoted(args, self.escape);
        let Some(first) = words.first() else { return self.missing(keyword, "at least one argument", args) };
        if is_legacy_pair(first) {
            return self.legacy_pair(keyword, args).map(|pair| vec![pair]);
        }
        let mut pairs = Vec::new();
        for word in &words {
            let Some(equals) = word.as_str().find('=') else {
                self.error(
                    Diagnostic::error("ST114", format!("`{}` is not of the form name=value", word.as_str()))
                        .with_span(word.span())
                        .with_help("put quotes around a value that holds blanks"),
                );
                return None;
            };
            let name = word.sub(0..equals);
            if name.is_empty() {
                return self.blank_name(keyword, word);
            }
            pairs.push((name.to_word(), word.from(equals + 1).to_word()));
        }
        Some(pairs)
    }

    fn legacy_pair(&mut self, keyword: &str, args: &Piece<'_>) -> Option<(Word, Word)> {
        let text = args.as_str();
        let Some(end) = text.find(words::is_blank) else {
            self.error(
                Diagnostic::error("ST114", format!("{keyword} needs a name and a value"))
                    .with_span(args.span())
                    .with_label(format!("write `{text}=value`")),
            );
            return None;
        };
        let value_start = text.len() - text[end..].trim_start_matches(words::is_blank).len();
        Some((args.sub(0..end).to_word(), args.from(value_start).to_word()))
    }

    fn blank_name<T>(&mut self, keyword: &str, word: &Piece<'_>) -> Option<T> {
        self.error(
            Diagnostic::error("ST114", format!("{keyword} names cannot be blank"))
                .with_span(word.span())
                .with_label("the name before `=` is missing"),
        );
        None
    }

    /// `name[=default] …`
    pub(super) fn declarations(&mut self, args: &Piece<'_>, comments: &[Comment]) -> Option<Vec<ArgDecl>> {
        let words = words::split_quoted(args, self.escape);
        if words.is_empty() {
            return self.missing("ARG", "at least one argument", args);
        }
        let mut declarations = Vec::new();
        for word in &words {
            let (name, default) = match word.as_str().find('=') {
                Some(0) => return self.blank_name("ARG", word),
                Some(equals) => (word.sub(0..equals).to_word(), Some(word.from(equals + 1).to_word())),
                None => (word.to_word(), None),
            };
            let description = description(comments, &name.raw);
            declarations.push(ArgDecl { name, default, description });
        }
        Some(declarations)
    }
}

/// Whether ENV or LABEL is written in the old form, which the first word decides.
pub(crate) fn is_legacy_pair(first: &Piece<'_>) -> bool {
    !first.as_str().contains('=')
}
