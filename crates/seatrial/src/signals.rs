//! SIGINT and SIGTERM: the first stops in grace, the second kills.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use engine::Cancel;
use tokio::signal::unix::{SignalKind, signal};

use crate::{exit::Exit, terminal};

/// Which signal came first, if any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopped(Arc<AtomicU8>);

impl Stopped {
    /// The exit code of the first signal.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match self.0.load(Ordering::SeqCst) {
            130 => Some(Exit::Interrupted),
            143 => Some(Exit::Terminated),
            _ => None,
        }
    }
}

/// Watches until the program ends. The first signal cancels; the second ends the process at once: the kernel ends its
/// containers with it, and the next command sweeps the rest.
pub(crate) async fn watch(cancel: Cancel, stopped: Stopped) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the signals end the process themselves, which is the second signal's meaning.
        return;
    };
    let mut next = async || {
        tokio::select! {
            _ = interrupt.recv() => Exit::Interrupted,
            _ = terminate.recv() => Exit::Terminated,
        }
    };
    let first = next().await;
    stopped.0.store(first.code(), Ordering::SeqCst);
    terminal::message_line("stopping… (once more to kill)");
    cancel.cancel();
    let second = next().await;
    terminal::message_line("killed");
    #[expect(clippy::exit, reason = "the second signal asks for exactly this")]
    std::process::exit(second.code().into());
}
