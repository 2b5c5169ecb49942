//! Work that goes on after the request that began it, until the server ends.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
};

use tokio::task::JoinSet;

/// Tasks of a server.
#[derive(Debug, Default)]
pub(super) struct Background(Mutex<JoinSet<()>>);

impl Background {
    /// Starts one.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have ended are forgotten.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    /// Ends all of them and waits for their end.
    pub(super) async fn end(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}
