//! One pattern of a `.dockerignore`, compiled.

use std::borrow::Cow;

use regex::Regex;

use super::part_may_match;
use crate::glob;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// Whether it began with `!`.
    pub(super) is_exception: bool,
    /// The cleaned pattern without `!`.
    text: String,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    Exact(String),
    Prefix(String),
    /// `**/foo`, which also matches `foo`.
    Suffix(String),
    Regex(Regex),
}

/// A path to be matched, as bytes and as text.
pub(super) struct Name<'a> {
    bytes: &'a [u8],
    text: Cow<'a, str>,
}

impl<'a> Name<'a> {
    /// Each byte that is not UTF-8 becomes one replacement character, as in Go, so that `?` matches it.
    pub(super) fn new(bytes: &'a [u8]) -> Name<'a> {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => {
                let mut text = String::new();
                for chunk in bytes.utf8_chunks() {
                    text.push_str(chunk.valid());
                    text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
                }
                Cow::Owned(text)
            }
        };
        Name { bytes, text }
    }
}

impl Pattern {
    /// Compiles a cleaned pattern.
    pub(super) fn new(cleaned: &str) -> Result<Pattern, &'static str> {
        let (is_exception, text) = match cleaned.strip_prefix('!') {
            Some("") => return Err("an exception needs a pattern after `!`"),
            Some(text) => (true, text),
            None => (false, cleaned),
        };
        glob::check(text).map_err(|_| "an open or empty `[…]`, or a trailing `\\`")?;
        let matcher = compile(text).ok_or("it cannot be read as a pattern")?;
        Ok(Pattern { is_exception, text: text.to_owned(), matcher })
    }

    /// The cleaned pattern without `!`.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether this very path matches (parents are the caller's business).
    pub(super) fn matches(&self, name: &Name<'_>) -> bool {
        match &self.matcher {
            Matcher::Exact(text) => name.bytes == text.as_bytes(),
            Matcher::Prefix(prefix) => name.bytes.starts_with(prefix.as_bytes()),
            Matcher::Suffix(suffix) => {
                name.bytes.ends_with(suffix.as_bytes())
                    || suffix.strip_prefix('/').is_some_and(|rest| name.bytes == rest.as_bytes())
            }
            Matcher::Regex(regex) => regex.is_match(&name.text),
        }
    }

    /// Whether something at or below the directory may match; doubt says yes.
    pub(super) fn may_match_below(&self, directory: &[u8]) -> bool {
        // Classes and escapes may cross `/` in the regular expression.
        if self.text.contains("**") || self.text.contains(['[', '\\', '^']) {
            return true;
        }
        let directory_parts = directory.split(|&byte| byte == b'/');
        directory_parts.zip(self.text.split('/')).all(|(part, glob_part)| part_may_match(glob_part, part))
    }
}

/// Chooses the cheapest exact matcher. `None`: the regular expression is malformed.
///
/// What `**` means follows moby to the letter: at the front it is any text (with a `/` behind it, also none), at the
/// end everything, and in between "nothing, or anything that ends in `/`", so that `a**b` matches `ab` and `a/x/b` but
/// not `axb`.
fn compile(text: &str) -> Option<Matcher> {
    #[derive(PartialEq)]
    enum Kind {
        Exact,
        Prefix,
        Suffix,
        Regex,
    }
    let mut kind = Kind::Exact;
    let mut regex = String::from("^");
    let mut chars = text.chars().peekable();
    let mut is_first = true;
    while let Some(ch) = chars.next() {
        match ch {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    regex.push_str("(.*/)?");
                    kind = Kind::Regex;
                } else if kind == Kind::Exact {
                    kind = Kind::Prefix;
                } else {
                    regex.push_str(".*");
                    kind = Kind::Regex;
                }
                if is_first {
                    kind = Kind::Suffix;
                }
            }
            '*' => {
                regex.push_str("[^/]*");
                kind = Kind::Regex;
            }
            '?' => {
                regex.push_str("[^/]");
                kind = Kind::Regex;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => {
                regex.push('\\');
                regex.push(ch);
            }
            '\\' => {
                regex.push('\\');
                if let Some(escaped) = chars.next() {
                    regex.push(escaped);
                    kind = Kind::Regex;
                }
            }
            '[' | ']' => {
                regex.push(ch);
                kind = Kind::Regex;
            }
            _ => regex.push(ch),
        }
        is_first = false;
    }
    Some(match kind {
        Kind::Exact => Matcher::Exact(text.to_owned()),
        Kind::Prefix => Matcher::Prefix(text[..text.len() - 2].to_owned()),
        Kind::Suffix => Matcher::Suffix(text[2..].to_owned()),
        Kind::Regex => {
            regex.push('$');
            Matcher::Regex(Regex::new(&from_go_regex(&regex)?).ok()?)
        }
    })
}

/// Go's regular expression syntax in Rust's, as far as patterns can produce it: classes differ (`[[a]`, `&&`, `--`),
/// and Perl classes are ASCII in Go.
fn from_go_regex(go: &str) -> Option<String> {
    let mut rust = String::new();
    let mut chars = go.chars().peekable();
    while let Some(ch) = chars.next() {
        match ch {
            '\\' => rust.push_str(&escape_outside(chars.next()?)?),
            '[' => rust.push_str(&class(&mut chars)?),
            ']' => rust.push_str("\\]"),
            _ => rust.push(ch),
        }
    }
    Some(rust)
}

fn escape_outside(escaped: char) -> Option<String> {
    Some(match escaped {
        'd' => "[0-9]".to_owned(),
        'D' => "[^0-9]".to_owned(),
        's' => "[\\t\\n\\f\\r ]".to_owned(),
        'S' => "[^\\t\\n\\f\\r ]".to_owned(),
        'w' => "[0-9A-Za-z_]".to_owned(),
        'W' => "[^0-9A-Za-z_]".to_owned(),
        'a' | 'f' | 'n' | 'r' | 't' | 'v' => format!("\\{escaped}"),
        letter if letter.is_ascii_alphanumeric() => return None,
        literal => regex::escape(literal.encode_utf8(&mut [0; 4])),
    })
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut class = String::from("[");
    if chars.next_if_eq(&'^').is_some() {
        class.push('^');
    }
    let mut is_first = true;
    loop {
        if !is_first && chars.next_if_eq(&']').is_some() {
            class.push(']');
            return Some(class);
        }
        is_first = false;
        if chars.peek() == Some(&'[') && chars.clone().nth(1) == Some(':') {
            let rest: String = chars.clone().collect();
            let name = &rest[..rest.find(":]")? + 2];
            class.push_str(name);
            for _ in name.chars() {
                chars.next();
            }
            continue;
        }
        let low = class_char(chars)?;
        class.push_str(&hex(low));
        let is_range = chars.peek() == Some(&'-') && chars.clone().nth(1).is_some_and(|after| after != ']');
        if is_range {
            chars.next();
            let high = class_char(chars)?;
            if high < low {
                return None;
            }
            class.push('-');
            class.push_str(&hex(high));
        }
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '\\' => match chars.next()? {
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            letter if letter.is_ascii_alphanumeric() => None,
            literal => Some(literal),
        },
        ch => Some(ch),
    }
}

fn hex(ch: char) -> String {
    format!("\\x{{{:x}}}", u32::from(ch))
}
