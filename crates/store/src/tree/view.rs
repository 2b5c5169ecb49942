//! Looks up paths through a stack of layers as overlayfs would, without mounting anything.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use rustix::fs::{FileType, Stat};

use super::{clean, is_opaque, is_whiteout, join, kind, open_dir, open_dir_at, stat_at};
use crate::StoreError;

/// Links followed for one path, as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// Layers, topmost first.
pub(crate) struct View {
    layers: Vec<Arc<OwnedFd>>,
}

/// What a path names in the merged tree.
pub(crate) struct Found {
    /// Directory in the topmost layer that has it.
    pub(crate) parent: OwnedFd,
    /// Its name there.
    pub(crate) name: Vec<u8>,
    pub(crate) stat: Stat,
}

impl View {
    pub(crate) fn open(layers: &[PathBuf]) -> Result<Self, StoreError> {
        Ok(Self { layers: layers.iter().map(|layer| open_dir(layer).map(Arc::new)).collect::<Result<_, _>>()? })
    }

    /// Finds a cleaned path; a link as its last part is not followed. The root itself is not found here.
    pub(crate) fn find(&self, path: &[u8]) -> io::Result<Option<Found>> {
        Ok(self.walk(path.to_vec(), 0)?.map(|(found, _)| found))
    }

    /// The parts in the layers of the directory that a cleaned path names, topmost first; links are followed. None when it
    /// is no directory.
    pub(crate) fn directory(&self, path: &[u8]) -> io::Result<Vec<Arc<OwnedFd>>> {
        let mut path = path.to_vec();
        for _ in 0..LINKS_MAX {
            if path.is_empty() {
                return Ok(self.layers.clone());
            }
            let Some((found, below)) = self.walk(path.clone(), 0)? else { return Ok(Vec::new()) };
            let FileType::Symlink = kind(&found.stat) else { return Ok(below) };
            let target = rustix::fs::readlinkat(&found.parent, found.name.as_slice(), Vec::new())?.into_bytes();
            path = clean(&if target.starts_with(b"/") { target } else { join(super::split(&path).0, &target) });
        }
        Ok(Vec::new())
    }

    /// What a path names, and its parts in the layers where it is a directory.
    fn walk(&self, path: Vec<u8>, links: usize) -> io::Result<Option<(Found, Vec<Arc<OwnedFd>>)>> {
        let mut directories = self.layers.clone();
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|part| !part.is_empty()).collect();
        for (place, part) in parts.iter().enumerate() {
            let is_last = place + 1 == parts.len();
            let Some((found, below)) = step(&directories, part)? else { return Ok(None) };
            if is_last {
                return Ok(Some((found, below)));
            }
            match kind(&found.stat) {
                FileType::Directory => directories = below,
                FileType::Symlink if links < LINKS_MAX => {
                    let target = rustix::fs::readlinkat(&found.parent, *part, Vec::new())?;
                    let target = target.to_bytes();
                    let here = parts[..place].join(&b'/');
                    let start = if target.starts_with(b"/") { target.to_vec() } else { join(&here, target) };
                    let rest = parts[place + 1..].join(&b'/');
                    return self.walk(clean(&join(&start, &rest)), links + 1);
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// One name in merged directories: what it is, and, for a directory, its parts in the layers.
fn step(directories: &[Arc<OwnedFd>], name: &[u8]) -> io::Result<Option<(Found, Vec<Arc<OwnedFd>>)>> {
    let mut found: Option<Found> = None;
    let mut below = Vec::new();
    for directory in directories {
        let Some(stat) = stat_at(directory, name)? else { continue };
        if is_whiteout(&stat) {
            break;
        }
        let is_directory = kind(&stat).is_dir();
        if found.is_some() && !is_directory {
            break;
        }
        if found.is_none() {
            found = Some(Found { parent: directory.as_fd().try_clone_to_owned()?, name: name.to_vec(), stat });
        }
        if !is_directory {
            break;
        }
        let part = Arc::new(open_dir_at(directory, name)?);
        let hides = is_opaque(&part)?;
        below.push(part);
        if hides {
            break;
        }
    }
    Ok(found.map(|found| (found, below)))
}
