//! Variables, quotes and escapes in words: BuildKit's shell lexer (`ProcessWord`, `ProcessWords`).
//!
//! Start at [`expand`]. It tries to mimic a shell without being one: no commands, no field splitting of the result,
//! no globbing. Source of the forms: the Dockerfile reference, "Environment replacement".

use std::collections::HashSet;

use regex::Regex;

/// Nested `${a:-${b:-…}}` deeper than this is an attack on the stack, not a Dockerfile.
const DEPTH_MAX: usize = 64;

/// A value may be longer than its text by this. The kernel takes 128 KiB as one variable, and `ENV A=$A$A` repeated would
/// fill any memory.
const GROWTH_BYTES_MAX: usize = 1024 * 1024;

/// Looks up a variable; `None` means unset.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Why a word has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ExpandError {
    #[error("missing closing single quote")]
    SingleQuote,
    #[error("missing closing double quote")]
    DoubleQuote,
    #[error("missing `}}` after `${{`")]
    MissingBrace,
    #[error("missing second `/` in `${{name/pattern/replacement}}`")]
    MissingSlash,
    #[error("bad substitution `{0}`")]
    BadSubstitution(String),
    #[error("unsupported modifier `{modifier}` in `${{{name}{modifier}…}}`")]
    UnsupportedModifier { name: String, modifier: String },
    /// `${name:?message}` found the variable missing.
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("invalid pattern `{0}` in substitution")]
    BadPattern(String),
    #[error("substitutions are nested too deeply")]
    TooDeep,
    #[error("the value is more than {GROWTH_BYTES_MAX} bytes longer than its text")]
    TooLong,
}

/// The result of [`expand_noting`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The whole value, as [`expand`] gives it.
    pub value: String,
    /// The value cut at unquoted blanks, as [`expand_words`] gives it.
    pub words: Vec<String>,
    /// Names read that had a value, in order, without repetition.
    pub matched: Vec<String>,
    /// Names read that were unset, in order, without repetition.
    pub unmatched: Vec<String>,
    /// Those of `unmatched` that were read without saying what to do then (`$x`, `${x}`, `${x#p}`, but not `${x:-d}`).
    pub undefined: Vec<String>,
}

/// Deviations from the ordinary treatment of a word. The default is the ordinary treatment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keep quote characters in the result.
    pub raw_quotes: bool,
    /// Keep escape characters in the result.
    pub raw_escapes: bool,
    /// Quotes are ordinary characters (texts of heredocs).
    pub skip_quotes: bool,
    /// Leave references to unset variables as they are written.
    pub skip_unset: bool,
}

/// The value of one word: variables replaced, quotes and escapes removed.
///
/// `escape` is the file's escape character. Unset variables are empty. Blanks are kept: the result is one word.
///
/// # Errors
/// Unbalanced quotes or braces, unknown modifiers, and `${name:?message}` of a missing variable.
pub fn expand(word: &str, escape: char, lookup: &Lookup<'_>) -> Result<String, ExpandError> {
    expand_noting(word, escape, lookup).map(|expansion| expansion.value)
}

/// The words that a word becomes: after expansion it is cut at unquoted blanks (`EXPOSE $PORTS`).
///
/// # Errors
/// As [`expand`].
pub fn expand_words(word: &str, escape: char, lookup: &Lookup<'_>) -> Result<Vec<String>, ExpandError> {
    expand_noting(word, escape, lookup).map(|expansion| expansion.words)
}

/// Value, words, and the names that were read.
///
/// # Errors
/// As [`expand`].
pub fn expand_noting(word: &str, escape: char, lookup: &Lookup<'_>) -> Result<Expansion, ExpandError> {
    expand_with(word, escape, lookup, Options::default())
}

/// The text of a COPY or ADD heredoc with an unquoted delimiter: variables replaced, quotes untouched, `\` escapes.
///
/// # Errors
/// As [`expand`].
pub fn expand_heredoc(text: &str, lookup: &Lookup<'_>) -> Result<String, ExpandError> {
    let options = Options { skip_quotes: true, ..Options::default() };
    expand_with(text, '\\', lookup, options).map(|expansion| expansion.value)
}

/// [`expand_noting`] with deviations.
///
/// # Errors
/// As [`expand`].
pub fn expand_with(word: &str, escape: char, lookup: &Lookup<'_>, options: Options) -> Result<Expansion, ExpandError> {
    let mut lexer = Lexer {
        chars: word.chars().collect(),
        position: 0,
        escape,
        lookup,
        raw_escapes: options.raw_escapes,
        options,
        depth: 0,
        room: word.len().saturating_add(GROWTH_BYTES_MAX),
        noted: Expansion::default(),
        seen: HashSet::new(),
        seen_undefined: HashSet::new(),
    };
    let (value, words) = lexer.until(None, options.raw_escapes)?;
    Ok(Expansion { value, words, ..lexer.noted })
}

struct Lexer<'a> {
    chars: Vec<char>,
    position: usize,
    escape: char,
    lookup: &'a Lookup<'a>,
    raw_escapes: bool,
    options: Options,
    depth: usize,
    /// Bytes of values that may still be read.
    room: usize,
    noted: Expansion,
    /// Names in `matched` or `unmatched`, and names in `undefined` of it.
    seen: HashSet<String>,
    seen_undefined: HashSet<String>,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.position).copied()
    }

    fn next(&mut self) -> Option<char> {
        let found = self.peek();
        self.position += usize::from(found.is_some());
        found
    }

    /// Reads up to `stop` (which is consumed) or to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), ExpandError> {
        if self.depth >= DEPTH_MAX {
            return Err(ExpandError::TooDeep);
        }
        self.depth += 1;
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.until_inner(stop);
        self.raw_escapes = outer;
        self.depth -= 1;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), ExpandError> {
        let mut value = String::new();
        let mut words = Words::default();
        while let Some(ch) = self.peek() {
            if Some(ch) == stop {
                self.next();
                return Ok((value, words.finish()));
            }
            match ch {
                '$' => {
                    let part = self.dollar()?;
                    words.add_text(&part);
                    value.push_str(&part);
                }
                '\'' if !self.options.skip_quotes => {
                    let part = self.single_quoted()?;
                    words.add_raw(&part);
                    value.push_str(&part);
                }
                '"' if !self.options.skip_quotes => {
                    let part = self.double_quoted()?;
                    words.add_raw(&part);
                    value.push_str(&part);
                }
                '<' => {
                    let part = self.heredoc_sign();
                    words.add_raw(&part);
                    value.push_str(&part);
                }
                _ => {
                    self.next();
                    if ch != self.escape {
                        words.add_char(ch);
                        value.push(ch);
                        continue;
                    }
                    if self.raw_escapes {
                        words.add_raw_char(ch);
                        value.push(ch);
                    }
                    // An escape at the very end is dropped.
                    let Some(escaped) = self.next() else { break };
                    words.add_raw_char(escaped);
                    value.push(escaped);
                }
            }
        }
        match stop {
            None => Ok((value, words.finish())),
            Some('/') => Err(ExpandError::MissingSlash),
            Some(_) => Err(ExpandError::MissingBrace),
        }
    }

    /// `<<` swallows the blanks after it, so that `<< EOF` is one word.
    fn heredoc_sign(&mut self) -> String {
        self.next();
        let mut sign = String::from("<");
        if self.peek() == Some('<') {
            self.next();
            sign.push('<');
            while let Some(blank) = self.peek().filter(|&ch| ch == ' ' || ch == '\t') {
                self.next();
                sign.push(blank);
            }
        }
        sign
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let mut value = String::new();
        self.next();
        if self.options.raw_quotes {
            value.push('\'');
        }
        loop {
            match self.next() {
                None => return Err(ExpandError::SingleQuote),
                Some('\'') => {
                    if self.options.raw_quotes {
                        value.push('\'');
                    }
                    return Ok(value);
                }
                Some(ch) => value.push(ch),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let mut value = String::new();
        self.next();
        if self.options.raw_quotes {
            value.push('"');
        }
        loop {
            match self.peek() {
                None => return Err(ExpandError::DoubleQuote),
                Some('"') => {
                    self.next();
                    if self.options.raw_quotes {
                        value.push('"');
                    }
                    return Ok(value);
                }
                Some('$') => value.push_str(&self.dollar()?),
                Some(ch) if ch == self.escape => {
                    self.next();
                    if self.raw_escapes {
                        value.push(ch);
                    }
                    match self.peek() {
                        None => {}
                        // These can be escaped; before anything else the escape is an ordinary character.
                        Some(escaped) if escaped == '"' || escaped == '$' || escaped == self.escape => {
                            self.next();
                            value.push(escaped);
                        }
                        Some(_) => value.push(ch),
                    }
                }
                Some(ch) => {
                    self.next();
                    value.push(ch);
                }
            }
        }
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.read(&name, false)? {
                None if self.options.skip_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err(ExpandError::MissingBrace),
            Some(ch @ ('{' | '}' | ':')) => return Err(ExpandError::BadSubstitution(format!("${{{ch}"))),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(ExpandError::MissingBrace),
            Some('}') => Ok(match self.read(&name, false)? {
                None if self.options.skip_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => match self.next() {
                None => Err(ExpandError::MissingBrace),
                Some(modifier) => self.modified(&name, modifier, true),
            },
            Some(modifier @ ('+' | '-' | '?' | '#' | '%')) => self.modified(&name, modifier, false),
            Some('/') => self.replaced(&name),
            Some(other) => Err(ExpandError::UnsupportedModifier { name, modifier: other.to_string() }),
        }
    }

    /// The rest of `${name:-word}` and its relatives, behind the modifier.
    fn modified(&mut self, name: &str, modifier: char, empty_is_unset: bool) -> Result<String, ExpandError> {
        let (word, _) = self.until(Some('}'), matches!(modifier, '#' | '%'))?;
        let guarded = matches!(modifier, '-' | '+' | '?');
        let value = self.read(name, guarded)?;
        if value.is_none() && self.options.skip_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let is_missing = match &value {
            None => true,
            Some(text) => empty_is_unset && text.is_empty(),
        };
        match modifier {
            '-' if is_missing => Ok(word),
            '+' if is_missing => Ok(String::new()),
            '+' => Ok(word),
            '?' if is_missing => {
                let state = if value.is_none() { "unset" } else { "empty" };
                let message = if word.is_empty() { format!("is not allowed to be {state}") } else { word };
                Err(ExpandError::Required { name: name.to_owned(), message })
            }
            '-' | '?' => Ok(value.unwrap_or_default()),
            // BuildKit knows no `:#`.
            '#' | '%' if !empty_is_unset => {
                let value = value.unwrap_or_default();
                let greedy = word.starts_with(modifier);
                let pattern = if greedy { &word[1..] } else { &word[..] };
                if modifier == '#' {
                    trim_prefix(pattern, &value, greedy)
                } else {
                    trim_suffix(pattern, &value, greedy)
                }
            }
            _ => Err(ExpandError::UnsupportedModifier { name: name.to_owned(), modifier: format!(":{modifier}") }),
        }
    }

    /// The rest of `${name/pattern/replacement}`, behind the first slash.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let (pattern, _) = self.until(Some('/'), true)?;
        let (replacement, _) = self.until(Some('}'), true)?;
        let value = self.read(name, false)?;
        if value.is_none() && self.options.skip_unset {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        let regex = pattern_regex(&pattern, true, false)?;
        let mut replaced = String::new();
        let mut rest = 0;
        for found in regex.find_iter(&value).take(if all { usize::MAX } else { 1 }) {
            self.take_room(replacement.len())?;
            replaced.push_str(&value[rest..found.start()]);
            replaced.push_str(&replacement);
            rest = found.end();
        }
        replaced.push_str(&value[rest..]);
        Ok(replaced)
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(ch) = self.peek() {
            if name.is_empty() && ch.is_numeric() {
                while let Some(digit) = self.peek().filter(|ch| ch.is_numeric()) {
                    self.next();
                    name.push(digit);
                }
                return name;
            }
            // The shell's special parameters are names of one character.
            if name.is_empty() && "@*#?-$!".contains(ch) {
                self.next();
                return ch.to_string();
            }
            if !ch.is_alphanumeric() && ch != '_' {
                break;
            }
            self.next();
            name.push(ch);
        }
        name
    }

    fn read(&mut self, name: &str, guarded: bool) -> Result<Option<String>, ExpandError> {
        let value = (self.lookup)(name);
        self.take_room(value.as_ref().map_or(0, String::len))?;
        if self.seen.insert(name.to_owned()) {
            let names = if value.is_some() { &mut self.noted.matched } else { &mut self.noted.unmatched };
            names.push(name.to_owned());
        }
        if value.is_none() && !guarded && self.seen_undefined.insert(name.to_owned()) {
            self.noted.undefined.push(name.to_owned());
        }
        Ok(value)
    }

    fn take_room(&mut self, bytes: usize) -> Result<(), ExpandError> {
        self.room = self.room.checked_sub(bytes).ok_or(ExpandError::TooLong)?;
        Ok(())
    }
}

/// Collects the words of a text that is cut at unquoted blanks.
#[derive(Default)]
struct Words {
    word: String,
    words: Vec<String>,
    in_word: bool,
}

impl Words {
    fn add_char(&mut self, ch: char) {
        if !ch.is_whitespace() {
            self.add_raw_char(ch);
        } else if self.in_word && !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
            self.in_word = false;
        }
    }

    fn add_raw_char(&mut self, ch: char) {
        self.word.push(ch);
        self.in_word = true;
    }

    fn add_text(&mut self, text: &str) {
        for ch in text.chars() {
            self.add_char(ch);
        }
    }

    fn add_raw(&mut self, text: &str) {
        self.word.push_str(text);
        self.in_word = true;
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

fn trim_prefix(pattern: &str, value: &str, greedy: bool) -> Result<String, ExpandError> {
    let regex = pattern_regex(pattern, greedy, true)?;
    Ok(match regex.find(value) {
        Some(found) => value[found.end()..].to_owned(),
        None => value.to_owned(),
    })
}

/// A regular expression finds leftmost matches only, so both pattern and value are turned round.
fn trim_suffix(pattern: &str, value: &str, greedy: bool) -> Result<String, ExpandError> {
    let reverse = |text: &str| text.chars().rev().collect::<String>();
    trim_prefix(&reverse_pattern(pattern), &reverse(value), greedy).map(|rest| reverse(&rest))
}

/// Reverses a pattern but keeps each escape before what it escapes.
fn reverse_pattern(pattern: &str) -> String {
    let mut tokens: Vec<String> = Vec::new();
    let mut chars = pattern.chars();
    while let Some(ch) = chars.next() {
        let mut token = ch.to_string();
        if ch == '\\' {
            token.extend(chars.next());
        }
        tokens.push(token);
    }
    tokens.into_iter().rev().collect()
}

/// A shell pattern of `*`, `?` and `\` escapes as a regular expression.
fn pattern_regex(pattern: &str, greedy: bool, anchored: bool) -> Result<Regex, ExpandError> {
    let bad = || ExpandError::BadPattern(pattern.to_owned());
    let mut regex = String::from(if anchored { "^" } else { "" });
    let mut chars = pattern.chars().peekable();
    while let Some(ch) = chars.next() {
        match ch {
            '*' => regex.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => regex.push('.'),
            '\\' => match chars.peek() {
                // These had to be escaped for the sake of `${}`; the escape is not part of the pattern.
                Some('}' | '/') => {}
                Some(&escaped @ ('*' | '?' | '\\')) => {
                    chars.next();
                    regex.push('\\');
                    regex.push(escaped);
                }
                _ => return Err(bad()),
            },
            literal => regex.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4]))),
        }
    }
    Regex::new(&regex).map_err(|_| bad())
}
