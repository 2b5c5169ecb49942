//! A build context with files added: both directories seen as one.

use std::{
    ffi::CString,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use fs_err as fs;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Both directories as one, for as long as it lives.
pub(crate) struct Layered {
    directory: PathBuf,
    is_mounted: bool,
}

impl Layered {
    /// An overlay, which costs nothing and is seen by this process only; where the kernel refuses, a copy.
    pub(crate) fn new(directory: PathBuf, base: &Path, over: &Path) -> io::Result<Self> {
        fs::create_dir(&directory)?;
        let is_mounted = overlay(&directory, base, over).is_ok();
        let layered = Self { directory, is_mounted };
        if !is_mounted {
            for from in [base, over] {
                store::copy_tree(from, &layered.directory, &|_| true)?;
            }
        }
        Ok(layered)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Layered {
    fn drop(&mut self) {
        // Mounts end with the process, and the scope removes its directory, in any case.
        if self.is_mounted {
            let _ = unmount(&self.directory, UnmountFlags::DETACH);
            let _ = fs::remove_dir(&self.directory);
        } else {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn overlay(target: &Path, base: &Path, over: &Path) -> io::Result<()> {
    let mut options = b"lowerdir=".to_vec();
    for (index, lower) in [over, base].into_iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        for byte in lower.as_os_str().as_bytes() {
            // The three that separate (overlayfs.rst, "Multiple lower layers").
            if matches!(byte, b':' | b',' | b'\\') {
                options.push(b'\\');
            }
            options.push(*byte);
        }
    }
    let options = CString::new(options)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    Ok(mount(c"overlay", target, c"overlay", flags, options.as_c_str())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_shows_what_an_overlay_shows() {
        let dir = tempfile::tempdir().unwrap();
        let [base, over] = ["base, with: signs", "over"].map(|name| dir.path().join(name));
        for (root, file, text) in
            [(&base, "a", "1"), (&base, "sub/b", "2"), (&over, "sub/b", "3"), (&over, "dist/w", "4")]
        {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), text).unwrap();
        }
        let copied = dir.path().join("copied");
        fs::create_dir(&copied).unwrap();
        for from in [&base, &over] {
            store::copy_tree(from, &copied, &|_| true).unwrap();
        }
        let layered = Layered::new(dir.path().join("both"), &base, &over).unwrap();
        for (file, text) in [("a", "1"), ("sub/b", "3"), ("dist/w", "4")] {
            for root in [layered.path(), &copied] {
                assert_eq!(fs::read_to_string(root.join(file)).unwrap(), text, "{file} in {}", root.display());
            }
        }
        drop(layered);
        assert!(!dir.path().join("both").exists());
        assert_eq!(fs::read_to_string(base.join("sub/b")).unwrap(), "2");
    }
}
