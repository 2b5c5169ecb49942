//! A logical line: the text of its physical lines put together, with the way back to the file.

use std::ops::Range;

use crate::{Span, Word};

/// Joined text with the place of each part.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    text: String,
    /// `(start in text, start in file)` of each part that is not empty; ascending.
    parts: Vec<(usize, usize)>,
}

impl Joined {
    pub(crate) fn push(&mut self, part: &str, at: usize) {
        // An empty part would only hide the one after it, except that an empty line needs a place at all.
        if !part.is_empty() || self.parts.is_empty() {
            if self.parts.last().is_some_and(|&(start, _)| start == self.text.len()) {
                self.parts.pop();
            }
            self.parts.push((self.text.len(), at));
            self.text.push_str(part);
        }
    }

    pub(crate) fn all(&self) -> Piece<'_> {
        Piece { joined: self, range: 0..self.text.len() }
    }

    /// Place in the file of the byte at `at`.
    fn place(&self, at: usize) -> usize {
        let part = self.parts.partition_point(|&(start, _)| start <= at).saturating_sub(1);
        self.parts.get(part).map_or(0, |&(start, place)| place + (at - start))
    }

    fn span(&self, range: &Range<usize>) -> Span {
        if range.is_empty() {
            // The end of the byte before, so that a missing last argument is shown behind the line's text.
            let place = if range.start == 0 { self.place(0) } else { self.place(range.start - 1) + 1 };
            return place..place;
        }
        self.place(range.start)..self.place(range.end - 1) + 1
    }
}

/// Part of a joined line.
#[derive(Clone, Debug)]
pub(crate) struct Piece<'a> {
    joined: &'a Joined,
    range: Range<usize>,
}

impl<'a> Piece<'a> {
    pub(crate) fn as_str(&self) -> &'a str {
        &self.joined.text[self.range.clone()]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    pub(crate) fn span(&self) -> Span {
        self.joined.span(&self.range)
    }

    /// Place in the file of the byte at `at` of this piece.
    pub(crate) fn place(&self, at: usize) -> usize {
        self.joined.place(self.range.start + at)
    }

    /// The given bytes of this piece.
    pub(crate) fn sub(&self, range: Range<usize>) -> Piece<'a> {
        Piece { joined: self.joined, range: self.range.start + range.start..self.range.start + range.end }
    }

    /// From `at` to the end.
    pub(crate) fn from(&self, at: usize) -> Piece<'a> {
        self.sub(at..self.range.len())
    }

    pub(crate) fn trim(&self) -> Piece<'a> {
        let text = self.as_str();
        let start = text.len() - text.trim_start().len();
        self.sub(start..start + text.trim().len())
    }

    pub(crate) fn to_word(&self) -> Word {
        Word { raw: self.as_str().to_owned(), span: self.span() }
    }
}
