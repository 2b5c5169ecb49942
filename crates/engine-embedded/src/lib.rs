//! The engine that needs nothing: builds with our own builder, runs with our own runtime, in this very process.
//!
//! Knows nothing of pipelines. Start at [`Embedded::new`]; a run's containers belong to the scope that
//! [`engine::Engine::open_scope`] gives. [`sweep`] undoes what killed processes left and is called before.

mod base_of;
mod bases;
mod cache;
mod containers;
mod downloads;
mod embedded;
mod layered;
mod private;
mod saved;
mod scope;
pub mod terminal;
mod volumes;

use std::error::Error;

use engine::EngineError;
use store::JournalEntry;

pub use base_of::{ImageBase, image_base};
pub use bases::MakeClient;
pub use builder::{FetchError, FetchedContext, looks_like_archive};
pub use cache::{CacheError, CacheExport, CacheImport, CachePlace, CacheWritten};
pub use embedded::{Embedded, EmbeddedOptions};

/// Undoes what killed processes left: their containers' control groups, directories, networks and unfinished snapshots; drops kept
/// roots whose time is over. Cheap when there is nothing.
///
/// # Errors
/// The store cannot be read.
pub fn sweep(store: &store::Store) -> Result<(), EngineError> {
    let mut undo = |entry| match entry {
        JournalEntry::Container(id) => runtime::sweep_container(&id),
        // What cannot be removed now stays where it is; the next command does not depend on it.
        JournalEntry::Directory(path) => drop(fs_err::remove_dir_all(path)),
        JournalEntry::Other { kind, value } if kind == private::LEFTOVER => {
            if let Ok(leftover) = value.parse::<network::Leftover>() {
                leftover.remove();
            }
        }
        JournalEntry::Other { .. } => {}
    };
    let swept = store.sweep_with(&mut undo).and_then(|()| store.drop_expired());
    swept.map_err(|error| failed("cannot sweep up after earlier runs", error))
}

/// The surroundings failed.
pub(crate) fn failed(message: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> EngineError {
    EngineError { message: message.into(), hint: None, command_code: None, source: Some(source.into()) }
}

/// A container or process that could not be started; the user's own mistakes carry docker's exit code.
pub(crate) fn start_failed(name: &str, error: runtime::StartError) -> EngineError {
    let command_code = match &error {
        runtime::StartError::NotFound { .. } => Some(127),
        runtime::StartError::NotExecutable { .. } | runtime::StartError::UnknownUser { .. } => Some(126),
        runtime::StartError::Setup { .. } => None,
    };
    let hint = match (error.remedy(), command_code) {
        (Some(remedy), _) => Some(remedy.to_owned()),
        (None, None) => Some("`seatrial doctor` checks what this machine offers".to_owned()),
        (None, Some(_)) => None,
    };
    EngineError { hint, command_code, ..failed(format!("cannot start {name}"), error) }
}
