//! Images that gates run in beside the built one: of the same run, or looked up once in it, by whoever needs them first.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use engine::{BuildError, ImageRequest, Pull, ResolvedImage};
use oci::{Platform, Reference};
use tokio::sync::OnceCell;

use super::siblings::Siblings;
use crate::{ImagePlan, RunContext, RunError};

/// What names stood for in this run.
pub(super) struct Images<'a> {
    cx: RunContext<'a>,
    pull: bool,
    siblings: &'a Siblings,
    known: Mutex<BTreeMap<Reference, Arc<OnceCell<ResolvedImage>>>>,
}

impl<'a> Images<'a> {
    pub(super) fn new(cx: RunContext<'a>, pull: bool, siblings: &'a Siblings) -> Self {
        Self { cx, pull, siblings, known: Mutex::default() }
    }

    /// The image that `in` names; two gates with the same name have the same one.
    pub(super) async fn find(&self, gate: &str, image: &ImagePlan) -> Result<ResolvedImage, RunError> {
        if let Some(name) = &image.of_run {
            let root = self.siblings.built(name).await;
            let root = root.expect("a gate is skipped whose image is not built");
            let id = root.digest();
            return Ok(ResolvedImage { root, id });
        }
        let slot = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(image.reference.clone()).or_default())
        };
        let request = ImageRequest {
            stage: gate.to_owned(),
            reference: image.reference.clone(),
            platform: Platform::host(),
            pull: Pull::newer(self.pull),
            place: image.place.clone(),
            verify: Vec::new(),
            cancel: self.cx.cancel.clone(),
        };
        let found = slot.get_or_try_init(|| self.cx.engine.image(request, self.cx.events)).await;
        found.cloned().map_err(|error| match error {
            BuildError::Cancelled => RunError::Cancelled,
            BuildError::Engine(error) => RunError::Engine(error),
            error => RunError::Build(error),
        })
    }
}
