//! Packages and other files, and the indexes that take them: Python's, npm's, cargo's, and registries of OCI artefacts.
//!
//! Knows nothing of images, pipelines or where a file comes from. Start at [`Target`] (where to), [`Package::read`] (what) and
//! [`publish`]. A file that is there already with the same content is published; one with other content is an error, because
//! indexes never change what they have given out.

mod archive;
mod artefact;
mod body;
mod crates;
mod error;
mod npm;
mod package;
mod pypi;
mod target;

use registry::Client;

pub use error::{InvalidPackage, PublishError, PublishErrorKind};
pub use package::Package;
pub use pypi::Place as PypiPlace;
pub use target::{InvalidTarget, Login, Target};

/// What became of a package, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The index has it now, and did not have it before.
    Sent,
    /// The index had it already, with the same content.
    WasThere,
    /// The index does not have it, and nothing was sent.
    Absent,
}

/// Publishes packages that belong together: to an index one after the other, to a registry as one artefact. `sent` hears the
/// name of each as soon as it is there.
///
/// # Errors
/// See [`PublishErrorKind`]. What `sent` heard of is there all the same.
pub async fn publish(
    client: &Client,
    target: &Target,
    login: Option<&Login>,
    packages: &[Package],
    sent: &mut (dyn FnMut(&Package, State) + Send),
) -> Result<(), PublishError> {
    act(client, target, login, packages, true, sent).await
}

/// As [`publish`], but only asks: a package that would be sent is [`State::Absent`].
///
/// # Errors
/// The index cannot be asked, or has another file of that name.
pub async fn look(
    client: &Client,
    target: &Target,
    login: Option<&Login>,
    packages: &[Package],
    found: &mut (dyn FnMut(&Package, State) + Send),
) -> Result<(), PublishError> {
    act(client, target, login, packages, false, found).await
}

async fn act(
    client: &Client,
    target: &Target,
    login: Option<&Login>,
    packages: &[Package],
    is_sending: bool,
    told: &mut (dyn FnMut(&Package, State) + Send),
) -> Result<(), PublishError> {
    let failed = |package: &Package, kind: PublishErrorKind| PublishError {
        package: package.file_name.clone(),
        target: target.to_string(),
        kind: without_secret(kind, login),
    };
    if let Target::Oci(reference) = target {
        let Some(first) = packages.first() else { return Ok(()) };
        let state = artefact::push(client, reference, login, packages, is_sending).await;
        let state = state.map_err(|kind| failed(first, kind))?;
        packages.iter().for_each(|package| told(package, state));
        return Ok(());
    }
    for package in packages {
        let index = Index { client, login };
        let state = match target {
            Target::Pypi(place) => pypi::push(index, place, package, is_sending).await,
            Target::Npm(url) => npm::push(index, url, package, is_sending).await,
            Target::Crates(url) => crates::push(index, url, package, is_sending).await,
            Target::Oci(_) => unreachable!("it has gone already"),
        };
        told(package, state.map_err(|kind| failed(package, kind))?);
    }
    Ok(())
}

/// Who asks an index.
#[derive(Clone, Copy)]
struct Index<'a> {
    client: &'a Client,
    login: Option<&'a Login>,
}

/// An index may say in its refusal what it was given.
fn without_secret(kind: PublishErrorKind, login: Option<&Login>) -> PublishErrorKind {
    match (kind, login) {
        (PublishErrorKind::Refused { status, message }, Some(login)) => {
            PublishErrorKind::Refused { status, message: login.mask(&message) }
        }
        (PublishErrorKind::Unauthorized { message }, Some(login)) => {
            PublishErrorKind::Unauthorized { message: login.mask(&message) }
        }
        (kind, _) => kind,
    }
}
