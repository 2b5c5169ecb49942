//! The images of a run, as others in it see them: not there yet, built, passed, or never to come.

use std::collections::BTreeMap;

use engine::Root;
use oci::Digest;
use tokio::sync::watch;

/// What is known of each image, by its name.
pub(super) struct Siblings(BTreeMap<String, Slot>);

/// `None` until it is known.
struct Slot {
    built: watch::Sender<Option<Result<Root, Gone>>>,
    passed: watch::Sender<Option<Result<Digest, Gone>>>,
}

/// What was waited for will not come: the image failed, or its turn never came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

impl Siblings {
    pub(super) fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        let slot = |name: &str| {
            let slot = Slot { built: watch::channel(None).0, passed: watch::channel(None).0 };
            (name.to_owned(), slot)
        };
        Self(names.into_iter().map(slot).collect())
    }

    /// Containers may be started from it.
    pub(super) fn is_built(&self, name: &str, root: &Root) {
        self.slot(name).built.send_replace(Some(Ok(root.clone())));
    }

    /// Others may be built on it: the id of the sealed image.
    pub(super) fn has_passed(&self, name: &str, id: &Digest) {
        self.slot(name).passed.send_replace(Some(Ok(id.clone())));
    }

    /// Whatever others still wait for will not come.
    pub(super) fn is_over(&self, name: &str) {
        let Slot { built, passed } = self.slot(name);
        built.send_if_modified(close);
        passed.send_if_modified(close);
    }

    /// Whether the run builds an image of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Waits until the image can be started.
    pub(super) async fn built(&self, name: &str) -> Result<Root, Gone> {
        known(&self.slot(name).built).await
    }

    /// Waits until the image has passed.
    pub(super) async fn passed(&self, name: &str) -> Result<Digest, Gone> {
        known(&self.slot(name).passed).await
    }

    fn slot(&self, name: &str) -> &Slot {
        self.0.get(name).expect("the selection takes along every image that another one names")
    }
}

fn close<T>(known: &mut Option<Result<T, Gone>>) -> bool {
    let is_open = known.is_none();
    if is_open {
        *known = Some(Err(Gone));
    }
    is_open
}

async fn known<T: Clone>(sender: &watch::Sender<Option<Result<T, Gone>>>) -> Result<T, Gone> {
    let mut receiver = sender.subscribe();
    // The sender lives as long as its siblings, so waiting cannot end by its loss.
    let value = receiver.wait_for(Option::is_some).await.map_err(|_| Gone)?;
    value.clone().unwrap_or(Err(Gone))
}
