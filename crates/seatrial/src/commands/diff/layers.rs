//! Layers that both images have, and what a host that has one of them must fetch for the other.

use std::collections::HashSet;

use anyhow::Context as _;
use oci::DiffId;
use serde_json::{Value, json};
use store::{Compression, Image, SnapshotId, Stop, Store};

use crate::{context::Context, terminal::text};

/// A layer of one of the images.
struct Layer {
    diff_id: DiffId,
    tar_bytes: u64,
    /// In a registry; only known where it has to be fetched.
    compressed_bytes: Option<u64>,
}

/// Layers by where they are.
pub(super) struct Layers {
    shared: Vec<Layer>,
    gone: Vec<Layer>,
    new: Vec<Layer>,
}

impl Layers {
    /// Sorts the layers. Those that are new are compressed as for a registry, if they are not yet: that is what their
    /// size is asked of.
    pub(super) fn of(store: &Store, old: &Image, new: &Image, context: &Context) -> anyhow::Result<Self> {
        let ids = |image: &Image| image.config.rootfs.diff_ids.iter().cloned().collect::<HashSet<_>>();
        let (old_ids, new_ids) = (ids(old), ids(new));
        let mut layers = Self { shared: Vec::new(), gone: Vec::new(), new: Vec::new() };
        for (snapshot, diff_id) in old.layers.iter().zip(&old.config.rootfs.diff_ids) {
            if !new_ids.contains(diff_id) {
                layers.gone.push(layer(store, snapshot, diff_id)?);
            }
        }
        let cancel = context.cancel.clone();
        let is_stopped = move || cancel.is_cancelled();
        for (snapshot, diff_id) in new.layers.iter().zip(&new.config.rootfs.diff_ids) {
            let mut layer = layer(store, snapshot, diff_id)?;
            if old_ids.contains(diff_id) {
                layers.shared.push(layer);
                continue;
            }
            let sealed = store.seal_or_stop(snapshot, new.epoch, Compression::Gzip.into(), Stop::when(&is_stopped));
            layer.compressed_bytes = Some(sealed.context("cannot compress a layer")?.size);
            layers.new.push(layer);
        }
        Ok(layers)
    }

    /// Bytes of the layers that a host with the first image fetches for the second.
    fn fetch_bytes(&self) -> u64 {
        self.new.iter().filter_map(|layer| layer.compressed_bytes).sum()
    }

    pub(super) fn lines(&self, old: &str, new: &str) -> String {
        let sum = |layers: &[Layer]| text::bytes(layers.iter().map(|layer| layer.tar_bytes).sum());
        let mut parts = vec![format!("{} shared ({})", self.shared.len(), sum(&self.shared))];
        for (layers, of) in [(&self.gone, old), (&self.new, new)] {
            if !layers.is_empty() {
                parts.push(format!("{} only in {of} ({})", layers.len(), sum(layers)));
            }
        }
        let fetch = match self.new.as_slice() {
            [] => format!("a host that has {old} fetches no layer for {new}"),
            _ => format!("a host that has {old} fetches {} for {new}", text::bytes(self.fetch_bytes())),
        };
        format!("  {}\n  {fetch}\n", parts.join(", "))
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

fn layer(store: &Store, snapshot: &SnapshotId, diff_id: &DiffId) -> anyhow::Result<Layer> {
    let meta = store.snapshot(snapshot).context("cannot read a layer's record")?;
    let tar_bytes = meta.and_then(|meta| meta.tar_bytes).unwrap_or(0);
    Ok(Layer { diff_id: diff_id.clone(), tar_bytes, compressed_bytes: None })
}
