//! Collecting what gates report. The files come from a container and are treated as hostile: no link is followed,
//! nothing but regular files is opened, and everything has a bound.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use engine::Masks;
use events::{Coverage, Problem, TestCounts};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::{FileType, Mode, OFlags};

use crate::report;

/// Larger reports are no reports.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Of one gate.
const TOTAL_BYTES_MAX: u64 = 256 << 20;
/// Of one gate; a report per test of a large suite fits.
const FILES_MAX: usize = 10_000;
/// Reports are not nested deeper.
const DEPTH_MAX: usize = 16;
/// Failing tests and findings that are kept of one gate; all are counted.
const PROBLEMS_MAX: usize = 1_000;

/// What was found.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) counts: Option<TestCounts>,
    pub(super) coverage: Option<Coverage>,
    pub(super) findings: Option<u64>,
    pub(super) problems: Vec<Problem>,
    pub(super) directory: Option<PathBuf>,
    pub(super) warnings: Vec<String>,
}

/// Where files of a report lie in the repository: a path of the container, or one relative to its working directory.
pub(super) type Locate<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// Copies everything below `from` to `target`, without secrets, and reads the files that match the patterns of a kind.
pub(super) fn collect(
    from: &Path,
    target: &Path,
    patterns: &BTreeMap<String, Vec<String>>,
    masks: Option<&Arc<Masks>>,
    locate: Locate<'_>,
) -> Collected {
    let of = |kind: &str| glob_set(patterns.get(kind));
    let mut collector = Collector {
        target,
        masks,
        locate,
        kinds: [(Kind::Junit, of("junit")), (Kind::Sarif, of("sarif")), (Kind::Coverage, of("coverage"))],
        found: Vec::new(),
        files: 0,
        bytes: 0,
        collected: Collected::default(),
    };
    match rustix::fs::open(from, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(dir) => collector.directory(&dir, Path::new(""), 0),
        Err(error) => collector.collected.warnings.push(format!("cannot be read: {error}")),
    }
    for (name, kind) in [("junit", Kind::Junit), ("sarif", Kind::Sarif), ("coverage", Kind::Coverage)] {
        if let Some(names) = patterns.get(name)
            && !collector.found.contains(&kind)
        {
            let message = format!("there is no file {} in $SEATRIAL_REPORTS", names.join(", "));
            collector.collected.warnings.push(message);
        }
    }
    if collector.files > 0 {
        collector.collected.directory = Some(target.to_path_buf());
    }
    collector.collected
}

/// The files of a gate's collected reports that match the patterns of a kind, sorted.
pub fn matching(directory: &Path, patterns: &[String]) -> Vec<PathBuf> {
    let set = glob_set(Some(&patterns.to_vec()));
    let (mut files, mut open) = (Vec::new(), vec![directory.to_path_buf()]);
    while let Some(path) = open.pop() {
        for entry in fs_err::read_dir(&path).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(path),
                Ok(kind) if kind.is_file() && path.strip_prefix(directory).is_ok_and(|path| set.is_match(path)) => {
                    files.push(path);
                }
                _ => {}
            }
        }
    }
    files.sort();
    files
}

fn glob_set(patterns: Option<&Vec<String>>) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns.into_iter().flatten() {
        if let Ok(glob) = GlobBuilder::new(pattern.trim_start_matches("./")).literal_separator(true).build() {
            set.add(glob);
        }
    }
    set.build().unwrap_or_else(|_| GlobSet::empty())
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Junit,
    Sarif,
    Coverage,
}

struct Collector<'a> {
    target: &'a Path,
    masks: Option<&'a Arc<Masks>>,
    locate: Locate<'a>,
    kinds: [(Kind, GlobSet); 3],
    /// Kinds that some file matched.
    found: Vec<Kind>,
    files: usize,
    bytes: u64,
    collected: Collected,
}

impl Collector<'_> {
    fn directory(&mut self, dir: &OwnedFd, path: &Path, depth: usize) {
        if depth > DEPTH_MAX {
            return self.warn(path, "is nested too deep");
        }
        let mut names = Vec::new();
        let entries = rustix::fs::Dir::read_from(dir);
        for entry in entries.into_iter().flatten().flatten().take(FILES_MAX + 1) {
            let name = entry.file_name().to_string_lossy().into_owned();
            // A name that is not UTF-8 cannot be opened by its replacement, and is left out for that.
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        for name in names {
            let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let path = path.join(&name);
            // The kind is asked before opening: opening a device can do things.
            let kind = rustix::fs::statat(dir, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                .map(|stat| FileType::from_raw_mode(stat.st_mode));
            let opened = match kind {
                Ok(FileType::Directory) => rustix::fs::openat(dir, &name, flags | OFlags::DIRECTORY, Mode::empty()),
                Ok(FileType::RegularFile) => rustix::fs::openat(dir, &name, flags, Mode::empty()),
                Ok(_) => {
                    self.warn(&path, "is no regular file and is left out");
                    continue;
                }
                Err(error) => Err(error),
            };
            match opened {
                Ok(fd) if kind == Ok(FileType::Directory) => self.directory(&fd, &path, depth + 1),
                Ok(fd) if is_regular(fd.as_fd()) => {
                    if !self.file(fd, &path) {
                        return;
                    }
                }
                Ok(_) => self.warn(&path, "changed while it was read"),
                Err(error) => self.warn(&path, &format!("cannot be read: {error}")),
            }
        }
    }

    /// Takes in one file; false when a bound is reached.
    fn file(&mut self, fd: OwnedFd, path: &Path) -> bool {
        if self.files == FILES_MAX || self.bytes >= TOTAL_BYTES_MAX {
            self.warn(path, "and what follows are left out: too many or too large reports");
            return false;
        }
        let mut bytes = Vec::new();
        match std::fs::File::from(fd).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes) {
            Ok(length) if length as u64 > FILE_BYTES_MAX => {
                self.warn(path, "is larger than 32 MiB and is left out");
                return true;
            }
            Ok(_) => {}
            Err(error) => {
                self.warn(path, &format!("cannot be read: {error}"));
                return true;
            }
        }
        self.files += 1;
        self.bytes += bytes.len() as u64;
        if let Some(masks) = self.masks {
            bytes = masks.mask(&bytes);
        }
        if let Err(error) = self.copy(path, &bytes) {
            self.warn(path, &format!("cannot be kept: {error}"));
        }
        let kinds = self.kinds.iter().filter(|(_, patterns)| patterns.is_match(path));
        for kind in kinds.map(|(kind, _)| *kind).collect::<Vec<_>>() {
            self.found.push(kind);
            if let Err(error) = self.read(kind, &String::from_utf8_lossy(&bytes)) {
                self.warn(path, &format!("is left out: {error}"));
            }
        }
        true
    }

    fn read(&mut self, kind: Kind, text: &str) -> Result<(), report::InvalidReport> {
        match kind {
            Kind::Junit => {
                let cases = report::junit(text)?;
                let count = |outcome: &dyn Fn(&report::CaseOutcome) -> bool| {
                    cases.iter().filter(|case| outcome(&case.outcome)).count() as u64
                };
                let counts = TestCounts {
                    passed: count(&|outcome| matches!(outcome, report::CaseOutcome::Passed)),
                    failed: count(&|outcome| matches!(outcome, report::CaseOutcome::Failed { .. })),
                    skipped: count(&|outcome| matches!(outcome, report::CaseOutcome::Skipped { .. })),
                };
                self.collected.counts = Some(self.collected.counts.unwrap_or_default() + counts);
                cases.iter().filter_map(report::problem).for_each(|problem| self.problem(problem));
            }
            Kind::Sarif => {
                let findings = report::sarif(text)?;
                *self.collected.findings.get_or_insert_default() += findings.len() as u64;
                findings.into_iter().for_each(|problem| self.problem(problem));
            }
            Kind::Coverage => {
                let coverage = report::coverage(text)?;
                self.collected.coverage = Some(self.collected.coverage.unwrap_or_default() + coverage);
            }
        }
        Ok(())
    }

    fn problem(&mut self, mut problem: Problem) {
        if self.collected.problems.len() == PROBLEMS_MAX {
            return;
        }
        if let Some(file) = problem.file.as_deref().and_then(|file| (self.locate)(file)) {
            (problem.file, problem.in_repository) = (Some(file), true);
        }
        self.collected.problems.push(problem);
    }

    fn copy(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let target = self.target.join(path);
        if let Some(parent) = target.parent() {
            fs_err::create_dir_all(parent)?;
        }
        fs_err::File::create(target)?.write_all(bytes)
    }

    fn warn(&mut self, path: &Path, what: &str) {
        /// More of the same helps nobody.
        const WARNINGS_MAX: usize = 20;
        if self.collected.warnings.len() < WARNINGS_MAX {
            self.collected.warnings.push(format!("{} {what}", path.to_string_lossy().escape_debug()));
        }
    }
}

fn is_regular(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_plain_files_is_collected() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs_err::create_dir_all(from.join("sub")).expect("made");
        fs_err::write(from.join("unit.xml"), "<testsuite><testcase/></testsuite>").expect("written");
        fs_err::write(from.join("sub/more.xml"), "<testsuite><testcase/></testsuite>").expect("written");
        fs_err::write(from.join("big"), vec![0; FILE_BYTES_MAX as usize + 1]).expect("written");
        std::os::unix::fs::symlink("/etc/passwd", from.join("link.xml")).expect("linked");
        std::os::unix::fs::symlink("/etc", from.join("dir")).expect("linked");
        rustix::fs::mknodat(rustix::fs::CWD, from.join("fifo"), FileType::Fifo, Mode::RWXU, 0).expect("made");
        let patterns = BTreeMap::from([("junit".to_owned(), vec!["*.xml".to_owned(), "sub/*.xml".to_owned()])]);
        let collected = collect(&from, &to, &patterns, None, &|_| None);
        assert_eq!(collected.counts, Some(TestCounts { passed: 2, failed: 0, skipped: 0 }));
        assert!(to.join("unit.xml").is_file() && to.join("sub/more.xml").is_file());
        for absent in ["link.xml", "dir", "fifo", "big"] {
            assert!(to.join(absent).symlink_metadata().is_err(), "{absent}");
        }
        assert_eq!(collected.warnings.len(), 4, "{:?}", collected.warnings);
        assert_eq!(collect(&from.join("absent"), &to, &patterns, None, &|_| None).warnings.len(), 2);
    }
}
