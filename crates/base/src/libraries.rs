//! Where the dynamic loader of this machine finds a shared library (ld.so(8)), without asking it.

use std::path::{Path, PathBuf};

use crate::elf::Elf;

/// `include` lines of ld.so.conf may nest; a loop must end.
const INCLUDE_DEPTH_MAX: usize = 8;

/// A library that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// Whether a loader without a cache finds it: it lies in a default directory, or the file that needs it says where.
    pub(crate) is_self_evident: bool,
}

/// The directories that are searched.
#[derive(Clone, Debug)]
pub(crate) struct SearchPath {
    configured: Vec<PathBuf>,
}

impl SearchPath {
    /// As this machine is configured.
    pub(crate) fn of_this_machine() -> Self {
        let mut configured = Vec::new();
        read_configuration(Path::new("/etc/ld.so.conf"), INCLUDE_DEPTH_MAX, &mut configured);
        // musl has no ld.so.conf; this is its built-in path besides /lib and /usr/lib.
        configured.push("/usr/local/lib".into());
        Self { configured }
    }

    /// The file that satisfies `name` for `needing`, which lies in `directory`.
    pub(crate) fn find(&self, name: &str, needing: &Elf, directory: &Path) -> Option<Found> {
        if name.contains('/') {
            return Some(Found { path: name.into(), is_self_evident: true }).filter(|found| found.path.exists());
        }
        let run_path = needing.run_path.iter().map(|entry| {
            let origin = directory.display().to_string();
            PathBuf::from(entry.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin))
        });
        let evident = run_path.chain(default_directories(needing)).map(|directory| (directory, true));
        let configured = self.configured.iter().map(|directory| (directory.clone(), false));
        evident.chain(configured).find_map(|(directory, is_self_evident)| {
            let path = directory.join(name);
            let fits = Elf::read(&path).ok().flatten().is_some_and(|elf| fits(&elf, needing));
            fits.then_some(Found { path, is_self_evident })
        })
    }
}

fn fits(library: &Elf, needing: &Elf) -> bool {
    library.machine == needing.machine && library.is_64 == needing.is_64
}

/// What the loader searches without any configuration: the distribution's multi-arch directory, or lib64, or lib.
fn default_directories(elf: &Elf) -> Vec<PathBuf> {
    // ELF machine numbers as in <elf.h>; Debian's names of the architectures.
    let triplet = match (elf.machine, elf.is_64) {
        (62, true) => Some("x86_64-linux-gnu"),
        (62, false) => Some("x86_64-linux-gnux32"),
        (3, _) => Some("i386-linux-gnu"),
        (183, _) => Some("aarch64-linux-gnu"),
        (40, _) => Some("arm-linux-gnueabihf"),
        (243, true) => Some("riscv64-linux-gnu"),
        (21, true) => Some("powerpc64le-linux-gnu"),
        (22, true) => Some("s390x-linux-gnu"),
        (258, true) => Some("loongarch64-linux-gnu"),
        _ => None,
    };
    let mut directories = Vec::new();
    for prefix in ["/lib", "/usr/lib"] {
        directories.extend(triplet.map(|triplet| Path::new(prefix).join(triplet)));
    }
    let plain: &[&str] = if elf.is_64 { &["/lib64", "/usr/lib64", "/lib", "/usr/lib"] } else { &["/lib", "/usr/lib"] };
    directories.extend(plain.iter().map(PathBuf::from));
    directories
}

fn read_configuration(path: &Path, depth: usize, directories: &mut Vec<PathBuf>) {
    // A missing or unreadable file means no extra directories, as for the loader itself.
    let Ok(text) = fs_err::read_to_string(path) else { return };
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        if let Some(pattern) = line.strip_prefix("include ") {
            if depth > 0 {
                for file in included(path, pattern.trim()) {
                    read_configuration(&file, depth - 1, directories);
                }
            }
        } else if line.starts_with('/') {
            directories.push(line.into());
        }
    }
}

/// Files that an `include` line names; only the file name may hold one `*`, which is all that distributions use.
fn included(from: &Path, pattern: &str) -> Vec<PathBuf> {
    let pattern = from.parent().unwrap_or(Path::new("/")).join(pattern);
    let (Some(directory), Some(name)) = (pattern.parent(), pattern.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let Some((start, end)) = name.split_once('*') else { return vec![pattern.clone()] };
    let mut files: Vec<PathBuf> = fs_err::read_dir(directory)
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.retain(|file| {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
    });
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_is_read_through_its_includes() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs_err::write(home.path().join(name), text).unwrap();
        fs_err::create_dir(home.path().join("d")).unwrap();
        write("main", "include d/*.conf\n# nothing\n/opt/last # why\n");
        write("d/b.conf", "/opt/b\n");
        write("d/a.conf", "/opt/a\ninclude ../main\n");
        write("d/readme", "/opt/wrong\n");
        let mut directories = Vec::new();
        read_configuration(&home.path().join("main"), 1, &mut directories);
        assert_eq!(directories, ["/opt/a", "/opt/b", "/opt/last"].map(PathBuf::from));
    }

    #[test]
    fn the_c_library_of_this_program_is_found() {
        let elf = Elf::read(Path::new("/proc/self/exe")).unwrap().unwrap();
        let name = elf.needed.iter().find(|name| name.starts_with("libc.")).unwrap();
        let found = SearchPath::of_this_machine().find(name, &elf, Path::new("/")).unwrap();
        assert!(found.path.exists() && found.is_self_evident, "{found:?}");
        assert_eq!(SearchPath::of_this_machine().find("libnone-such.so.9", &elf, Path::new("/")), None);
    }
}
