//! Which layers of a built image are its base's: remembered beside the image, because no field of it says so.

use engine::Built;
use oci::Digest;
use serde::{Deserialize, Serialize};
use store::{Image, MemoSubject, Store};

/// Memo namespace, by image id.
const MEMO: &str = "image-base";

/// The base of an image that was built here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageBase {
    /// As FROM names it.
    pub reference: String,
    /// Its id when the image was built.
    pub id: Digest,
    /// So many of the image's lowest layers are the base's.
    pub layers: usize,
}

/// The base of an image; `None` when it was not built here, or on nothing.
pub fn image_base(store: &Store, image: &Digest) -> Option<ImageBase> {
    serde_json::from_slice(&store.memo_get(MEMO, image.hex())?).ok()
}

/// Remembers the base of a built image. Losing it costs a remark in a list of layers.
pub(crate) fn remember(store: &Store, image: &Image, built: &Built) {
    // The same image may have come from another base of the same layers: the last build is right.
    if built.bases.is_empty() || image_base(store, &image.id).is_some_and(|known| is_of(&known, built)) {
        return;
    }
    let candidates = built.bases.iter().filter_map(|(reference, id)| {
        let base = store.image(id).ok().flatten()?;
        let layers = base.layers.len();
        image.layers.starts_with(&base.layers).then(|| ImageBase {
            reference: reference.clone(),
            id: id.clone(),
            layers,
        })
    });
    if let Some(base) = candidates.max_by_key(|base| base.layers) {
        let about = Some(MemoSubject::Image(image.id.clone()));
        let _ = store.memo_put_about(MEMO, image.id.hex(), &serde_json::to_vec(&base).unwrap_or_default(), about);
    }
}

fn is_of(known: &ImageBase, built: &Built) -> bool {
    built.bases.iter().any(|(reference, id)| *reference == known.reference && *id == known.id)
}
