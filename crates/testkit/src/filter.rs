//! What differs from run to run is replaced by its name.

use std::{net::SocketAddr, path::Path, sync::LazyLock};

use regex::Regex;

static FILTERS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        (r"sha256:[0-9a-f]{64}", "sha256:[DIGEST]"),
        (r"sha256:[0-9a-f]{8}…", "sha256:[DIGEST]…"),
        (r"\b[0-9a-f]{12}\b", "[ID]"),
        (r"\[ *\d+(\.\d)?s\]", "[TIME]"),
        (r"\b\d+\.\d+s\b", "TIMEs"),
        (r"\b\d+ (second|minute)s? ago", "AGO"),
        (r"\b\d+(\.\d+)? (B|kB|MB|GB)\b", "SIZE"),
        (r"\b(Less|About) than an? second\b", "AGO"),
    ]
    .map(|(pattern, name)| (Regex::new(pattern).expect("filters are constants"), name))
    .into()
});

/// A session's text without times, digests, sizes, and the world's own paths and ports.
pub fn filtered(text: &str, world: &Path, registry: Option<SocketAddr>) -> String {
    let mut text = text.replace(&*world.to_string_lossy(), "[WORLD]");
    if let Some(address) = registry {
        text = text.replace(&address.to_string(), "[REGISTRY]");
    }
    for (pattern, name) in FILTERS.iter() {
        text = pattern.replace_all(&text, *name).into_owned();
    }
    text
}
