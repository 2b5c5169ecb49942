//! A plan becomes a directory. Files are copied, never linked: the store's content must not change with the machine's.

use std::{
    io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fs_err::{File, OpenOptions, os::unix::fs::OpenOptionsExt};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::plan::{Entry, HostPlan};

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) files: usize,
    pub(crate) size_bytes: u64,
}

/// Writes every entry below `root`, which is empty. Directories, links and our own files get `time`,
/// copies keep their own, so that the same machine gives the same layer.
pub(crate) fn write(plan: &HostPlan, root: &Path, time: SystemTime) -> io::Result<Written> {
    let mut written = Written::default();
    for (name, entry) in &plan.entries {
        let path = root.join(name);
        match entry {
            Entry::Directory(_) => fs_err::create_dir(&path)?,
            Entry::Link(target) => {
                symlink(target, &path).map_err(|error| naming(&path, error))?;
                set_link_time(&path, time)?;
            }
            Entry::Text(text) => {
                fs_err::write(&path, text)?;
                finish(&path, 0o644, time)?;
                written.files += 1;
                written.size_bytes += text.len() as u64;
            }
            Entry::Copy(from, mode) => {
                // The name may have become a FIFO or link meanwhile: never wait on it, never follow it.
                let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
                let flags = i32::try_from(flags.bits()).expect("open flags are an int");
                let mut source = OpenOptions::new().read(true).custom_flags(flags).open(from)?;
                let metadata = source.metadata()?;
                if !metadata.is_file() {
                    return Err(naming(from, io::Error::other("is no longer a regular file")));
                }
                let mut target = File::create_new(&path)?;
                written.size_bytes += io::copy(&mut source, &mut target)?;
                written.files += 1;
                finish(&path, *mode, whole_seconds(metadata.modified()?))?;
            }
        }
    }
    // Modes and times of directories last and deepest first: writing into one changes its time and may need its mode.
    for (name, entry) in plan.entries.iter().rev() {
        if let Entry::Directory(mode) = entry {
            finish(&root.join(name), *mode, time)?;
        }
    }
    finish(root, 0o755, time)?;
    Ok(written)
}

fn finish(path: &Path, mode: u32, time: SystemTime) -> io::Result<()> {
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    set_link_time(path, time)
}

fn set_link_time(path: &Path, time: SystemTime) -> io::Result<()> {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let stamp = Timespec { tv_sec: i64::try_from(seconds).unwrap_or_default(), tv_nsec: 0 };
    let stamps = Timestamps { last_access: stamp, last_modification: stamp };
    utimensat(CWD, path, &stamps, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| naming(path, error.into()))
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

fn naming(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{HostOptions, plan};
    use std::{os::unix::fs::MetadataExt, process::Command};

    fn host_base(with: &[&str]) -> (tempfile::TempDir, Written) {
        let with = with.iter().map(|name| (*name).into()).collect();
        let plan = plan(&HostOptions { with, ..HostOptions::default() }).unwrap();
        let root = tempfile::tempdir().unwrap();
        let written = write(&plan, root.path(), UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        (root, written)
    }

    #[test]
    fn tools_of_a_base_run_in_it() {
        if !Command::new("unshare").args(["-r", "true"]).status().is_ok_and(|status| status.success()) {
            return testkit::skip("`unshare -r` is not allowed here, so that no root can be changed");
        }
        let (root, written) = host_base(&["perl-base"]);
        // The runtime brings the device; perl opens it for `-e`.
        fs_err::write(root.path().join("dev/null"), "").unwrap();
        assert!(written.files > 50 && written.size_bytes > 1_000_000, "{written:?}");
        let script = "set -e; echo 1 2 | awk '{print $2}'; ls / | sort | head -n 1; id -u; echo x | grep -c x\n\
                      perl -MIO::Socket::INET -e 'print 6 * 7, chr(10)'; date -u -d @0 +%Y; [ -d /tmp ] && printf 'end\\n'";
        let output = Command::new("unshare")
            .args(["-r", "chroot"])
            .arg(root.path())
            .args(["/bin/sh", "-c", script])
            .env_clear()
            .env("PATH", crate::PATH)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "2\nbin\n0\n1\n42\n1970\nend\n");
    }

    #[test]
    fn times_and_modes_follow_from_the_plan_alone() {
        let (one, _) = host_base(&[]);
        let (two, _) = host_base(&[]);
        for name in ["", "tmp", "usr/bin", "usr/bin/cat", "bin", "etc/passwd", "root"] {
            let of = |root: &Path| {
                let metadata = fs_err::symlink_metadata(root.join(name)).unwrap();
                (metadata.mode(), metadata.mtime(), metadata.mtime_nsec())
            };
            assert_eq!(of(one.path()), of(two.path()), "{name}");
            assert_eq!(of(one.path()).2, 0, "{name}");
        }
        let mode = |name: &str| fs_err::symlink_metadata(one.path().join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("tmp"), mode("root"), mode("usr/bin/cat")), (0o1777, 0o700, 0o755));
    }

    #[test]
    fn copies_do_not_share_an_inode_with_the_machine() {
        let (root, _) = host_base(&[]);
        let cat = fs_err::metadata(root.path().join("usr/bin/cat")).unwrap();
        let machine = fs_err::metadata("/bin/cat").unwrap();
        assert!((cat.dev(), cat.ino()) != (machine.dev(), machine.ino()));
    }
}
