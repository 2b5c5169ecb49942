//! Files of the context and of the output.

use std::{io, path::Path};

use fs_err as fs;
use globset::GlobMatcher;

/// Moves what the patterns match from one directory to the same place in another; gives the patterns that match nothing.
pub(super) fn take_output(from: &Path, to: &Path, patterns: &[GlobMatcher]) -> io::Result<Vec<usize>> {
    let mut has_matched = vec![false; patterns.len()];
    walk(from, Path::new(""), &mut |relative, is_directory| {
        let mut is_output = false;
        for (pattern, matched) in patterns.iter().zip(&mut has_matched) {
            if pattern.is_match(relative) {
                *matched = true;
                is_output = true;
            }
        }
        if is_output {
            let (source, target) = (from.join(relative), to.join(relative));
            if is_directory {
                copy_tree(&source, &target)?;
            } else {
                copy_file(&source, &target)?;
            }
        }
        // What lies in a directory that was taken came along.
        Ok(!is_output)
    })?;
    Ok((0..patterns.len()).filter(|index| !has_matched[*index]).collect())
}

/// Copies everything below a directory but `.git`.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    walk(from, Path::new(""), &mut |relative, is_directory| {
        if relative == Path::new(".git") {
            return Ok(false);
        }
        let (source, target) = (from.join(relative), to.join(relative));
        if is_directory {
            fs::create_dir_all(&target)?
        } else {
            copy_file(&source, &target)?
        }
        Ok(true)
    })
}

/// A file with its mode and time, or a link as it is. Sockets and the like are no source.
pub(super) fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let data = fs::symlink_metadata(from)?;
    // An earlier entry may have made it.
    let _ = fs::remove_file(to);
    if data.is_symlink() {
        return fs_err::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if data.is_file() {
        fs::copy(from, to)?;
        fs::File::options().write(true).open(to)?.into_parts().0.set_modified(data.modified()?)?;
    }
    Ok(())
}

/// Files and links below a directory.
pub(super) fn count_files(directory: &Path) -> u64 {
    let mut files = 0;
    // A number for people: what cannot be read is not counted.
    let _ = walk(directory, Path::new(""), &mut |_, is_directory| {
        files += u64::from(!is_directory);
        Ok(true)
    });
    files
}

/// Calls `see` with every relative path and whether it is a directory, parents first; it says whether to go below.
fn walk(root: &Path, below: &Path, see: &mut dyn FnMut(&Path, bool) -> io::Result<bool>) -> io::Result<()> {
    let mut open = vec![below.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let entry = entry?;
            let relative = directory.join(entry.file_name());
            let is_directory = entry.file_type()?.is_dir();
            if see(&relative, is_directory)? && is_directory {
                open.push(relative);
            }
        }
    }
    Ok(())
}
