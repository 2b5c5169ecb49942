//! A logical line cut into keyword, flags and arguments, and arguments into words.

use super::Piece;
use crate::{Span, Word};

/// The blanks that BuildKit's parser splits at.
pub(crate) fn is_blank(ch: char) -> bool {
    matches!(ch, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r')
}

/// A logical line in its parts.
pub(crate) struct Command<'a> {
    pub(crate) keyword: Piece<'a>,
    pub(crate) flags: Vec<Letters>,
    /// Trimmed.
    pub(crate) args: Piece<'a>,
    /// Everything behind the keyword and its blanks, untrimmed.
    pub(crate) rest: Piece<'a>,
}

/// Keyword, `--flags`, arguments.
pub(crate) fn split_command<'a>(line: &Piece<'a>) -> Command<'a> {
    let lead = line.as_str().len() - line.as_str().trim_start().len();
    let line = line.from(lead);
    let text = line.as_str();
    let trimmed = text.trim_end();
    let keyword_end = trimmed.find(is_blank).unwrap_or(trimmed.len());
    let blanks = text[keyword_end..].len() - text[keyword_end..].trim_start_matches(is_blank).len();
    let rest = line.from(keyword_end + blanks);
    let behind = line.sub(keyword_end..trimmed.len());
    let (flags, args_start) = flags(&behind);
    Command { keyword: line.sub(0..keyword_end), flags, args: behind.from(args_start).trim(), rest }
}

/// Characters with their places: a word from which quotes and escapes have been taken out.
#[derive(Clone, Debug)]
pub(crate) struct Letters {
    letters: Vec<(char, usize)>,
    /// Place behind the last character, quotes included.
    end: usize,
    /// Place of the first, quotes included.
    start: usize,
}

impl Letters {
    pub(crate) fn span(&self) -> Span {
        self.start..self.end
    }

    pub(crate) fn text(&self) -> String {
        self.letters.iter().map(|&(ch, _)| ch).collect()
    }

    pub(crate) fn to_word(&self) -> Word {
        let span = match (self.letters.first(), self.letters.last()) {
            (Some(&(_, first)), Some(&(ch, last))) => first..last + ch.len_utf8(),
            _ => self.end..self.end,
        };
        Word { raw: self.text(), span }
    }

    /// Without the first `count` characters.
    pub(crate) fn skip(&self, count: usize) -> Letters {
        let letters = self.letters[count.min(self.letters.len())..].to_vec();
        let start = letters.first().map_or(self.end, |&(_, at)| at);
        Letters { letters, start, end: self.end }
    }

    /// What stands before and after the first `=`.
    pub(crate) fn split_equals(&self) -> (Letters, Option<Letters>) {
        let Some(at) = self.letters.iter().position(|&(ch, _)| ch == '=') else { return (self.clone(), None) };
        let place = self.letters[at].1;
        let name = Letters { letters: self.letters[..at].to_vec(), start: self.start, end: place };
        (name, Some(self.skip(at + 1)))
    }

    /// The fields of one line of comma separated values; `None`: quotes are wrong.
    pub(crate) fn csv(&self) -> Option<Vec<Letters>> {
        let mut fields = Vec::new();
        let mut rest = &self.letters[..];
        loop {
            let start = rest.first().map_or(self.end, |&(_, at)| at);
            let mut letters = Vec::new();
            if rest.first().is_some_and(|&(ch, _)| ch == '"') {
                rest = &rest[1..];
                loop {
                    let (&letter, behind) = rest.split_first()?;
                    rest = behind;
                    if letter.0 != '"' {
                        letters.push(letter);
                    } else if rest.first().is_some_and(|&(ch, _)| ch == '"') {
                        letters.push(rest[0]);
                        rest = &rest[1..];
                    } else {
                        break;
                    }
                }
                if rest.first().is_some_and(|&(ch, _)| ch != ',') {
                    return None;
                }
            } else {
                let length = rest.iter().position(|&(ch, _)| ch == ',').unwrap_or(rest.len());
                letters.extend_from_slice(&rest[..length]);
                rest = &rest[length..];
                if letters.iter().any(|&(ch, _)| ch == '"') {
                    return None;
                }
            }
            let end = rest.first().map_or(self.end, |&(_, at)| at);
            fields.push(Letters { letters, start, end });
            match rest.split_first() {
                Some((_, behind)) => rest = behind,
                None => return Some(fields),
            }
        }
    }
}

/// Takes the leading `--flags`; also gives where the arguments begin. `--` alone ends the flags.
///
/// Quotes go, and `\` (whatever the escape directive says) takes the next character as it is.
fn flags(text: &Piece<'_>) -> (Vec<Letters>, usize) {
    let source = text.as_str();
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        let rest = &source[at..];
        let start = at + (rest.len() - rest.trim_start().len());
        if !source[start..].starts_with("--") {
            return (flags, start);
        }
        let mut letters = Vec::new();
        let mut quote = None;
        let mut chars = source[start..].char_indices().peekable();
        at = source.len();
        while let Some((index, ch)) = chars.next() {
            match quote {
                None if ch.is_whitespace() => {
                    at = start + index;
                    break;
                }
                None if ch == '\'' || ch == '"' => quote = Some(ch),
                Some(open) if ch == open => quote = None,
                _ if ch == '\\' => {
                    if let Some((index, escaped)) = chars.next() {
                        letters.push((escaped, text.place(start + index)));
                    }
                }
                _ => letters.push((ch, text.place(start + index))),
            }
        }
        let span = text.sub(start..at).span();
        let flag = Letters { letters, start: span.start, end: span.end };
        if flag.letters.iter().all(|&(ch, _)| ch == '-') && flag.letters.len() == 2 {
            return (flags, at);
        }
        flags.push(flag);
    }
}

/// Words between blanks; quotes mean nothing.
pub(crate) fn split_blanks<'a>(piece: &Piece<'a>) -> Vec<Piece<'a>> {
    let text = piece.as_str();
    let mut words = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let length = rest.find(is_blank).unwrap_or(rest.len());
        if length > 0 {
            words.push(piece.sub(at..at + length));
        }
        at += length + rest[length..].chars().next().map_or(0, char::len_utf8);
    }
    words
}

/// Words between blanks outside quotes; quotes and escapes are kept (only an escape at the very end is dropped).
pub(crate) fn split_quoted<'a>(piece: &Piece<'a>, escape: char) -> Vec<Piece<'a>> {
    let text = piece.as_str();
    let mut words = Vec::new();
    let mut start = None;
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, ch)) = chars.next() {
        if quote.is_none() && ch.is_whitespace() {
            words.extend(start.take().map(|start| piece.sub(start..at)));
            continue;
        }
        start.get_or_insert(at);
        // Nothing can be escaped between single quotes.
        if ch == escape && quote != Some('\'') {
            if chars.next().is_none() {
                end = at;
            }
            continue;
        }
        match quote {
            None if ch == '\'' || ch == '"' => quote = Some(ch),
            Some(open) if ch == open => quote = None,
            _ => {}
        }
    }
    words.extend(start.filter(|&start| start < end).map(|start| piece.sub(start..end)));
    words
}
