//! Places that images are copied from and to, as skopeo writes them.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use oci::Reference;
use registry::{CopyPlace, Layout, LayoutError, LayoutErrorKind};

use crate::{commands::named, failure::Failure};

/// Where an image is copied from or to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A name in a registry; `docker://` before it is fine.
    Registry(Reference),
    /// `oci:DIR[:NAME]`.
    OciDir(PathBuf, Option<String>),
    /// `oci-archive:FILE[:NAME]`.
    OciArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE[:NAME]`.
    DockerArchive(PathBuf, Option<Reference>),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The first colon behind the path ends it: paths with colons are skopeo's trouble as well.
        let split = |rest: &str| -> Result<(PathBuf, Option<String>), String> {
            let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
            if path.is_empty() {
                return Err("the path is missing".into());
            }
            Ok((path.into(), name.filter(|name| !name.is_empty()).map(str::to_owned)))
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, name) = split(rest)?;
            return Ok(Self::OciDir(path, name));
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, name) = split(rest)?;
            return Ok(Self::OciArchive(path, name));
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, name) = split(rest)?;
            let name = name.map(|name| name.parse::<Reference>()).transpose().map_err(|error| error.to_string())?;
            return Ok(Self::DockerArchive(path, name.as_ref().map(named::with_default_tag)));
        }
        let name = text.strip_prefix("docker://").unwrap_or(text);
        name.parse().map(Self::Registry).map_err(|error: oci::InvalidReference| error.to_string())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_name = |kind: &str, path: &Path, name: Option<String>| {
            let name = name.map(|name| format!(":{name}")).unwrap_or_default();
            format!("{kind}:{}{name}", path.display())
        };
        f.write_str(&match self {
            Self::Registry(name) => name.familiar(),
            Self::OciDir(path, name) => with_name("oci", path, name.clone()),
            Self::OciArchive(path, name) => with_name("oci-archive", path, name.clone()),
            Self::DockerArchive(path, name) => {
                with_name("docker-archive", path, name.as_ref().map(Reference::familiar))
            }
        })
    }
}

impl Place {
    /// With paths relative to a directory.
    pub(crate) fn within(self, directory: &Path) -> Self {
        match self {
            Self::Registry(name) => Self::Registry(name),
            Self::OciDir(path, name) => Self::OciDir(directory.join(path), name),
            Self::OciArchive(path, name) => Self::OciArchive(directory.join(path), name),
            Self::DockerArchive(path, name) => Self::DockerArchive(directory.join(path), name),
        }
    }

    /// With `latest` where a name in a registry has neither tag nor digest.
    pub(crate) fn with_default_tag(self) -> Self {
        match self {
            Self::Registry(name) => Self::Registry(named::with_default_tag(&name)),
            other => other,
        }
    }

    /// With the name that the image has in a layout.
    pub(crate) fn called(self, opened: &CopyPlace) -> Self {
        match (self, opened) {
            (Self::OciDir(path, None), CopyPlace::Layout(_, name)) => Self::OciDir(path, name.clone()),
            (Self::OciArchive(path, None), CopyPlace::Layout(_, name)) => Self::OciArchive(path, name.clone()),
            (place, _) => place,
        }
    }

    /// As a target for `from`: what has no tag gets the source's; a digest stays a digest.
    pub(crate) fn named_like(self, from: &Self) -> Self {
        let tag = match from {
            Self::Registry(name) => name.tag().map(str::to_owned),
            Self::OciDir(_, name) | Self::OciArchive(_, name) => name.clone().filter(|name| oci::is_valid_tag(name)),
            Self::DockerArchive(_, name) => name.as_ref().and_then(|name| name.tag().map(str::to_owned)),
        };
        match self {
            Self::Registry(name) if name.tag().is_none() && name.digest().is_none() => {
                Self::Registry(match (from.reference().and_then(Reference::digest), tag) {
                    (Some(digest), _) => name.with_digest(digest.clone()),
                    (None, Some(tag)) => name.with_tag(&tag),
                    (None, None) => named::with_default_tag(&name),
                })
            }
            Self::OciDir(path, None) => Self::OciDir(path, tag),
            Self::OciArchive(path, None) => Self::OciArchive(path, tag),
            other => other,
        }
    }

    /// The name in a registry or of docker's archive.
    pub(crate) fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Registry(name) => Some(name),
            Self::DockerArchive(_, name) => name.as_ref(),
            Self::OciDir(..) | Self::OciArchive(..) => None,
        }
    }

    /// To copy from.
    pub(crate) fn open(&self) -> Result<CopyPlace, Failure> {
        let layout = |layout: Result<Layout, LayoutError>, name: &Option<String>| {
            let layout = layout.map_err(|error| refused(&error))?;
            let found = layout.find(name.as_deref()).map_err(|error| refused(&error))?;
            let name = name.clone().or_else(|| Layout::name_of(&found).map(str::to_owned));
            Ok(CopyPlace::Layout(layout, name))
        };
        match self {
            Self::Registry(name) => Ok(CopyPlace::Registry(name.clone())),
            Self::OciDir(path, name) => layout(Layout::open(path), name),
            Self::OciArchive(path, name) => layout(Layout::open_archive(path), name),
            Self::DockerArchive(..) => unreachable!("docker's archives are read by the store"),
        }
    }

    /// To copy to.
    pub(crate) fn create(&self) -> Result<CopyPlace, Failure> {
        let layout = |layout: Result<Layout, LayoutError>, name: &Option<String>| {
            Ok(CopyPlace::Layout(layout.map_err(|error| refused(&error))?, name.clone()))
        };
        match self {
            Self::Registry(name) => Ok(CopyPlace::Registry(name.clone())),
            Self::OciDir(path, name) => layout(Layout::create(path), name),
            Self::OciArchive(path, name) => layout(Layout::for_archive(path), name),
            Self::DockerArchive(..) => unreachable!("docker's archives are written by the store"),
        }
    }
}

fn refused(error: &LayoutError) -> Failure {
    let failure = match &error.kind {
        LayoutErrorKind::NoSuchImage { .. } => Failure::refused(error.to_string()),
        LayoutErrorKind::Malformed(_) | LayoutErrorKind::Several(_) => Failure::usage(error.to_string()),
        LayoutErrorKind::Io(io) if io.kind() == std::io::ErrorKind::NotFound => Failure::usage(error.to_string()),
        LayoutErrorKind::Io(_) => Failure::surroundings(error.to_string()),
    };
    failure.because(&error.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_skopeo_writes_them() {
        for (text, expected) in [
            ("a.example/x:1", "a.example/x:1"),
            ("docker://a.example/x:1", "a.example/x:1"),
            ("oci:out/dir", "oci:out/dir"),
            ("oci:out/dir:1.2", "oci:out/dir:1.2"),
            ("oci:out/dir:a.example/x:1", "oci:out/dir:a.example/x:1"),
            ("oci-archive:out.tar:", "oci-archive:out.tar"),
            ("docker-archive:out.tar:x", "docker-archive:out.tar:x:latest"),
        ] {
            assert_eq!(text.parse::<Place>().map(|place| place.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for text in ["oci:", "oci-archive::x", "docker-archive:x.tar:UPPER", "UPPER"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_new_name_takes_the_old_tag() {
        let check = |from: &str, to: &str| {
            let from: Place = from.parse().unwrap();
            to.parse::<Place>().unwrap().named_like(&from).to_string()
        };
        assert_eq!(check("a.example/x:1", "b.example/y"), "b.example/y:1");
        assert_eq!(check("a.example/x:1", "b.example/y:2"), "b.example/y:2");
        let digest = oci::Digest::of(b"");
        assert_eq!(check(&format!("a.example/x@{digest}"), "b.example/y"), format!("b.example/y@{digest}"));
        assert_eq!(check("oci:dir:1.2", "b.example/y"), "b.example/y:1.2");
        assert_eq!(check("oci:dir", "b.example/y"), "b.example/y:latest");
        assert_eq!(check("a.example/x:1", "oci:dir"), "oci:dir:1");
        assert_eq!(check("docker-archive:x.tar:app:3", "b.example/y"), "b.example/y:3");
    }
}
