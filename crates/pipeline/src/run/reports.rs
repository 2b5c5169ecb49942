//! Collecting what gates report. The files come from a container and are treated as hostile: no link is followed,
//! nothing but regular files is opened, and everything has a bound.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use events::TestCounts;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::{FileType, Mode, OFlags};

/// Larger reports are no reports.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Of one gate.
const TOTAL_BYTES_MAX: u64 = 256 << 20;
/// Of one gate; a report per test of a large suite fits.
const FILES_MAX: usize = 10_000;
/// Reports are not nested deeper.
const DEPTH_MAX: usize = 16;

/// What was found.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) counts: Option<TestCounts>,
    pub(super) directory: Option<PathBuf>,
    pub(super) warnings: Vec<String>,
}

/// Copies everything below `from` to `target`, and counts the tests of files that match the patterns of `junit`.
pub(super) fn collect(from: &Path, target: &Path, patterns: &BTreeMap<String, Vec<String>>) -> Collected {
    let mut collector = Collector {
        target,
        junit: glob_set(patterns.get("junit")),
        files: 0,
        bytes: 0,
        junit_files: 0,
        collected: Collected::default(),
    };
    match rustix::fs::open(from, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(dir) => collector.directory(&dir, Path::new(""), 0),
        Err(error) => collector.collected.warnings.push(format!("cannot be read: {error}")),
    }
    if patterns.contains_key("junit") && collector.junit_files == 0 {
        let names = patterns.get("junit").map(|names| names.join(", ")).unwrap_or_default();
        collector.collected.warnings.push(format!("there is no file {names} in $SEATRIAL_REPORTS"));
    }
    if collector.files > 0 {
        collector.collected.directory = Some(target.to_path_buf());
    }
    collector.collected
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

struct Collector<'a> {
    target: &'a Path,
    junit: GlobSet,
    files: usize,
    bytes: u64,
    junit_files: usize,
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
        if let Err(error) = self.copy(path, &bytes) {
            self.warn(path, &format!("cannot be kept: {error}"));
        }
        if self.junit.is_match(path) {
            self.junit_files += 1;
            match count_junit(&String::from_utf8_lossy(&bytes)) {
                Some(counts) => {
                    let sum = self.collected.counts.get_or_insert_default();
                    sum.passed += counts.passed;
                    sum.failed += counts.failed;
                    sum.skipped += counts.skipped;
                }
                None => self.warn(path, "is not JUnit XML"),
            }
        }
        true
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

/// Counts `testcase` elements by what is in them. `None`: there is no `testsuite` in it.
///
/// A scanner for this one purpose: entities, namespaces and DTDs do not matter for counting, so none is expanded.
fn count_junit(text: &str) -> Option<TestCounts> {
    let mut counts = TestCounts::default();
    let (mut is_suite, mut in_case, mut outcome) = (false, false, Case::Passed);
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        let (tag, after) = match () {
            () if rest.starts_with("<!--") => (None, after(rest, "-->")),
            () if rest.starts_with("<![CDATA[") => (None, after(rest, "]]>")),
            () if rest.starts_with("<?") || rest.starts_with("<!") => (None, after(rest, ">")),
            () => {
                let end = tag_end(rest)?;
                (Some(&rest[1..end]), Some(&rest[end + 1..]))
            }
        };
        rest = after?;
        let Some(tag) = tag else { continue };
        let name = tag.trim_start_matches('/').split([' ', '\t', '\n', '\r', '/']).next().unwrap_or_default();
        let name = name.rsplit(':').next().unwrap_or_default();
        let (closes, is_empty) = (tag.starts_with('/'), tag.ends_with('/'));
        match name {
            "testsuite" | "testsuites" => is_suite = true,
            "testcase" if !closes => {
                (in_case, outcome) = (!is_empty, Case::Passed);
                if is_empty {
                    counts.passed += 1;
                }
            }
            "testcase" if in_case => {
                in_case = false;
                match outcome {
                    Case::Passed => counts.passed += 1,
                    Case::Failed => counts.failed += 1,
                    Case::Skipped => counts.skipped += 1,
                }
            }
            "failure" | "error" if in_case => outcome = Case::Failed,
            "skipped" if in_case && outcome == Case::Passed => outcome = Case::Skipped,
            _ => {}
        }
    }
    is_suite.then_some(counts)
}

#[derive(Clone, Copy, PartialEq)]
enum Case {
    Passed,
    Failed,
    Skipped,
}

fn after<'t>(text: &'t str, end: &str) -> Option<&'t str> {
    text.find(end).map(|at| &text[at + end.len()..])
}

/// The `>` that ends a tag, not one in a quoted value.
fn tag_end(tag: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in tag.bytes().enumerate() {
        match (byte, quote) {
            (b'"' | b'\'', None) => quote = Some(byte),
            (byte, Some(open)) if byte == open => quote = None,
            (b'>', None) => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_is_counted() {
        let counts = |passed, failed, skipped| Some(TestCounts { passed, failed, skipped });
        for (text, expected) in [
            ("<testsuites><testsuite/></testsuites>", counts(0, 0, 0)),
            (
                r#"<?xml version="1.0"?><testsuite><testcase name="a"/><testcase name="b"></testcase></testsuite>"#,
                counts(2, 0, 0),
            ),
            (
                "<testsuite><testcase><failure>x &lt; y</failure></testcase><testcase><error/></testcase></testsuite>",
                counts(0, 2, 0),
            ),
            (
                "<testsuite><testcase><skipped/></testcase><testcase><skipped/><failure/></testcase></testsuite>",
                counts(0, 1, 1),
            ),
            (
                r#"<testsuite><testcase name="a > b"><system-out><![CDATA[<failure>]]></system-out></testcase></testsuite>"#,
                counts(1, 0, 0),
            ),
            ("<testsuite><!-- <testcase/> --><testcase/></testsuite>", counts(1, 0, 0)),
            ("<testsuite><testcase><properties/></testcase><failure/></testsuite>", counts(1, 0, 0)),
            ("<html></html>", None),
            ("not xml", None),
            ("<testsuite><testcase", None),
            ("<testsuite><!-- open", None),
        ] {
            assert_eq!(count_junit(text), expected, "{text}");
        }
    }

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
        let collected = collect(&from, &to, &patterns);
        assert_eq!(collected.counts, Some(TestCounts { passed: 2, failed: 0, skipped: 0 }));
        assert!(to.join("unit.xml").is_file() && to.join("sub/more.xml").is_file());
        for absent in ["link.xml", "dir", "fifo", "big"] {
            assert!(to.join(absent).symlink_metadata().is_err(), "{absent}");
        }
        assert_eq!(collected.warnings.len(), 4, "{:?}", collected.warnings);
        assert_eq!(collect(&from.join("absent"), &to, &patterns).warnings.len(), 2);
    }
}
