//! Files of the context and of the output.

use std::{io, path::Path};

use fs_err as fs;
use globset::GlobMatcher;
use store::{copy_file, copy_tree};

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
                copy_tree(&source, &target, &|_| true)?;
            } else {
                copy_file(&source, &target)?;
            }
        }
        // What lies in a directory that was taken came along.
        Ok(!is_output)
    })?;
    Ok((0..patterns.len()).filter(|index| !has_matched[*index]).collect())
}

/// Whether a path of the context is one for a copy of it: Git's own directory is no part of what is built.
pub(super) fn is_source(path: &Path) -> bool {
    path != Path::new(".git")
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
