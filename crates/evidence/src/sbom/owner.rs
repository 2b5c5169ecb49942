//! Which distribution's package brought the file by which another package was found: Debian's `python3-yaml` holds the Python
//! package PyYAML. Both are listed, as syft does, and the second names the first.

use std::collections::HashMap;

use super::{
    Ecosystem, Package,
    layer::{Installed, may_be_evidence},
};

/// Keeps of a package's files those by which packages may be found.
pub(crate) fn with_evidence((package, mut files): Installed) -> Installed {
    files.retain(|file| may_be_evidence(file));
    (package, files)
}

/// Purls of distributions' packages, by the paths of their files.
#[derive(Default)]
pub(crate) struct Owners(HashMap<String, String>);

impl Owners {
    /// Notes the files of a distribution's package; Debian's lists are taken from `lists`.
    pub(crate) fn add(&mut self, package: &Package, mut files: Vec<String>, lists: &mut HashMap<String, Vec<String>>) {
        if package.ecosystem == Ecosystem::Deb {
            // Where several architectures can be installed side by side, the list's name says which.
            let architecture = package.architecture.as_deref().unwrap_or_default();
            let list =
                lists.remove(&format!("{}:{architecture}", package.name)).or_else(|| lists.remove(&package.name));
            files.extend(list.unwrap_or_default());
        }
        for file in files {
            self.0.insert(plain(&file).to_owned(), package.purl.clone());
        }
    }

    /// The owner of all files by which a package was found.
    pub(crate) fn of(&self, package: &Package) -> Option<String> {
        if package.ecosystem.is_of_distribution() {
            return None;
        }
        let file = |path: &str| path.split_once(":").map_or(path, |(archive, _)| archive).to_owned();
        let mut owners =
            package.paths.iter().map(|path| self.0.get(plain(path)).or_else(|| self.0.get(plain(&file(path)))));
        let first = owners.next()??;
        owners.all(|owner| owner == Some(first)).then(|| first.clone())
    }
}

/// Packages may list `/lib/x` for what lies in `/usr/lib/x` since these directories were merged.
fn plain(path: &str) -> &str {
    path.strip_prefix("/usr")
        .filter(|rest| ["/bin/", "/sbin/", "/lib"].iter().any(|top| rest.starts_with(top)))
        .unwrap_or(path)
}
