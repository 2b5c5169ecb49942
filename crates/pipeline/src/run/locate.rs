//! Where a file that a report names lies in the repository.

use std::path::{Path, PathBuf};

use engine::ContainerSpec;

/// How paths inside a gate's container lead to the repository.
pub(super) struct Locator {
    cwd: PathBuf,
    /// Inside, outside; longer ones first.
    mounts: Vec<(PathBuf, PathBuf)>,
    root: PathBuf,
    /// Where the image's own files probably come from.
    context: PathBuf,
}

impl Locator {
    pub(super) fn new(spec: &ContainerSpec, root: &Path, context: &Path) -> Self {
        let pair = |mount: &engine::BindMount| (PathBuf::from(&mount.target), mount.source.clone());
        let mut mounts: Vec<_> = spec.mounts.iter().map(pair).collect();
        mounts.sort_by_key(|(target, _)| std::cmp::Reverse(target.components().count()));
        Self { cwd: PathBuf::from(&spec.cwd), mounts, root: root.to_path_buf(), context: context.to_path_buf() }
    }

    /// The file relative to the repository's root, where there is such a file: by a mount, else as a copy of one below the
    /// build context, which the working directory stands for.
    pub(super) fn find(&self, path: &str) -> Option<String> {
        let inside = tidy(&self.cwd.join(path))?;
        let by_mount = self.mounts.iter().find_map(|(target, source)| {
            let rest = inside.strip_prefix(target).ok()?;
            Some(if rest.as_os_str().is_empty() { source.clone() } else { source.join(rest) })
        });
        let below = inside.strip_prefix(&self.cwd).ok();
        let copies = [&self.context, &self.root].into_iter().filter_map(|base| Some(base.join(below?)));
        let found = by_mount.into_iter().chain(copies).find(|path| path.is_file())?;
        found.strip_prefix(&self.root).ok()?.to_str().map(str::to_owned)
    }
}

/// Without `.` and `..`; `None` if it leads above the root.
fn tidy(path: &Path) -> Option<PathBuf> {
    use std::path::Component;
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                tidy.pop().then_some(())?;
            }
            Component::CurDir => {}
            other => tidy.push(other),
        }
    }
    Some(tidy)
}
