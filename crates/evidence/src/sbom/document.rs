//! What both formats need: whom a document is about, its time and number, and how suppliers and addresses are written.

use oci::{Digest, Reference};

/// Which image a document is about, and when it is dated. The same values give the same document, byte for byte.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// The name by which the image was asked for, if it was by a name.
    pub reference: Option<&'a Reference>,
    /// Digest of the image's manifest; of its config where no manifest was made yet.
    pub digest: &'a Digest,
    /// Architecture of the image, as in its config.
    pub architecture: &'a str,
    /// When the document is dated, in seconds since 1970: the commit's time or `SOURCE_DATE_EPOCH`, never the clock.
    pub created_s: i64,
}

impl About<'_> {
    /// The image's name for people.
    pub(crate) fn name(&self) -> String {
        self.reference.map_or_else(|| self.digest.to_string(), |reference| reference.familiar())
    }

    /// RFC 3339, whole seconds, UTC.
    pub(crate) fn created(&self) -> String {
        jiff::Timestamp::from_second(self.created_s).unwrap_or_default().to_string()
    }

    /// A UUID (RFC 9562, version 8) that follows from the image, the program's version and the format.
    pub(crate) fn uuid(&self, format: &str) -> String {
        let hash = Digest::of(format!("{format} {} {}", env!("CARGO_PKG_VERSION"), self.digest).as_bytes());
        let hex = hash.hex();
        // The variant's two bits are 10.
        format!("{}-{}-8{}-9{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
    }
}

/// `Name <mail>` in its two parts.
pub(crate) fn person(text: &str) -> (String, Option<String>) {
    let clean = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.split_once('<') {
        Some((name, mail)) => {
            let mail = clean(mail.split('>').next().unwrap_or_default());
            let name = clean(name).trim_matches('"').to_owned();
            (if name.is_empty() { mail.clone() } else { name }, Some(mail).filter(|mail| !mail.is_empty()))
        }
        None => (clean(text), None),
    }
}

/// An address that a reader may follow; packages write all kinds of things there.
pub(crate) fn web(address: &str) -> Option<&str> {
    let is_web = address.starts_with("https://") || address.starts_with("http://");
    let is_uri = address.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}[]".contains(&b));
    (is_web && is_uri).then_some(address)
}
