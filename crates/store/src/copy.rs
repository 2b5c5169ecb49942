//! Copies of directories of the host, for whoever needs one to itself.

use std::{io, path::Path};

use fs_err as fs;

/// Copies what is in a directory into another one, which is made where it is missing: directories and files with their modes
/// and times, links as they are; sockets and the like are left out. What is at a place already gives way, a directory for a
/// directory excepted. `is_wanted` is asked about each path, relative to the directory; below one that is not wanted it is
/// not asked.
///
/// # Errors
/// Something cannot be read or written; the path is in the message.
pub fn copy_tree(from: &Path, to: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    copy_below(from, to, Path::new(""), is_wanted)
}

/// Copies a file with its mode and time, or a link as it is, with the directories above it. What is there gives way.
///
/// # Errors
/// As [`copy_tree`].
pub fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let data = fs::symlink_metadata(from)?;
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    // Also a link of that name, which would lead the content elsewhere.
    let _ = fs::remove_file(to);
    if data.is_symlink() {
        return fs_err::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if data.is_file() {
        fs::copy(from, to)?;
        // A file that nobody may write to can still be given its time.
        fs::File::open(to)?.into_parts().0.set_modified(data.modified()?)?;
    }
    Ok(())
}

fn copy_below(root: &Path, to: &Path, below: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    let (from, target) = (root.join(below), to.join(below));
    if fs::symlink_metadata(&target).is_ok_and(|data| !data.is_dir()) && !below.as_os_str().is_empty() {
        fs::remove_file(&target)?;
    }
    fs::create_dir_all(&target)?;
    for entry in fs::read_dir(&from)? {
        let entry = entry?;
        let relative = below.join(entry.file_name());
        if !is_wanted(&relative) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy_below(root, to, &relative, is_wanted)?;
        } else {
            copy_file(&entry.path(), &to.join(&relative))?;
        }
    }
    // After the content, which a directory may refuse to take by its mode.
    fs::set_permissions(&target, fs::metadata(&from)?.permissions())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_tree_is_copied_over_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir_all(from.join("closed")).unwrap();
        fs::create_dir_all(from.join("left")).unwrap();
        fs::create_dir_all(&to).unwrap();
        for (name, mode) in [("closed/file", 0o444), ("program", 0o755), ("left/out", 0o644)] {
            fs::write(from.join(name), name).unwrap();
            fs::set_permissions(from.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(from.join("closed"), std::fs::Permissions::from_mode(0o555)).unwrap();
        symlink("nowhere", from.join("link")).unwrap();
        let elsewhere = directory.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        // Neither of them leads out.
        symlink(&elsewhere, to.join("closed")).unwrap();
        symlink(elsewhere.join("file"), to.join("program")).unwrap();

        copy_tree(&from, &to, &|path| path != Path::new("left")).unwrap();
        let mode = |name: &str| fs::symlink_metadata(to.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("closed"), mode("closed/file"), mode("program")), (0o555, 0o444, 0o755));
        assert_eq!(fs::read_to_string(to.join("closed/file")).unwrap(), "closed/file");
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("nowhere"));
        assert!(!to.join("left").exists());
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
        let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(time(&from.join("program")), time(&to.join("program")));
        fs::set_permissions(to.join("closed"), std::fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(from.join("closed"), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}
