//! SIGINT and SIGTERM: the first stops in grace, the second kills.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use engine::Cancel;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

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

/// Watches until the program ends, on a thread of its own, so that signals are heard while everything else is busy. The
/// first signal cancels; the second ends the process at once: the kernel ends its containers with it, and the next command
/// sweeps the rest. A signal that comes after this returned is heard.
pub(crate) fn watch(cancel: Cancel, stopped: Stopped) {
    // Without handlers the signals end the process themselves, which is the second signal's meaning.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    let hear = move || {
        let mut heard =
            signals.forever().map(|signal| if signal == SIGINT { Exit::Interrupted } else { Exit::Terminated });
        let Some(first) = heard.next() else { return };
        stopped.0.store(first.code(), Ordering::SeqCst);
        terminal::message_line("stopping… (once more to kill)");
        cancel.cancel();
        let Some(second) = heard.next() else { return };
        terminal::message_line("killed");
        #[expect(clippy::exit, reason = "the second signal asks for exactly this")]
        std::process::exit(second.code().into());
    };
    let _ = std::thread::Builder::new().name("signals".into()).spawn(hear);
}
