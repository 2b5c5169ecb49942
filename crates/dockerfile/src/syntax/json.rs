//! The exec form: a JSON array of strings, with the place of each string.

use super::Piece;
use crate::Word;

/// Deeper nesting is not looked at: an exec form is flat.
const DEPTH_MAX: usize = 32;

/// Why it is no exec form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotExec {
    /// No JSON array at all; docker takes it as shell form.
    NotJson,
    /// A JSON array that holds something else than strings; docker refuses it.
    NotStrings,
}

/// Reads an exec form. A string's place is what stands between its quotes.
pub(crate) fn parse(piece: &Piece<'_>) -> Result<Vec<Word>, NotExec> {
    let text = piece.as_str();
    let mut json = Json { text, at: text.len() - text.trim_start().len() };
    if json.peek() != Some(b'[') {
        return Err(NotExec::NotJson);
    }
    json.at += 1;
    let mut words = Vec::new();
    let mut only_strings = true;
    json.items(b']', |json| {
        let start = json.at + 1;
        if json.peek() == Some(b'"') {
            let raw = json.string()?;
            words.push(Word { raw, span: piece.sub(start..json.at - 1).span() });
            Some(())
        } else {
            only_strings = false;
            json.value(0)
        }
    })
    .ok_or(NotExec::NotJson)?;
    json.skip_space();
    if json.at != text.len() {
        return Err(NotExec::NotJson);
    }
    if only_strings { Ok(words) } else { Err(NotExec::NotStrings) }
}

struct Json<'a> {
    text: &'a str,
    at: usize,
}

impl Json<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Items up to and with the closing bracket.
    fn items(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.skip_space();
        if self.peek() == Some(close) {
            self.at += 1;
            return Some(());
        }
        loop {
            self.skip_space();
            item(self)?;
            self.skip_space();
            let found = self.peek()?;
            self.at += 1;
            match found {
                b',' => {}
                found if found == close => return Some(()),
                _ => return None,
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'[' => {
                self.at += 1;
                self.items(b']', |json| json.value(depth + 1))
            }
            b'{' => {
                self.at += 1;
                self.items(b'}', |json| {
                    json.string()?;
                    json.skip_space();
                    (json.peek() == Some(b':')).then_some(())?;
                    json.at += 1;
                    json.skip_space();
                    json.value(depth + 1)
                })
            }
            b'-' | b'0'..=b'9' => self.number(),
            _ => {
                let rest = &self.text[self.at..];
                let word = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word))?;
                self.at += word.len();
                Some(())
            }
        }
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        (self.peek() == Some(b'"')).then_some(())?;
        self.at += 1;
        let mut value = String::new();
        loop {
            let ch = self.text[self.at..].chars().next()?;
            self.at += ch.len_utf8();
            match ch {
                '"' => return Some(value),
                '\\' => value.push(self.escape()?),
                control if control < ' ' => return None,
                _ => value.push(ch),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let kind = self.peek()?;
        self.at += 1;
        Some(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.unicode()?,
            _ => return None,
        })
    }

    /// `\uXXXX`, with the second half of a surrogate pair; a lone half becomes the replacement character, as in Go.
    fn unicode(&mut self) -> Option<char> {
        let first = self.hex4()?;
        if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
            let before = self.at;
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                return char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            }
            self.at = before;
        }
        Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }
}
