//! What a service is started from: an image by name, one that is built for it, or one of the same run.

use std::{collections::BTreeMap, path::Path, time::Duration};

use compose::{Build, FileContent, HostAddress, PullPolicy, Service};
use engine::{
    BuildContext, BuildError, BuildRequest, DockerfileSource, HOST_GATEWAY, ImageRequest, NamedContext, NetworkMode,
    Pull, Root, RunSettings, Secret,
};
use oci::{Digest, Platform};

use crate::{ServiceContext, ServiceError};

/// An image that was found or built.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// As the user names it.
    pub(crate) name: String,
    pub(crate) root: Root,
    /// Follows from its content: docker's image id, or, where it is not sealed, a digest of root and config.
    pub(crate) id: Digest,
}

pub(crate) async fn find(cx: &ServiceContext<'_>, service: &Service) -> Result<Image, ServiceError> {
    if !service.verify.is_empty() && service.image.is_none() {
        return Err(ServiceError::invalid(service, "`verify` speaks of an `image` from a registry"));
    }
    let failed = |source| match source {
        BuildError::Cancelled => ServiceError::Cancelled,
        BuildError::Engine(error) => ServiceError::Engine(error),
        source => ServiceError::Image { service: service.name.clone(), source },
    };
    match (&service.from, &service.build, &service.image) {
        (Some(name), _, _) => match cx.built.get(name) {
            Some(root) => Ok(unsealed(name.clone(), root.clone())),
            None => Err(ServiceError::invalid(service, format!("this run does not build an image `{name}`"))),
        },
        (None, Some(build), _) => {
            let request = request(cx, service, build)?;
            let built = cx.engine.build(request, cx.events).await.map_err(failed)?;
            Ok(unsealed(build.context.clone(), built.root))
        }
        (None, None, Some(reference)) => {
            let reference = match (reference.tag(), reference.digest()) {
                (None, None) => reference.with_tag("latest"),
                _ => reference.clone(),
            };
            let request = ImageRequest {
                stage: service.name.clone(),
                reference: reference.clone(),
                platform: service.platform.clone().unwrap_or_else(Platform::host),
                pull: pull(cx, service),
                place: service.place.clone(),
                verify: service.verify.iter().map(|evidence| evidence.as_str().to_owned()).collect(),
                cancel: cx.cancel.clone(),
            };
            let found = cx.engine.image(request, cx.events).await.map_err(failed)?;
            Ok(Image { name: reference.familiar(), root: found.root, id: found.id })
        }
        (None, None, None) => Err(ServiceError::invalid(service, "it needs `image` or `build`")),
    }
}

/// `--pull` wins over what the file says, as with docker compose.
fn pull(cx: &ServiceContext<'_>, service: &Service) -> Pull {
    match &service.pull_policy {
        Some(PullPolicy::Always) => Pull::Always,
        Some(PullPolicy::Never) if !cx.pull => Pull::Never,
        _ => Pull::newer(cx.pull),
    }
}

/// Whether it is started from what stands in the repository.
pub(crate) fn is_own(service: &Service) -> bool {
    service.build.is_some() || service.from.is_some()
}

fn unsealed(name: String, root: Root) -> Image {
    let id = root.digest();
    Image { name, root, id }
}

fn request(cx: &ServiceContext<'_>, service: &Service, build: &Build) -> Result<BuildRequest, ServiceError> {
    let invalid = |message: String| ServiceError::invalid(service, message);
    let context = Path::new(&build.context);
    if !context.is_absolute() {
        return Err(invalid(format!("a build context elsewhere (`{}`) is not supported yet", build.context)));
    }
    let dockerfile = match (&build.dockerfile_inline, &build.dockerfile) {
        (Some(text), _) => DockerfileSource { name: "dockerfile_inline".into(), path: None, text: text.clone() },
        (None, given) => {
            let name = given.clone().unwrap_or_else(|| {
                let has = |name: &&str| context.join(name).is_file();
                ["Dockerfile", "Containerfile"].into_iter().find(has).unwrap_or("Dockerfile").to_owned()
            });
            let path = context.join(&name);
            let text = fs_err::read_to_string(&path).map_err(|error| invalid(error.to_string()))?;
            // There are several in a repository: messages say which one.
            let name = path.strip_prefix(cx.directory).map_or(name, |path| path.display().to_string());
            DockerfileSource { name, path: Some(path), text }
        }
    };
    let mut build_contexts = BTreeMap::new();
    for (name, text) in &build.additional_contexts {
        let context = match text.parse().map_err(|error: engine::InvalidContext| invalid(error.to_string()))? {
            NamedContext::Directory(path) if !path.is_absolute() => {
                return Err(invalid(format!("the named context `{text}` is not supported yet")));
            }
            context => context,
        };
        build_contexts.insert(name.clone(), context);
    }
    let mut secrets = BTreeMap::new();
    for grant in &build.secrets {
        let content = match cx.project.secrets.get(&grant.source).map(|source| &source.content) {
            Some(FileContent::Inline(text)) => text.clone().into_bytes(),
            Some(FileContent::Environment(name)) => cx.env.get(name).cloned().unwrap_or_default().into_bytes(),
            Some(FileContent::File(path)) => fs_err::read(path).map_err(|error| invalid(error.to_string()))?,
            _ => return Err(invalid(format!("secret `{}` is not defined", grant.source))),
        };
        secrets.insert(grant.target.clone(), Secret::new(content));
    }
    let hosts = build.extra_hosts.iter().map(|(name, address)| match address {
        HostAddress::Address(address) => (name.clone(), address.to_string()),
        HostAddress::HostGateway => (name.clone(), HOST_GATEWAY.to_owned()),
    });
    Ok(BuildRequest {
        stage: service.name.clone(),
        context: BuildContext::Directory(context.to_owned()),
        dockerfile,
        build_contexts,
        target: build.target.clone(),
        build_args: build.args.clone(),
        labels: build.labels.clone(),
        platform: service.platform.clone().or_else(|| build.platforms.first().cloned()).unwrap_or_else(Platform::host),
        network: match build.network.as_deref() {
            Some("none") => NetworkMode::None,
            Some("host") => NetworkMode::Host,
            _ => NetworkMode::Default,
        },
        extra_hosts: hosts.collect(),
        run: RunSettings { secrets, ..RunSettings::default() },
        no_cache: cx.no_cache || build.no_cache,
        no_cache_filter: Vec::new(),
        pull: cx.pull || build.pull,
        epoch: None,
        keep_failed: Duration::ZERO,
        cancel: cx.cancel.clone(),
    })
}
