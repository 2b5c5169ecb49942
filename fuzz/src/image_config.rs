//! What registries and archives say about an image: configs, manifests, indexes, and the names in them.

use oci::{Digest, ImageConfig, Index, Manifest, Platform, Reference};
use serde::{Serialize, de::DeserializeOwned};

/// Reads the bytes as each of the documents, and as each of the names.
pub fn run(data: &[u8]) {
    if let Some(config) = document::<ImageConfig>(data) {
        let platform = config.platform();
        let _ = (platform.to_string(), config.config.env_value("PATH"));
    }
    document::<Manifest>(data);
    document::<Index>(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        let again: Reference = reference.to_string().parse().expect("a reference's own words can be read");
        assert_eq!(again, reference);
        let familiar: Reference = reference.familiar().parse().expect("its short form too");
        assert_eq!(familiar, reference);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(
            platform.to_string().parse::<Platform>().ok().map(|again| again.to_string()),
            Some(platform.to_string())
        );
    }
}

/// What was read can be written, and reads the same.
fn document<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(data).ok()?;
    let bytes = serde_json::to_vec(&value).expect("it can be written");
    let again: T = serde_json::from_slice(&bytes).expect("it can be read again");
    assert_eq!(again, value);
    Some(value)
}
