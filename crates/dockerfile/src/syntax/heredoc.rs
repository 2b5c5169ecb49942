//! Heredocs: which a line announces, and their bodies.

use super::words::split_command;
use super::{Joined, Piece, json};
use crate::expand::{Options, expand_with};
use crate::{Heredoc, Span};

/// `<<EOF` as it stands in the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeredocSign {
    pub(crate) name: String,
    pub(crate) chomp: bool,
    pub(crate) expand: bool,
}

/// A heredoc with its body as written.
#[derive(Clone, Debug)]
pub(crate) struct RawHeredoc {
    pub(crate) sign: HeredocSign,
    pub(crate) raw: String,
    pub(crate) span: Span,
}

impl RawHeredoc {
    pub(crate) fn to_heredoc(&self) -> Heredoc {
        let content = if self.sign.chomp { chomp(&self.raw) } else { self.raw.clone() };
        Heredoc { name: self.sign.name.clone(), content, expand: self.sign.expand, span: self.span.clone() }
    }
}

/// The heredocs that the line opens. Only RUN, COPY and ADD (also behind ONBUILD) in shell form can.
pub(crate) fn announced(joined: &Joined) -> Vec<HeredocSign> {
    let line = joined.all();
    if !line.as_str().contains("<<") || !may_open(&line, true) {
        return Vec::new();
    }
    lex(line.as_str(), true, true).iter().filter_map(|word| parse(word)).collect()
}

fn may_open(line: &Piece<'_>, may_be_onbuild: bool) -> bool {
    let command = split_command(line);
    match command.keyword.as_str().to_ascii_uppercase().as_str() {
        "RUN" | "COPY" | "ADD" => json::parse(&command.args).is_err(),
        "ONBUILD" if may_be_onbuild => may_open(&command.args, false),
        _ => false,
    }
}

/// The word as a heredoc's sign: `<<EOF`, `<<-EOF`, `3<<"EOF"`.
pub(crate) fn parse(word: &str) -> Option<HeredocSign> {
    let rest = word.trim_start_matches(|ch: char| ch.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches(|ch: char| ch.is_ascii_whitespace());
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let [name] = &lex(rest, false, false)[..] else { return None };
    let [with_quotes] = &lex(rest, true, false)[..] else { return None };
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Some(HeredocSign { name: name.clone(), chomp, expand: quotes(name) == quotes(with_quotes) })
}

/// Words of a line, with variables left alone. A line that cannot be read has none.
fn lex(text: &str, raw_quotes: bool, raw_escapes: bool) -> Vec<String> {
    let options = Options { raw_quotes, raw_escapes, skip_unset: true, skip_quotes: false };
    expand_with(text, '\\', &|_| None, options).map(|expansion| expansion.words).unwrap_or_default()
}

fn chomp(raw: &str) -> String {
    raw.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
