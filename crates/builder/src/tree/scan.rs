//! Everything in a tree, as a list: large trees are walked on several threads.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Condvar, Mutex},
    thread::Scope,
};

use rustix::{
    fs::{AtFlags, OFlags, readlinkat, statat},
    io::Errno,
};

use super::{Entry, Keep, Kind, join, lookup, named, names, open_beneath};
use crate::work::locked;

/// A thread costs as much as looking at some dozens of files; below this many the walk is over before others could help.
const ALONE_FILES_MAX: usize = 1000;
/// More threads than this wait for the directories' locks in the kernel.
const THREADS_MAX: usize = 8;

/// What belongs to a tree.
pub(crate) type Filter<'a> = &'a (dyn Fn(&[u8]) -> Keep + Sync);

/// Everything at and below the canonical path `from`, parents before children, names in byte order. `keep` sees paths
/// relative to the root.
pub(crate) fn scan(root: BorrowedFd<'_>, from: &[u8], keep: Filter<'_>) -> io::Result<Vec<Entry>> {
    let Some(node) = lookup(root, from)? else { return Err(Errno::NOENT.into()) };
    let mut entries = vec![Entry::new(Vec::new(), &node.stat, node.link)];
    if entries[0].kind == Kind::Dir {
        let walk = Walk { root, from, keep, state: Mutex::default(), changed: Condvar::new() };
        std::thread::scope(|scope| walk.lead(scope));
        let State { mut listed, seen, failure, .. } =
            walk.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(error) = failure {
            return Err(error);
        }
        entries.reserve(seen);
        flatten(&mut listed, 0, &mut entries);
    }
    Ok(entries)
}

/// A walk in progress.
struct Walk<'a> {
    root: BorrowedFd<'a>,
    from: &'a [u8],
    keep: Filter<'a>,
    state: Mutex<State>,
    /// There is more to do, or nothing will be any more.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Directories that nobody has taken yet: place in `listed`, and path.
    todo: Vec<(usize, Vec<u8>)>,
    /// Directories that somebody is at.
    taken: usize,
    /// The directories' children, the one where the scan began first.
    listed: Vec<Vec<Child>>,
    seen: usize,
    failure: Option<io::Error>,
}

struct Child {
    entry: Entry,
    /// Place of its own children.
    listed: Option<usize>,
    /// It belongs to the tree only if something below it does.
    is_way: bool,
}

impl<'a> Walk<'a> {
    /// The first thread's part: the others come when the tree turns out to be large.
    fn lead<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        {
            let mut state = locked(&self.state);
            state.listed.push(Vec::new());
            state.todo.push((0, Vec::new()));
        }
        let mut is_alone = true;
        while self.step() {
            if is_alone && locked(&self.state).seen > ALONE_FILES_MAX {
                is_alone = false;
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                for _ in 1..processors.min(THREADS_MAX) {
                    scope.spawn(|| while self.step() {});
                }
            }
        }
    }

    /// Lists one directory; false when there is none any more.
    fn step(&self) -> bool {
        let mut state = locked(&self.state);
        let (at, path) = loop {
            if state.failure.is_some() {
                return false;
            }
            match state.todo.pop() {
                Some(next) => break next,
                None if state.taken == 0 => return false,
                None => state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
            }
        };
        state.taken += 1;
        drop(state);
        let children = self.list(&path);
        let mut state = locked(&self.state);
        state.taken -= 1;
        match children {
            Ok(mut children) => {
                state.seen += children.len();
                for child in children.iter_mut().filter(|child| child.entry.kind == Kind::Dir) {
                    let place = state.listed.len();
                    child.listed = Some(place);
                    state.listed.push(Vec::new());
                    state.todo.push((place, child.entry.path.clone()));
                }
                state.listed[at] = children;
            }
            Err(error) => drop(state.failure.get_or_insert(error)),
        }
        self.changed.notify_all();
        true
    }

    /// What is in one directory, sorted.
    fn list(&self, below: &[u8]) -> io::Result<Vec<Child>> {
        let directory_path = join(self.from, below);
        // Opened by its path from the root, so that a deep tree does not hold a descriptor for each level.
        let descriptor = open_beneath(self.root, &directory_path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| named(error, "read", &directory_path))?;
        let mut names = names(descriptor.as_fd()).map_err(|error| named(error, "read", &directory_path))?;
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut children = Vec::with_capacity(names.len());
        for (name, _) in names {
            let full = join(&directory_path, &name);
            let verdict = (self.keep)(&full);
            if verdict == Keep::No {
                continue;
            }
            let stat = match statat(&descriptor, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // It went away since the directory was read.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(named(errno.into(), "look at", &full)),
            };
            let kind = Kind::of(stat.st_mode);
            let is_way = verdict == Keep::Below;
            if is_way && kind != Kind::Dir {
                continue;
            }
            let link = match kind {
                Kind::Symlink => readlinkat(&descriptor, name.as_slice(), Vec::new())
                    .map_err(|errno| named(errno.into(), "read", &full))?
                    .into_bytes(),
                _ => Vec::new(),
            };
            children.push(Child { entry: Entry::new(join(below, &name), &stat, link), listed: None, is_way });
        }
        Ok(children)
    }
}

fn flatten(listed: &mut [Vec<Child>], at: usize, entries: &mut Vec<Entry>) {
    for child in std::mem::take(&mut listed[at]) {
        let place = entries.len();
        entries.push(child.entry);
        if let Some(below) = child.listed {
            flatten(listed, below, entries);
        }
        if child.is_way && entries.len() == place + 1 {
            entries.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, Mode, openat};

    use super::*;

    fn paths(root: &std::path::Path, keep: Filter<'_>) -> io::Result<Vec<String>> {
        let root = openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let entries = scan(root.as_fd(), b"", keep)?;
        Ok(entries.into_iter().map(|entry| String::from_utf8(entry.path).unwrap()).collect())
    }

    #[test]
    fn large_trees_come_in_the_same_order_as_small_ones() {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = vec![String::new()];
        for one in 0..20 {
            let one = format!("d{one:02}");
            expected.push(one.clone());
            for two in 0..10 {
                let two = format!("{one}/e{two}");
                fs::create_dir_all(dir.path().join(&two)).unwrap();
                expected.push(two.clone());
                for three in 0..12 {
                    let three = format!("{two}/f{three:02}");
                    fs::write(dir.path().join(&three), "").unwrap();
                    expected.push(three);
                }
            }
        }
        assert!(expected.len() > 2 * ALONE_FILES_MAX, "others help");
        assert_eq!(paths(dir.path(), &|_| Keep::Yes).unwrap(), expected);
        // A directory that is only a way stays if something below it is kept.
        let kept = paths(dir.path(), &|path| match path {
            b"d03" | b"d04" | b"d03/e1" => Keep::Below,
            b"d03/e1/f07" => Keep::Yes,
            _ => Keep::No,
        });
        assert_eq!(kept.unwrap(), ["", "d03", "d03/e1", "d03/e1/f07"]);
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let swap = |path: &[u8]| {
            if path == b"z" {
                // A file takes the directory's place between the look at it and its listing.
                fs::remove_dir_all(dir.path().join("a")).unwrap();
                fs::write(dir.path().join("a"), "").unwrap();
            }
            Keep::Yes
        };
        fs::write(dir.path().join("z"), "").unwrap();
        let error = paths(dir.path(), &swap).expect_err("`a` is no directory any more");
        assert!(error.to_string().contains("cannot read `a`"), "{error}");
    }
}
