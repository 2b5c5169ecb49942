//! Warm snapshots: by what the state of an initialised service is found again.

use compose::Service;
use oci::Digest;
use serde_json::json;

use crate::{ServiceContext, ServiceError, image::Image, spec::Draft};

/// Raised when what a key is made of changes its meaning.
const KEY_VERSION: u32 = 1;

/// Digest of all that decides what a service's files look like once it is ready: image, program, environment, the content
/// of what is mounted, and the seed files. Addresses of other services do not belong to it.
pub(crate) async fn key(
    cx: &ServiceContext<'_>,
    service: &Service,
    image: &Image,
    draft: &Draft,
) -> Result<Digest, ServiceError> {
    let spec = &draft.spec;
    let mut mounted = Vec::new();
    for mount in &spec.mounts {
        mounted.push(json!([mount.target, mount.readonly, cx.engine.content(&mount.source).await?]));
    }
    let mut seed = Vec::new();
    for path in &service.seed {
        seed.push(cx.engine.content(path).await?);
    }
    let around = &spec.surroundings;
    let files = around
        .files
        .iter()
        .map(|file| json!([file.target, Digest::of(file.content.expose()), file.mode, file.uid, file.gid]));
    let key = json!({
        "version": KEY_VERSION,
        "image": image.id,
        "root": image.root.id,
        "args": spec.args,
        "env": spec.env,
        "cwd": spec.cwd,
        "user": spec.user,
        "ready": service.ready,
        "healthcheck": service.healthcheck,
        "mounts": mounted,
        "files": files.collect::<Vec<_>>(),
        "tmpfs": around.tmpfs.iter().map(|tmpfs| &tmpfs.target).collect::<Vec<_>>(),
        "read_only": around.readonly_root,
        "stop": [draft.signal.to_string()],
        "seed": seed,
    });
    Ok(Digest::of(key.to_string().as_bytes()))
}
