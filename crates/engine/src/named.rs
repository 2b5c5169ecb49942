//! Named contexts as text: `build.additional_contexts`.

use std::str::FromStr;

use crate::{InvalidSource, NamedContext, RemoteSource};

/// What a named context is called cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidContext {
    /// It is no name of an image.
    #[error(transparent)]
    Image(#[from] oci::InvalidReference),
    /// It is no repository, nor a URL.
    #[error(transparent)]
    Source(#[from] InvalidSource),
}

impl FromStr for NamedContext {
    type Err = InvalidContext;

    /// `docker-image://NAME`, `oci-layout://PATH[:TAG|@DIGEST]`, a Git repository, a URL; else a directory.
    fn from_str(text: &str) -> Result<Self, InvalidContext> {
        if let Some(name) = text.strip_prefix("docker-image://") {
            return Ok(Self::Image(name.parse()?));
        }
        if let Some(layout) = text.strip_prefix("oci-layout://") {
            // A colon before the last slash belongs to the path.
            let (path, name) = match layout.split_once('@') {
                Some((path, digest)) => (path, Some(digest)),
                None => match layout.rsplit_once(':') {
                    Some((path, tag)) if !tag.contains('/') && !path.is_empty() => (path, Some(tag)),
                    _ => (layout, None),
                },
            };
            return Ok(Self::OciLayout { path: path.into(), name: name.map(str::to_owned) });
        }
        Ok(match RemoteSource::parse_context(text)? {
            Some(source) => Self::Remote(source),
            None => Self::Directory(text.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_told_apart() {
        let check = |text: &str, expected: &str| {
            assert_eq!(format!("{:?}", text.parse::<NamedContext>().unwrap()), expected, "{text}");
        };
        check("/a/b", "Directory(\"/a/b\")");
        check("oci-layout:///a/b", "OciLayout { path: \"/a/b\", name: None }");
        check("oci-layout:///a:b/c", "OciLayout { path: \"/a:b/c\", name: None }");
        check("oci-layout:///a/b:v1", "OciLayout { path: \"/a/b\", name: Some(\"v1\") }");
        check("oci-layout://./a@sha256:00", "OciLayout { path: \"./a\", name: Some(\"sha256:00\") }");
        check("https://a.example/x.tar", "Remote(Http(\"https://a.example/x.tar\"))");
        for repository in ["git@a.example:b/c.git#v1:sub", "https://a.example/b.git", "github.com/a/b"] {
            assert!(matches!(repository.parse(), Ok(NamedContext::Remote(RemoteSource::Git(_)))), "{repository}");
        }
        assert!(matches!("docker-image://UPPER".parse::<NamedContext>(), Err(InvalidContext::Image(_))));
    }
}
