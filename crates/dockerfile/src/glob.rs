//! Shell-like patterns as Go's `filepath.Match` reads them on Linux: `*`, `?`, `[a-z]`, `[^a]`, `\` escapes.
//!
//! `*` and `?` do not cross `/`. The whole name has to match. Names are bytes, for file names need not be UTF-8.

/// The pattern's syntax is wrong: an open `[`, an empty class, or a trailing `\`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Whether the pattern holds anything but literal characters.
pub fn has_meta(pattern: impl AsRef<[u8]>) -> bool {
    pattern.as_ref().iter().any(|byte| b"*?[\\".contains(byte))
}

/// Whether the whole of `name` matches.
///
/// # Errors
/// The pattern is malformed; this is found whatever the name is.
pub fn matches(pattern: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Result<bool, BadPattern> {
    let tokens = tokens(&units(pattern.as_ref()))?;
    Ok(matches_tokens(&tokens, &units(name.as_ref())))
}

/// Whether the pattern is well-formed.
///
/// # Errors
/// It is not.
pub fn check(pattern: impl AsRef<[u8]>) -> Result<(), BadPattern> {
    tokens(&units(pattern.as_ref())).map(drop)
}

/// Characters as numbers; a byte that is not UTF-8 becomes a number above all characters, so that it equals itself only.
fn units(bytes: &[u8]) -> Vec<u32> {
    let mut units = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        units.extend(chunk.valid().chars().map(u32::from));
        units.extend(chunk.invalid().iter().map(|&byte| 0x11_0000 + u32::from(byte)));
    }
    units
}

enum Token {
    Star,
    Any,
    Literal(u32),
    Class { negated: bool, ranges: Vec<(u32, u32)> },
}

const SLASH: u32 = b'/' as u32;

impl Token {
    fn matches(&self, unit: u32) -> bool {
        match self {
            Token::Star => false,
            Token::Any => unit != SLASH,
            Token::Literal(literal) => *literal == unit,
            Token::Class { negated, ranges } => {
                *negated != ranges.iter().any(|&(low, high)| low <= unit && unit <= high)
            }
        }
    }
}

fn tokens(pattern: &[u32]) -> Result<Vec<Token>, BadPattern> {
    let mut tokens = Vec::new();
    let mut rest = pattern.iter().copied().peekable();
    while let Some(unit) = rest.next() {
        tokens.push(match char::from_u32(unit) {
            Some('*') => Token::Star,
            Some('?') => Token::Any,
            Some('\\') => Token::Literal(rest.next().ok_or(BadPattern)?),
            Some('[') => {
                let negated = rest.next_if_eq(&u32::from('^')).is_some();
                let mut ranges = Vec::new();
                while ranges.is_empty() || rest.next_if_eq(&u32::from(']')).is_none() {
                    let low = class_member(&mut rest)?;
                    let dash = rest.next_if_eq(&u32::from('-')).is_some();
                    ranges.push((low, if dash { class_member(&mut rest)? } else { low }));
                }
                Token::Class { negated, ranges }
            }
            _ => Token::Literal(unit),
        });
    }
    Ok(tokens)
}

fn class_member(rest: &mut impl Iterator<Item = u32>) -> Result<u32, BadPattern> {
    match rest.next().map(|unit| (unit, char::from_u32(unit))) {
        None | Some((_, Some('-' | ']'))) => Err(BadPattern),
        Some((_, Some('\\'))) => rest.next().ok_or(BadPattern),
        Some((unit, _)) => Ok(unit),
    }
}

/// The usual two-pointer walk: on a mismatch the last star takes one more character. Linear memory, no recursion.
fn matches_tokens(tokens: &[Token], name: &[u32]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match tokens.get(token) {
            Some(Token::Star) => {
                star = Some((token, at));
                token += 1;
                continue;
            }
            Some(one) if one.matches(name[at]) => {
                token += 1;
                at += 1;
                continue;
            }
            _ => {}
        }
        match &mut star {
            Some((star_token, taken)) if name[*taken] != SLASH => {
                *taken += 1;
                at = *taken;
                token = *star_token + 1;
            }
            _ => return false,
        }
    }
    tokens[token..].iter().all(|token| matches!(token, Token::Star))
}
