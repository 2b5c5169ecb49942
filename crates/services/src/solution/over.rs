//! Coming up over what is there already: what stays, what is made anew.

use std::sync::{Arc, Mutex, PoisonError};

use compose::Service;
use engine::Cancel;
use oci::Digest;
use tokio::task::JoinSet;

use super::{Change, Recreate, Step, change};
use crate::{Purpose, ServiceError, up::Up};

/// What is there when services of a solution come up, and what is done about it.
#[derive(Clone, Copy)]
pub(crate) struct Over<'a> {
    pub(crate) former: &'a [Arc<Up>],
    /// Where those that are started are known from then on, long before they are ready.
    pub(crate) all: &'a Mutex<Vec<Arc<Up>>>,
    pub(crate) recreate: Recreate,
    pub(crate) tell: &'a (dyn Fn(Change) + Sync),
    pub(crate) tasks: &'a Mutex<JoinSet<()>>,
}

impl Over<'_> {
    /// Containers of a service that stay, started again if they had ended. The others make room: they are removed.
    pub(crate) async fn keep(&self, service: &Service, hash: &Digest) -> Result<Vec<Arc<Up>>, ServiceError> {
        let mut kept = Vec::new();
        for up in self.former.iter().filter(|up| up.service.name == service.name && !up.is_removed()) {
            let is_right = match self.recreate {
                Recreate::Changed => up.hash.as_ref() == Some(hash),
                Recreate::Always => false,
                Recreate::Never => true,
            };
            if up.number > service.replicas.unwrap_or(1) {
                self.tell(up, Step::Stopping);
                self.remove(up).await?;
                self.tell(up, Step::Removed);
            } else if !is_right {
                self.tell(up, Step::Recreate);
                self.remove(up).await?;
            } else {
                if up.is_running() {
                    self.tell(up, Step::Running);
                } else {
                    self.tell(up, Step::Starting);
                    up.start().await?;
                    self.tell(up, Step::Started);
                }
                kept.push(Arc::clone(up));
            }
        }
        Ok(kept)
    }

    async fn remove(&self, up: &Up) -> Result<(), ServiceError> {
        up.remove(None).await?;
        self.all.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| !other.is_removed());
        Ok(())
    }

    pub(crate) fn started(&self, up: &Arc<Up>) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(up));
        self.tell(up, Step::Started);
    }

    /// Waits until it is ready, and tells it.
    pub(crate) async fn ready(&self, up: &Up, cancel: &Cancel) -> Result<String, ServiceError> {
        told_ready(up, cancel, self.tell).await
    }

    fn tell(&self, up: &Up, step: Step) {
        (self.tell)(change(up, step));
    }
}

/// Waits until it is ready, and tells it.
pub(super) async fn told_ready(
    up: &Up,
    cancel: &Cancel,
    tell: &(dyn Fn(Change) + Sync),
) -> Result<String, ServiceError> {
    let ready = up.ready(Purpose::Solution, cancel).await;
    let step = match &ready {
        Ok(how) => Step::Ready(how.clone()),
        Err(ServiceError::Failed(failure)) => Step::Failed(failure.reason.clone()),
        Err(error) => Step::Failed(error.to_string()),
    };
    tell(change(up, step));
    ready
}
