//! SIGINT, SIGTERM and SIGHUP: the first stops in grace, a second Ctrl-C or SIGTERM kills.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

use engine::Cancel;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{exit::Exit, terminal};

/// Which signal came first, if any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopped {
    /// Exit code; 0 until then.
    code: Arc<AtomicU8>,
    leaves_hang_up: Arc<AtomicBool>,
}

impl Stopped {
    /// From here on SIGHUP has another meaning, which the caller hears of by itself.
    pub(crate) fn leave_hang_up(&self) {
        self.leaves_hang_up.store(true, Ordering::SeqCst);
    }

    /// The exit code of the first signal.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match self.code.load(Ordering::SeqCst) {
            129 => Some(Exit::HungUp),
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
    let signals: &[i32] = if ignores_hang_up() { &[SIGINT, SIGTERM] } else { &[SIGINT, SIGTERM, SIGHUP] };
    // Without handlers the signals end the process themselves, which is the second signal's meaning.
    let Ok(mut signals) = Signals::new(signals) else { return };
    let hear = move || {
        let mut heard = signals.forever();
        let is_ours = |signal: &i32| *signal != SIGHUP || !stopped.leaves_hang_up.load(Ordering::SeqCst);
        let Some(first) = heard.find(is_ours) else { return };
        stopped.code.store(exit_of(first).code(), Ordering::SeqCst);
        terminal::message_line("stopping… (once more to kill)");
        cancel.cancel();
        // A terminal that goes tells so by its shell and by the kernel: that is no second wish.
        let Some(second) = heard.find(|signal| *signal != SIGHUP) else { return };
        engine_embedded::terminal::restore();
        terminal::message_line("killed");
        #[expect(clippy::exit, reason = "the second signal asks for exactly this")]
        std::process::exit(exit_of(second).code().into());
    };
    let _ = std::thread::Builder::new().name("signals".into()).spawn(hear);
}

fn exit_of(signal: i32) -> Exit {
    match signal {
        SIGHUP => Exit::HungUp,
        SIGINT => Exit::Interrupted,
        _ => Exit::Terminated,
    }
}

/// Who started us under `nohup` wants us to outlive the terminal (proc(5), `SigIgn`).
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 << (SIGHUP - 1) != 0)
}
