//! Layers that both images have, and what a host that has one of them must fetch for the other.

use std::collections::HashSet;

use anyhow::Context as _;
use oci::DiffId;
use serde_json::{Value, json};
use store::{Compression, Stop, Store};

use super::side::Side;
use crate::{context::Context, terminal::text};

/// A layer of one of the images.
#[derive(Clone)]
struct Layer {
    diff_id: DiffId,
    /// Unpacked; only known where the store has it.
    tar_bytes: Option<u64>,
    /// In a registry; only known where it is in one, or would have to be fetched.
    compressed_bytes: Option<u64>,
}

/// Layers by where they are.
pub(super) struct Layers {
    shared: Vec<Layer>,
    gone: Vec<Layer>,
    new: Vec<Layer>,
}

impl Layers {
    /// Sorts the layers. Those that are new are compressed as for a registry, if they are neither yet nor in one: that is what
    /// their size is asked of.
    pub(super) fn of(store: &Store, old: &Side, new: &Side, context: &Context) -> anyhow::Result<Self> {
        let ids = |side: &Side| side.config.rootfs.diff_ids.iter().cloned().collect::<HashSet<_>>();
        let (old_ids, new_ids) = (ids(old), ids(new));
        let mut layers = Self { shared: Vec::new(), gone: Vec::new(), new: Vec::new() };
        layers.gone = of_side(store, old)?.into_iter().filter(|layer| !new_ids.contains(&layer.diff_id)).collect();
        let cancel = context.cancel.clone();
        let is_stopped = move || cancel.is_cancelled();
        for (number, mut layer) in of_side(store, new)?.into_iter().enumerate() {
            if old_ids.contains(&layer.diff_id) {
                layers.shared.push(layer);
                continue;
            }
            if let (None, Some(image)) = (layer.compressed_bytes, &new.image) {
                let (snapshot, stop) = (&image.layers[number], Stop::when(&is_stopped));
                let sealed = store.seal_or_stop(snapshot, image.epoch, Compression::Gzip.into(), stop);
                layer.compressed_bytes = Some(sealed.context("cannot compress a layer")?.size);
            }
            layers.new.push(layer);
        }
        Ok(layers)
    }

    /// Whether both have the same layers.
    pub(super) fn are_same(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }

    /// Bytes of the layers that a host with the first image fetches for the second.
    fn fetch_bytes(&self) -> u64 {
        self.new.iter().filter_map(|layer| layer.compressed_bytes).sum()
    }

    pub(super) fn lines(&self, (old, new): (&str, &str)) -> String {
        // Both images are measured in the same way, or their sizes could not be compared.
        let has_tars =
            [&self.shared, &self.gone, &self.new].iter().all(|list| list.iter().all(|l| l.tar_bytes.is_some()));
        let sum = |layers: &[Layer]| -> Option<u64> {
            layers.iter().map(|layer| if has_tars { layer.tar_bytes } else { layer.compressed_bytes }).sum()
        };
        let words =
            |layers: &[Layer]| sum(layers).map(|bytes| format!(" ({})", text::bytes(bytes))).unwrap_or_default();
        let mut parts = vec![format!("{} shared{}", self.shared.len(), words(&self.shared))];
        for (layers, of) in [(&self.gone, old), (&self.new, new)] {
            if !layers.is_empty() {
                parts.push(format!("{} only in {of}{}", layers.len(), words(layers)));
            }
        }
        let mut out = format!("  {}\n", parts.join(", "));
        if let (Some(shared), Some(gone), Some(added)) = (sum(&self.shared), sum(&self.gone), sum(&self.new)) {
            let (before, now) = (shared + gone, shared + added);
            let delta = text::delta(now, before);
            let how = if has_tars { "" } else { ", compressed" };
            let delta = if delta.is_empty() { delta } else { format!(" {delta}") };
            out.push_str(&format!("  {} → {}{delta}{how}\n", text::bytes(before), text::bytes(now)));
        }
        out.push_str(&match self.new.as_slice() {
            [] => format!("  a host that has {old} fetches no layer for {new}\n"),
            _ => format!("  a host that has {old} fetches {} for {new}\n", text::bytes(self.fetch_bytes())),
        });
        out
    }

    pub(super) fn value(&self) -> Value {
        let list = |layers: &[Layer]| -> Vec<Value> {
            let value = |layer: &Layer| {
                json!({
                    "DiffId": layer.diff_id.to_string(),
                    "SizeBytes": layer.tar_bytes,
                    "CompressedBytes": layer.compressed_bytes,
                })
            };
            layers.iter().map(value).collect()
        };
        json!({
            "Shared": list(&self.shared),
            "Gone": list(&self.gone),
            "New": list(&self.new),
            "FetchBytes": self.fetch_bytes(),
        })
    }
}

/// The layers of an image, bottom first, with what is known of their sizes.
fn of_side(store: &Store, side: &Side) -> anyhow::Result<Vec<Layer>> {
    let mut layers = Vec::new();
    for (number, diff_id) in side.config.rootfs.diff_ids.iter().enumerate() {
        let mut tar_bytes = None;
        if let Some(snapshot) = side.image.as_ref().and_then(|image| image.layers.get(number)) {
            let meta = store.snapshot(snapshot).context("cannot read a layer's record")?;
            tar_bytes = meta.and_then(|meta| meta.tar_bytes);
        }
        let in_registry =
            side.remote.as_ref().and_then(|remote| remote.manifest.layers.get(number)).map(|blob| blob.size);
        let compressed_bytes = in_registry.or_else(|| store.compressed_layer(diff_id).map(|blob| blob.size));
        layers.push(Layer { diff_id: diff_id.clone(), tar_bytes, compressed_bytes });
    }
    Ok(layers)
}
