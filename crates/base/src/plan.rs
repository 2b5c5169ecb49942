//! What a host base will hold, as data: worked out first, written afterwards.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    elf::{Elf, ElfError},
    libraries::SearchPath,
};

/// The kernel's own limit of links that are followed for one name (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// A base is a few thousand files; more means that `--with` named something like `/`.
const ENTRIES_MAX: usize = 200_000;
/// Directories within directories; a tree of libraries is shallow.
const DEPTH_MAX: usize = 64;

/// One name in the new root filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory with this mode.
    Directory(u32),
    /// A symbolic link with this text.
    Link(PathBuf),
    /// A copy of this file of the machine, with this mode.
    Copy(PathBuf, u32),
    /// A file with this content and mode 0644.
    Text(String),
}

/// Something of this machine that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// What.
    pub what: String,
    /// Why, in words for people.
    pub reason: String,
}

/// The content of a root filesystem: names relative to its root, sorted, so that parents come before children.
#[derive(Clone, Debug, Default)]
pub struct HostPlan {
    /// Every name except the root itself.
    pub entries: BTreeMap<PathBuf, Entry>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
    /// The newest file that is copied: the image's time, so that the same machine gives the same image.
    pub newest: Option<SystemTime>,
    search: Option<SearchPath>,
}

/// A file of this machine cannot become part of a base image.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It could not be looked at.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It could not be read as a program.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// Only what everyone may read is copied: an image is made to be passed on.
    #[error("{0} is not readable by everyone")]
    Private(PathBuf),
    /// Neither file, directory nor link.
    #[error("{0} is neither a file nor a directory")]
    Special(PathBuf),
    /// Links in a circle.
    #[error("{0} leads through too many links")]
    Links(PathBuf),
    /// Far more than a base image.
    #[error("{0} holds too much for a base image")]
    TooMuch(PathBuf),
}

impl HostPlan {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// A directory; what is there already stays, apart from its mode.
    pub fn directory(&mut self, path: &str, mode: u32) {
        let path = relative(Path::new(path));
        self.parents(&path);
        self.entries.insert(path, Entry::Directory(mode));
    }

    /// A file of ours; replaces a former one.
    pub fn text(&mut self, path: &str, text: impl Into<String>) {
        let path = relative(Path::new(path));
        self.parents(&path);
        self.entries.insert(path, Entry::Text(text.into()));
    }

    /// A link of ours, unless the name is taken.
    pub fn link(&mut self, path: &str, target: impl Into<PathBuf>) {
        let path = relative(Path::new(path));
        self.parents(&path);
        self.entries.entry(path).or_insert(Entry::Link(target.into()));
    }

    /// Whether there is something under this name.
    pub fn has(&self, path: &str) -> bool {
        self.entries.contains_key(&relative(Path::new(path)))
    }

    /// Takes in a file of this machine under its own name, every link on the way to it, and all that it needs to run:
    /// loader, libraries, interpreter. Gives the final file's place in the image.
    pub fn file(&mut self, host: &Path) -> Result<PathBuf, PlanError> {
        self.file_within(host, LINKS_MAX)
    }

    /// Takes in a whole directory of this machine. `keep` decides by the path on this machine; files that are not
    /// readable by everyone are left out and listed.
    pub fn tree(&mut self, host: &Path, keep: &dyn Fn(&Path) -> bool) -> Result<(), PlanError> {
        let host = fs_err::canonicalize(host)?;
        self.tree_within(&host, keep, DEPTH_MAX)
    }

    fn tree_within(&mut self, host: &Path, keep: &dyn Fn(&Path) -> bool, depth: usize) -> Result<(), PlanError> {
        if depth == 0 || self.entries.len() > ENTRIES_MAX {
            return Err(PlanError::TooMuch(host.into()));
        }
        let place = in_image(host);
        self.parents(&place);
        self.entries.entry(place).or_insert(Entry::Directory(0o755));
        for entry in fs_err::read_dir(host)? {
            let path = entry?.path();
            if !keep(&path) {
                continue;
            }
            let metadata = fs_err::symlink_metadata(&path)?;
            let done = if metadata.is_dir() {
                self.tree_within(&path, keep, depth - 1)
            } else if metadata.is_symlink() && path.is_dir() {
                // A link to a directory is kept as such; where it leads is taken in only when it lies in this tree.
                fs_err::read_link(&path).map_err(PlanError::from).map(|target| {
                    self.entries.insert(in_image(&path), Entry::Link(target));
                })
            } else {
                self.file(&path).map(drop)
            };
            match done {
                Ok(()) => {}
                Err(error @ PlanError::TooMuch(_)) => return Err(error),
                Err(error) => {
                    self.skipped.push(Skipped { what: path.display().to_string(), reason: error.to_string() });
                }
            }
        }
        Ok(())
    }

    fn file_within(&mut self, host: &Path, links: usize) -> Result<PathBuf, PlanError> {
        if links == 0 {
            return Err(PlanError::Links(host.into()));
        }
        let host = with_real_parent(host)?;
        let place = in_image(&host);
        let metadata = fs_err::symlink_metadata(&host)?;
        if metadata.is_symlink() {
            let target = host.parent().unwrap_or(Path::new("/")).join(fs_err::read_link(&host)?);
            let next = with_real_parent(&target)?;
            let last = self.file_within(&next, links - 1)?;
            self.parents(&place);
            // `/bin/x -> /usr/bin/x` of an unmerged machine would become a link to itself.
            let next = in_image(&next);
            if next != place {
                self.entries.entry(place).or_insert(Entry::Link(Path::new("/").join(next)));
            }
            return Ok(last);
        }
        if !metadata.is_file() {
            return Err(PlanError::Special(host));
        }
        if metadata.mode() & 0o004 == 0 {
            return Err(PlanError::Private(host));
        }
        if matches!(self.entries.get(&place), Some(Entry::Copy(..))) {
            return Ok(place);
        }
        // Set-id bits and group or other write permission stay behind; what runs is executable by all.
        let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        self.parents(&place);
        self.entries.insert(place.clone(), Entry::Copy(host.clone(), mode));
        if let Ok(seconds) = u64::try_from(metadata.mtime()) {
            self.newest = self.newest.max(Some(UNIX_EPOCH + Duration::from_secs(seconds)));
        }
        match Elf::read(&host)? {
            Some(elf) => self.needs_of(&elf, &host)?,
            None if mode == 0o755 => self.interpreter_of(&host)?,
            None => {}
        }
        Ok(place)
    }

    fn needs_of(&mut self, elf: &Elf, host: &Path) -> Result<(), PlanError> {
        if let Some(loader) = &elf.interpreter {
            // A loader of another C library or architecture may be absent: then the program runs neither here nor there.
            if let Err(error) = self.file(Path::new(loader)) {
                let reason = format!("the loader of {}: {error}", host.display());
                self.skipped.push(Skipped { what: loader.clone(), reason });
            }
        }
        let directory = host.parent().unwrap_or(Path::new("/"));
        for name in &elf.needed {
            let search = self.search.get_or_insert_with(SearchPath::of_this_machine);
            let Some(found) = search.find(name, elf, directory) else {
                let reason = format!("not found on this machine, needed by {}", host.display());
                self.skipped.push(Skipped { what: name.clone(), reason });
                continue;
            };
            self.file(&found.path)?;
            if !found.is_self_evident {
                self.show_to_loader(name, &found.path, elf)?;
            }
        }
        Ok(())
    }

    /// There is no loader cache in the image: a library from elsewhere gets a link beside the C library.
    fn show_to_loader(&mut self, name: &str, path: &Path, elf: &Elf) -> Result<(), PlanError> {
        let c_library = ["libc.so.6", "libc.so"];
        let search = self.search.get_or_insert_with(SearchPath::of_this_machine);
        let beside = c_library.iter().find_map(|library| search.find(library, elf, Path::new("/")));
        let Some(beside) = beside else { return Ok(()) };
        let directory = in_image(&with_real_parent(&beside.path)?);
        let target = Path::new("/").join(in_image(&with_real_parent(path)?));
        let link = directory.with_file_name(name);
        self.parents(&link);
        self.entries.entry(link).or_insert(Entry::Link(target));
        Ok(())
    }

    fn interpreter_of(&mut self, script: &Path) -> Result<(), PlanError> {
        let mut head = Vec::new();
        // The kernel itself reads 256 bytes (BINPRM_BUF_SIZE).
        fs_err::File::open(script)?.take(256).read_to_end(&mut head)?;
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let Some(line) = line.strip_prefix(b"#!") else { return Ok(()) };
        let line = String::from_utf8_lossy(line);
        let mut words = line.split_whitespace();
        let Some(interpreter) = words.next() else { return Ok(()) };
        if Path::new(interpreter).exists() {
            self.file(Path::new(interpreter))?;
        } else {
            let reason = format!("not found on this machine, interpreter of {}", script.display());
            self.skipped.push(Skipped { what: interpreter.into(), reason });
        }
        Ok(())
    }

    fn parents(&mut self, path: &Path) {
        let mut ancestor = path.parent();
        while let Some(directory) = ancestor.filter(|directory| !directory.as_os_str().is_empty()) {
            self.entries.entry(directory.into()).or_insert(Entry::Directory(0o755));
            ancestor = directory.parent();
        }
    }
}

/// The same name with every link in its directory part resolved; its last part may be a link still.
fn with_real_parent(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(fs_err::canonicalize(parent)?.join(name)),
        // `/` or a name that ends in `..`.
        _ => fs_err::canonicalize(path),
    }
}

/// Where a file of this machine lies in the image, relative to its root. The image is always merged into /usr.
fn in_image(host: &Path) -> PathBuf {
    let path = relative(host);
    let merged = ["bin", "sbin", "lib", "lib64", "lib32", "libx32"];
    if merged.iter().any(|directory| path.starts_with(directory)) { Path::new("usr").join(path) } else { path }
}

fn relative(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let path = fs_err::canonicalize(home.path()).unwrap();
        (home, path)
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs_err::write(path, text).unwrap();
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn every_link_on_the_way_is_kept() {
        let (_home, dir) = world();
        write(&dir.join("real"), "x", 0o644);
        std::os::unix::fs::symlink("real", dir.join("middle")).unwrap();
        std::os::unix::fs::symlink(dir.join("middle"), dir.join("name")).unwrap();
        let mut plan = HostPlan::new();
        let last = plan.file(&dir.join("name")).unwrap();
        assert_eq!(last, relative(&dir.join("real")));
        assert_eq!(plan.entries[&relative(&dir.join("name"))], Entry::Link(dir.join("middle")));
        assert_eq!(plan.entries[&relative(&dir.join("middle"))], Entry::Link(dir.join("real")));
        assert_eq!(plan.entries[&last], Entry::Copy(dir.join("real"), 0o644));
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let (_home, dir) = world();
        std::os::unix::fs::symlink("b", dir.join("a")).unwrap();
        std::os::unix::fs::symlink("a", dir.join("b")).unwrap();
        assert!(matches!(HostPlan::new().file(&dir.join("a")), Err(PlanError::Links(_))));
    }

    #[test]
    fn private_files_stay_at_home() {
        let (_home, dir) = world();
        write(&dir.join("key"), "secret", 0o640);
        write(&dir.join("open"), "x", 0o644);
        assert!(matches!(HostPlan::new().file(&dir.join("key")), Err(PlanError::Private(_))));
        let mut plan = HostPlan::new();
        plan.tree(&dir, &|_| true).unwrap();
        assert!(plan.entries.contains_key(&relative(&dir.join("open"))));
        assert!(!plan.entries.contains_key(&relative(&dir.join("key"))));
        assert_eq!(plan.skipped.len(), 1);
    }

    #[test]
    fn a_script_brings_its_interpreter_and_that_its_libraries() {
        let (_home, dir) = world();
        write(&dir.join("tool"), "#!/bin/sh -e\necho\n", 0o4755);
        let mut plan = HostPlan::new();
        let place = plan.file(&dir.join("tool")).unwrap();
        assert_eq!(plan.entries[&place], Entry::Copy(dir.join("tool"), 0o755), "the set-id bit stays behind");
        assert!(plan.has("usr/bin/sh"), "{:?}", plan.entries.keys());
        let libraries = plan.entries.keys().filter(|path| path.to_string_lossy().contains("/libc.")).count();
        assert!(libraries > 0, "{:?}", plan.entries.keys());
    }

    #[test]
    fn unmerged_directories_are_merged() {
        assert_eq!(in_image(Path::new("/lib/x/libc.so.6")), Path::new("usr/lib/x/libc.so.6"));
        assert_eq!(in_image(Path::new("/library/a")), Path::new("library/a"));
        assert_eq!(in_image(Path::new("/usr/bin/env")), Path::new("usr/bin/env"));
    }
}
