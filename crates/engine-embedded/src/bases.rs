//! Base images from registries, for a builder that knows neither the network nor an async runtime.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use builder::{AdmitError, BaseError, BaseSource};
use events::{EventSink, Transfers};
use evidence::{NotAdmitted, Requirement, Trust};
use oci::{Digest, Platform, Reference};
use registry::{Client, Progress, RegistryError};
use store::{Image, Scope, Store};

/// Makes a registry client, with the user's credentials and settings. Called only when an image has to be fetched.
pub type MakeClient = Arc<dyn Fn() -> Client + Send + Sync>;

type Slot = Arc<Mutex<Option<Image>>>;

/// Fetches bases for one build.
pub(crate) struct Bases<'a> {
    pub(crate) client: &'a MakeClient,
    pub(crate) store: &'a Store,
    pub(crate) scope: &'a Scope,
    pub(crate) events: &'a EventSink,
    /// The stage id of events.
    pub(crate) stage: &'a str,
    /// What images need before they are used.
    pub(crate) trust: &'a Trust,
    /// One fetch for each image, however many stages want it at once.
    pub(crate) slots: Mutex<HashMap<(Reference, String), Slot>>,
}

impl BaseSource for Bases<'_> {
    fn pull(&self, reference: &Reference, platform: &Platform) -> Result<Image, BaseError> {
        let slot: Slot = {
            let mut slots = self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            slots.entry((reference.clone(), platform.to_string())).or_default().clone()
        };
        let mut slot = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(image) = &*slot {
            return Ok(image.clone());
        }
        let image = self.fetch(reference, platform)?;
        *slot = Some(image.clone());
        Ok(image)
    }

    fn admit(
        &self,
        reference: &Reference,
        platform: &Platform,
        verify: &[String],
    ) -> Result<Option<Reference>, AdmitError> {
        let wanted: Result<Vec<Requirement>, String> = verify.iter().map(|text| text.parse()).collect();
        let wanted = wanted.map_err(AdmitError::Refused)?;
        if self.trust.pull_policy(reference, &wanted).is_none() {
            return Ok(None);
        }
        let judge = |client| async move {
            match self.trust.admit(&client, reference, platform, &wanted).await {
                Err(NotAdmitted::Registry(error)) => Err(error),
                Err(NotAdmitted::Missing(what)) => Ok(Err(AdmitError::Refused(what))),
                Ok(judged) => Ok(Ok(judged)),
            }
        };
        self.ask(judge)?
    }
}

impl Bases<'_> {
    fn fetch(&self, reference: &Reference, platform: &Platform) -> Result<Image, BaseError> {
        let progress = Told(Transfers::new(self.events, self.stage));
        let (store, scope, progress) = (self.store, self.scope, &progress);
        let image = self.ask(|client| async move { client.pull(reference, platform, store, scope, progress).await })?;
        if reference.digest().is_none() {
            // So that the next build finds it without the network.
            self.store.tag_beside(reference, &image).map_err(|error| other(error.into()))?;
        }
        Ok(image)
    }

    /// Asks a registry. A thread and a runtime of their own: this may be called from inside a runtime or without any, and
    /// an unchanged build never gets here.
    fn ask<T, F>(&self, question: impl FnOnce(Client) -> F + Send) -> Result<T, BaseError>
    where
        T: Send,
        F: Future<Output = Result<T, RegistryError>>,
    {
        std::thread::scope(|scope| {
            let ask = || {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                let runtime = runtime.map_err(|error| other(error.into()))?;
                let answer = runtime.block_on(question((self.client)()));
                answer.map_err(|error| BaseError { is_auth: error.is_auth(), source: error.into() })
            };
            let thread = std::thread::Builder::new().name("pull".into()).spawn_scoped(scope, ask);
            let thread = thread.map_err(|error| other(error.into()))?;
            thread.join().unwrap_or_else(|_| Err(other("fetching an image panicked".into())))
        })
    }
}

fn other(source: Box<dyn std::error::Error + Send + Sync>) -> BaseError {
    BaseError { is_auth: false, source }
}

/// Tells the events how far a pull is.
struct Told(Transfers);

impl Progress for Told {
    fn advance(&self, item: &Digest, done_bytes: u64, total_bytes: u64) {
        self.0.advance(item.short(), done_bytes, Some(total_bytes));
    }

    fn skip(&self, item: &Digest, bytes: u64, total_bytes: u64) {
        self.0.skip(item.short(), bytes, total_bytes);
    }
}
