//! Asking for an image that is not built: a service's, or another one that a gate runs in.

use events::Place;
use oci::{Digest, Platform, Reference};

use crate::{Cancel, Root};

/// An image by its name.
#[derive(Clone, Debug)]
pub struct ImageRequest {
    /// Stage id for events.
    pub stage: String,
    /// The name, with a tag or digest.
    pub reference: Reference,
    /// Platform to run on; of another one there is a warning.
    pub platform: Platform,
    /// When the registry is asked.
    pub pull: Pull,
    /// Where the user names it.
    pub place: Option<Place>,
    /// Evidence that it must have, beside what is asked of all images of its name: `signature`, `gates`.
    pub verify: Vec<String>,
    /// Stops the work.
    pub cancel: Cancel,
}

/// When a registry is asked for an image (Compose, `pull_policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// Even when the name is known here.
    Always,
    /// When the name is not known here.
    #[default]
    Missing,
    /// Never: the image has to be here.
    Never,
}

impl Pull {
    /// As flags say it: always, or when it is missing.
    pub fn newer(is_wanted: bool) -> Self {
        if is_wanted { Self::Always } else { Self::Missing }
    }
}

/// The image that a name stands for now. Nothing after this looks at the name again.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// What containers start from.
    pub root: Root,
    /// Digest of its config (docker's image id), which follows from its content alone.
    pub id: Digest,
}
