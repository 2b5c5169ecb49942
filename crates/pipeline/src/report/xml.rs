//! Walking through XML with bounded memory.

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

use super::InvalidReport;

/// Reports are not nested deeper.
const DEPTH_MAX: usize = 200;

/// A piece of a document.
pub(super) enum Piece<'a> {
    Open(Element<'a>),
    /// The element that was opened last is over.
    Close,
    Text(&'a str),
}

/// An element's name and attributes.
pub(super) struct Element<'a>(&'a BytesStart<'a>);

impl Element<'_> {
    /// Without the prefix of a namespace.
    pub(super) fn name(&self) -> String {
        String::from_utf8_lossy(self.0.local_name().as_ref()).into_owned()
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        // Without the check for doubles, which is slow where a hostile document has many.
        let found = self.0.attributes().with_checks(false).flatten().find(|one| one.key.as_ref() == name.as_bytes())?;
        let text = String::from_utf8_lossy(&found.value).into_owned();
        // An entity that the document defines itself stays as it is written.
        Some(quick_xml::escape::unescape(&text).map_or_else(|_| text.clone(), std::borrow::Cow::into_owned))
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        // Some writers group thousands.
        self.get(name)?.replace(',', "").trim().parse().ok()
    }
}

/// Hands on every piece in order; empty elements are opened and closed.
pub(super) fn walk(text: &str, visit: &mut dyn FnMut(Piece<'_>)) -> Result<(), InvalidReport> {
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}').trim_start());
    let (mut depth, mut elements) = (0usize, 0u64);
    loop {
        let event = reader.read_event().map_err(|error| InvalidReport::new(format!("it is not XML: {error}")))?;
        match event {
            Event::Start(start) => {
                depth += 1;
                elements += 1;
                if depth > DEPTH_MAX {
                    return Err(InvalidReport::new("it is nested too deep"));
                }
                visit(Piece::Open(Element(&start)));
            }
            Event::Empty(start) => {
                elements += 1;
                visit(Piece::Open(Element(&start)));
                visit(Piece::Close);
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                visit(Piece::Close);
            }
            Event::Text(text) => visit(Piece::Text(&text.decode().unwrap_or_default())),
            Event::CData(text) => visit(Piece::Text(&text.decode().unwrap_or_default())),
            Event::GeneralRef(reference) => {
                let name = reference.decode().unwrap_or_default();
                let character = reference.resolve_char_ref().ok().flatten().map(String::from);
                let known =
                    character.or_else(|| quick_xml::escape::resolve_predefined_entity(&name).map(str::to_owned));
                visit(Piece::Text(&known.unwrap_or_else(|| format!("&{name};"))));
            }
            Event::Eof if depth > 0 => return Err(InvalidReport::new("it is cut off: an element is not closed")),
            Event::Eof if elements == 0 => return Err(InvalidReport::new("it is not XML: there is no element")),
            Event::Eof => return Ok(()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}
