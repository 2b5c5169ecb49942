//! The build and the image's name: what the file says, checked against the file system.

use std::path::{Path, PathBuf};

use engine::RemoteSource;
use oci::{Platform, Reference};

use super::{BuildPlan, OF_RUN, Planner, bounds};
use crate::{
    codes,
    file::{At, Build, Pairs},
};

/// Names under which the Dockerfile is looked for, in order.
pub(super) const DOCKERFILE_NAMES: [&str; 2] = ["Dockerfile", "Containerfile"];

/// The image's repository: given, or the name of the entry of `images`, or made from the directory's name.
pub(super) fn image(
    planner: &mut Planner<'_>,
    given: Option<&At<String>>,
    entry: Option<&At<String>>,
) -> (Reference, bool) {
    if let Some(given) = given
        && let Some(text) = planner.fill(given)
    {
        match text.parse::<Reference>() {
            Ok(reference) if reference.tag().is_some() || reference.digest().is_some() => {
                planner.error(codes::INVALID_VALUE, "the image's name has a tag", &given.span).help =
                    Some("tags are given by `publish.tags`".into());
            }
            Ok(reference) => return (reference, true),
            Err(error) => {
                let message = format!("`{text}` is not the name of an image: {}", error.reason);
                planner.error(codes::INVALID_VALUE, message, &given.span);
            }
        }
    }
    let entry = entry.and_then(|entry| entry.value.parse().ok());
    (entry.unwrap_or_else(|| directory_reference(planner.base)), given.is_some())
}

/// A build lacks its Dockerfile, and what helps.
pub(crate) const NO_DOCKERFILE: &str = "there is no Dockerfile in the build context";
pub(crate) const NAME_DOCKERFILE: &str = "name it with `build: {dockerfile: PATH}`";

/// `My App` becomes `my-app`.
pub(crate) fn directory_reference(base: &Path) -> Reference {
    let name = base.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("-").parse().unwrap_or_else(|_| "app".parse().expect("a legal name"))
}

/// `is_built`: a Dockerfile has to be there. A file that only says whom to trust, or where images go, needs none.
pub(super) fn build(planner: &mut Planner<'_>, given: Option<&Build>, is_built: bool) -> BuildPlan {
    let default = Build::default();
    let build = given.unwrap_or(&default);
    let context = match &build.context {
        Some(context) => planner.path(context, planner.base),
        None => Some(planner.base.to_path_buf()),
    };
    if let (Some(at), Some(path)) = (&build.context, &context)
        && !path.is_dir()
    {
        let message = format!("`{}` is not a directory", at.value);
        planner.error(codes::NO_SUCH_PATH, message, &at.span);
    }
    let context = context.unwrap_or_else(|| planner.base.to_path_buf());
    let dockerfile_path = dockerfile_path(planner, build, &context, is_built);
    BuildPlan {
        dockerfile: match (&build.dockerfile_inline, &dockerfile_path) {
            (Some(_), _) => "dockerfile_inline".into(),
            (None, Some(path)) => shown(path, planner.base),
            (None, None) => DOCKERFILE_NAMES[0].into(),
        },
        dockerfile_path,
        dockerfile_inline: build.dockerfile_inline.as_ref().map(|text| text.value.clone()),
        target: build.target.as_ref().and_then(|target| planner.fill(target)),
        args: planner.pairs(&build.args),
        labels: planner.pairs(&build.labels),
        additional_contexts: additional_contexts(planner, &build.additional_contexts),
        network: build.network.as_ref().map_or("default", |network| &network.value).to_owned(),
        platform: build.platform.as_ref().and_then(|platform| self::platform(planner, platform)),
        extra_hosts: planner.pairs(&build.extra_hosts).into_iter().collect(),
        secrets: bounds::secret_uses(planner, &build.secrets),
        no_cache: build.no_cache,
        pull: build.pull,
        context,
    }
}

fn dockerfile_path(planner: &mut Planner<'_>, build: &Build, context: &Path, is_built: bool) -> Option<PathBuf> {
    if build.dockerfile_inline.is_some() {
        return None;
    }
    if let Some(given) = &build.dockerfile {
        return planner.path(given, context);
    }
    let found = DOCKERFILE_NAMES.iter().map(|name| context.join(name)).find(|path| path.is_file());
    if found.is_none() && planner.has_file() && is_built {
        let span = build.context.as_ref().map_or(0..0, |context| context.span.clone());
        planner.error(codes::NO_SUCH_PATH, NO_DOCKERFILE, &span).help = Some(NAME_DOCKERFILE.into());
    }
    // A link could lead out of the repository.
    found.map(|path| path.canonicalize().unwrap_or(path)).filter(|path| {
        let inside = path.starts_with(&planner.root);
        if !inside {
            planner.error(codes::LEAVES_REPOSITORY, "the Dockerfile is a link out of the repository", &(0..0));
        }
        inside
    })
}

fn shown(path: &Path, base: &Path) -> String {
    path.strip_prefix(base).unwrap_or(path).display().to_string()
}

fn platform(planner: &mut Planner<'_>, given: &At<String>) -> Option<String> {
    let text = planner.fill(given)?;
    match text.parse::<Platform>() {
        Ok(platform) => Some(platform.to_string()),
        Err(error) => {
            planner.error(codes::INVALID_VALUE, error.to_string(), &given.span);
            None
        }
    }
}

fn additional_contexts(planner: &mut Planner<'_>, pairs: &Pairs) -> std::collections::BTreeMap<String, String> {
    let mut contexts = std::collections::BTreeMap::new();
    for (name, value) in pairs {
        let Some(value) = value else {
            planner.error(codes::MISSING_KEY, format!("the context `{}` has no value", name.value), &name.span);
            continue;
        };
        let Some(text) = planner.fill(value) else { continue };
        // A directory that is called like something elsewhere is meant first, as with docker.
        let is_here = planner.base.join(&text).is_dir();
        let elsewhere = RemoteSource::parse_context(&text).map(|source| source.filter(|_| !is_here));
        let resolved = if text.starts_with("docker-image://") || matches!(elsewhere, Ok(Some(_))) {
            Some(text)
        } else if let Err(error) = elsewhere {
            planner.error(codes::INVALID_VALUE, error.to_string(), &value.span);
            None
        } else if let Some(layout) = text.strip_prefix("oci-layout://") {
            let (path, rest) = layout.split_at(layout.find([':', '@']).unwrap_or(layout.len()));
            planner
                .path(&At::new(path.to_owned(), value.span.clone()), planner.base)
                .map(|path| format!("oci-layout://{}{rest}", path.display()))
        } else if let Some(name) = text.strip_prefix(OF_RUN) {
            planner.image_of_run(name, &value.span).map(|name| format!("{OF_RUN}{name}"))
        } else if let Some((scheme, _)) = text.split_once("://") {
            let message = format!("contexts of the kind `{scheme}` are not supported yet");
            planner.error(codes::NOT_YET, message, &value.span).help =
                Some("there are directories, Git repositories, `https://…`, `docker-image://NAME`, `oci-layout://PATH` and `image:NAME`".into());
            None
        } else {
            planner.path(&At::new(text, value.span.clone()), planner.base).map(|path| path.display().to_string())
        };
        if let Some(resolved) = resolved {
            contexts.insert(name.value.clone(), resolved);
        }
    }
    contexts
}
