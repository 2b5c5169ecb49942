//! The merged tree of a stack of layers, walked from the top down without mounting anything.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{OFlags, Stat};

use super::{is_opaque, is_whiteout, join, kind, open_dir, open_in_root, sorted_names, stat_at};
use crate::StoreError;

/// As deep as unpacking goes.
pub(crate) const DEPTH_MAX: usize = 400;

/// One entry of the merged tree.
pub(crate) struct Node<'a> {
    /// From the root, without a leading slash.
    pub(crate) path: &'a [u8],
    /// Which layer it is of: files with several names have them in one layer.
    pub(crate) layer: usize,
    /// Its directory in that layer, and its name there.
    pub(crate) parent: &'a OwnedFd,
    pub(crate) name: &'a [u8],
    pub(crate) stat: Stat,
}

/// Visits every entry of the merged `layers` (topmost first) in one order: a directory before its entries, entries by name.
pub(crate) fn walk(
    layers: &[PathBuf],
    visit: &mut dyn FnMut(&Node<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let roots = layers.iter().map(|layer| open_dir(layer)).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<usize> = (0..roots.len()).collect();
    directory(&roots, b"", &all, 0, visit)
}

/// What layers have under one name.
#[derive(Default)]
pub(crate) struct Slot {
    /// The topmost one, which is what is seen.
    pub(crate) seen: Option<(usize, Arc<OwnedFd>, Stat)>,
    /// Layers whose directories of this name are merged, topmost first.
    pub(crate) parts: Vec<usize>,
    /// Nothing below counts any more.
    is_closed: bool,
}

fn directory(
    roots: &[OwnedFd],
    path: &[u8],
    candidates: &[usize],
    depth: usize,
    visit: &mut dyn FnMut(&Node<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    if depth > DEPTH_MAX {
        return Err(fail(path)(io::Error::other("it lies too deep")));
    }
    let names = names(roots, path, candidates).map_err(fail(path))?;
    for (name, slot) in names {
        let Some((layer, parent, stat)) = slot.seen else { continue };
        let path = join(path, &name);
        visit(&Node { path: &path, layer, parent: &parent, name: &name, stat })?;
        // No descriptor is held while the walk goes down: depth and layers do not multiply.
        drop(parent);
        if !slot.parts.is_empty() {
            directory(roots, &path, &slot.parts, depth + 1, visit)?;
        }
    }
    Ok(())
}

/// What the layers have in a directory that `candidates` (topmost first) have.
pub(crate) fn names(roots: &[OwnedFd], path: &[u8], candidates: &[usize]) -> io::Result<BTreeMap<Vec<u8>, Slot>> {
    let mut names: BTreeMap<Vec<u8>, Slot> = BTreeMap::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    for layer in candidates.iter().copied() {
        let part = Arc::new(open_in_root(&roots[layer], path, flags)?);
        for name in sorted_names(&part)? {
            let Some(stat) = stat_at(&part, &name)? else { continue };
            let slot = names.entry(name).or_default();
            if slot.is_closed {
                continue;
            }
            let is_directory = kind(&stat).is_dir();
            if is_whiteout(&stat) || (slot.seen.is_some() && !is_directory) {
                slot.is_closed = true;
                continue;
            }
            if slot.seen.is_none() {
                slot.seen = Some((layer, part.clone(), stat));
            }
            if is_directory {
                slot.parts.push(layer);
            }
            slot.is_closed = !is_directory;
        }
        if is_opaque(&part)? {
            break;
        }
    }
    Ok(names)
}

fn fail(path: &[u8]) -> impl Fn(io::Error) -> StoreError {
    let path = Path::new("/").join(String::from_utf8_lossy(path).as_ref());
    move |source| StoreError::At { action: "read", path: path.clone(), source }
}
