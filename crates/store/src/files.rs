//! The files of an image: those of each layer by itself, and which of them the merged tree shows. Nothing is mounted.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, OFlags, Stat};

use crate::{
    Image, Stop, Store, StoreError,
    diff::open_file,
    tree::{self, Node, join},
};

/// Links that are followed for one path, as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// The files of an image. Lookups remember directories, so that many paths cost little more than their last parts.
pub struct ImageFiles {
    /// Bottom first.
    layers: Vec<Layer>,
    /// Directories of all layers, topmost first.
    roots: Vec<Root>,
    /// Directories of the merged tree, by path: which roots are merged there, topmost first.
    merged: HashMap<Vec<u8>, Vec<usize>>,
}

struct Layer {
    /// Topmost first.
    directories: Vec<PathBuf>,
    is_whole: bool,
}

struct Root {
    layer: usize,
    directory: OwnedFd,
}

/// A regular file or link that a layer has.
pub struct LayerFile<'a> {
    /// From the root, without a leading slash.
    pub path: &'a [u8],
    /// The permission bits.
    pub mode: u32,
    /// Size of a regular file in bytes.
    pub size_bytes: u64,
    /// Whether it is a symbolic link.
    pub is_link: bool,
    node: &'a Node<'a>,
}

impl LayerFile<'_> {
    /// Opens it for reading; a link is not followed.
    ///
    /// # Errors
    /// It cannot be opened, or is a link.
    pub fn open(&self) -> io::Result<File> {
        open_file(self.node.parent, self.node.name)
    }

    /// Opens the regular file of another name that the layer has in the same directory; `None` when it has none.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open_beside(&self, name: &[u8]) -> io::Result<Option<File>> {
        match tree::stat_at(self.node.parent, name)? {
            Some(stat) if tree::kind(&stat) == FileType::RegularFile => open_file(self.node.parent, name).map(Some),
            _ => Ok(None),
        }
    }
}

impl Store {
    /// Opens the layers of an image.
    ///
    /// # Errors
    /// A layer is not in the store, or cannot be read.
    pub fn files(&self, image: &Image) -> Result<ImageFiles, StoreError> {
        let (mut layers, mut roots) = (Vec::new(), Vec::new());
        for id in &image.layers {
            let meta = self.meta_file(id)?.ok_or_else(|| StoreError::UnknownSnapshot(id.clone()))?;
            layers.push(Layer { directories: self.layer_fs(id, &meta.meta), is_whole: meta.is_full });
        }
        for (layer, of) in layers.iter().enumerate().rev() {
            for directory in &of.directories {
                roots.push(Root { layer, directory: tree::open_dir(directory)? });
            }
            if of.is_whole {
                break;
            }
        }
        let merged = HashMap::from([(Vec::new(), (0..roots.len()).collect())]);
        Ok(ImageFiles { layers, roots, merged })
    }
}

impl ImageFiles {
    /// Whether a layer's directory holds all that lies below it too, as in a store that copies.
    pub fn is_whole(&self, layer: usize) -> bool {
        self.layers[layer].is_whole
    }

    /// Visits the regular files and links that one layer (0 is the lowest) has, in one order.
    ///
    /// # Errors
    /// The layer cannot be read, `visit` failed, or it was stopped.
    pub fn visit_layer(
        &self,
        layer: usize,
        stop: Stop<'_>,
        visit: &mut dyn FnMut(&LayerFile<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        tree::walk(&self.layers[layer].directories, &mut |node| {
            stop.check()?;
            let is_link = match tree::kind(&node.stat) {
                FileType::RegularFile => false,
                FileType::Symlink => true,
                _ => return Ok(()),
            };
            let size_bytes = node.stat.st_size.try_into().unwrap_or(0);
            visit(&LayerFile { path: node.path, mode: node.stat.st_mode & 0o7777, size_bytes, is_link, node })
        })
    }

    /// Which layer the merged tree shows at a path (without a leading slash), no link followed; `None` when there is
    /// nothing any more.
    ///
    /// # Errors
    /// A layer cannot be read.
    pub fn layer_of(&mut self, path: &[u8]) -> Result<Option<usize>, StoreError> {
        let found = self.look(path).map_err(at(path))?;
        Ok(found.map(|(root, _)| self.roots[root].layer))
    }

    /// The path (without a leading slash) of the regular file that a path names once every link is followed, inside the image.
    ///
    /// # Errors
    /// A layer cannot be read.
    pub fn resolve(&mut self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let mut rest = tree::clean(path.as_bytes());
        let mut links = 0;
        'again: loop {
            let whole = rest.clone();
            let ends = whole.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(place, _)| place);
            for end in ends.chain([whole.len()]) {
                let here = &whole[..end];
                let Some((root, stat)) = self.look(here).map_err(at(here))? else { return Ok(None) };
                match tree::kind(&stat) {
                    FileType::Directory if end < whole.len() => {}
                    FileType::RegularFile if end == whole.len() => return Ok(Some(whole)),
                    FileType::Symlink if links < LINKS_MAX => {
                        links += 1;
                        let (parent, name) = tree::split(here);
                        let target = self.link(root, parent, name).map_err(at(here))?;
                        let start = if target.starts_with(b"/") { target } else { join(parent, &target) };
                        rest = tree::clean(&[&start, b"/".as_slice(), &whole[end..]].concat());
                        continue 'again;
                    }
                    _ => return Ok(None),
                }
            }
            return Ok(None);
        }
    }

    /// Opens the regular file that a path names in the merged tree; links are followed inside of it.
    ///
    /// # Errors
    /// A layer or the file cannot be read.
    pub fn open(&mut self, path: &str) -> Result<Option<File>, StoreError> {
        let Some(real) = self.resolve(path)? else { return Ok(None) };
        let Some((root, _)) = self.look(&real).map_err(at(&real))? else { return Ok(None) };
        let (parent, name) = tree::split(&real);
        let opened = self.directory(root, parent).and_then(|parent| open_file(&parent, name));
        opened.map(Some).map_err(at(&real))
    }

    /// What the merged tree shows at a path that leads through no link.
    fn look(&mut self, path: &[u8]) -> io::Result<Option<(usize, Stat)>> {
        let (parent, name) = tree::split(path);
        for root in self.merged(parent)? {
            if let Some(stat) = tree::stat_at(self.directory(root, parent)?, name)? {
                return Ok((!tree::is_whiteout(&stat)).then_some((root, stat)));
            }
        }
        Ok(None)
    }

    /// The roots whose directories of this path are merged, topmost first.
    fn merged(&mut self, path: &[u8]) -> io::Result<Vec<usize>> {
        if let Some(known) = self.merged.get(path) {
            return Ok(known.clone());
        }
        let (parent, name) = tree::split(path);
        let mut roots = Vec::new();
        // Paths come from a walk of at most as many parts as the walk goes deep.
        for root in self.merged(parent)? {
            let Some(stat) = tree::stat_at(self.directory(root, parent)?, name)? else { continue };
            if !tree::kind(&stat).is_dir() {
                break;
            }
            roots.push(root);
            if tree::is_opaque(self.directory(root, path)?)? {
                break;
            }
        }
        self.merged.insert(path.to_vec(), roots.clone());
        Ok(roots)
    }

    fn directory(&self, root: usize, path: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        Ok(tree::open_in_root(&self.roots[root].directory, path, flags)?)
    }

    fn link(&self, root: usize, parent: &[u8], name: &[u8]) -> io::Result<Vec<u8>> {
        let parent = self.directory(root, parent)?;
        Ok(rustix::fs::readlinkat(&parent, name, Vec::new())?.into_bytes())
    }
}

fn at(path: &[u8]) -> impl Fn(io::Error) -> StoreError {
    let path = Path::new("/").join(String::from_utf8_lossy(path).as_ref());
    move |source| StoreError::At { action: "look at", path: path.clone(), source }
}
