//! Why services are not there.

use std::{path::PathBuf, time::Duration};

use engine::{BuildError, EngineError, Exit};
use events::Place;

/// Why we could not begin to look at what needs the services.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A service ended, or never became ready. [`ServiceFailure::is_own`] says whether that is a verdict.
    #[error("service {} {}", .0.service, .0.reason)]
    Failed(Box<ServiceFailure>),
    /// The definition asks for something that is not possible: the user's mistake.
    #[error("{message}")]
    Invalid {
        /// What is wrong, with the service's name.
        message: String,
        /// Where the service stands.
        place: Option<Place>,
        /// What can be done instead.
        hint: Option<String>,
    },
    /// Its image cannot be had.
    #[error("cannot get the image of service {service}")]
    Image {
        /// The service.
        service: String,
        /// The cause.
        #[source]
        source: BuildError,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// A service that is not ready, as the user is told.
#[derive(Clone, Debug)]
pub struct ServiceFailure {
    /// The service.
    pub service: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// Its image is built from the repository, so that its failure is a verdict on what stands there. Of others nothing is
    /// learned: the surroundings failed.
    pub is_own: bool,
    /// What was started.
    pub command: String,
    /// In words that follow the name: `exited 1 before it was ready`.
    pub reason: String,
    /// How it ended; `None` when it ran until the end.
    pub exit: Option<Exit>,
    /// Time from its start.
    pub duration: Duration,
    /// Its last lines, and what the last look at it said.
    pub tail: Vec<String>,
    /// Lines before them.
    pub earlier_lines: u64,
    /// The whole log.
    pub log: PathBuf,
    /// What can be done, if something is known.
    pub hint: Option<String>,
}

impl ServiceError {
    pub(crate) fn invalid(service: &compose::Service, message: impl std::fmt::Display) -> Self {
        let message = format!("service {}: {message}", service.name);
        Self::Invalid { message, place: service.place.clone(), hint: None }
    }

    /// With what can be done instead, where it is a mistake of the user's.
    pub(crate) fn hint(mut self, text: String) -> Self {
        if let Self::Invalid { hint, .. } = &mut self {
            *hint = Some(text);
        }
        self
    }
}

/// How a process ended, in words.
pub(crate) fn ended(exit: &Exit) -> String {
    if exit.out_of_memory {
        "hit its memory limit".into()
    } else if exit.out_of_pids {
        "hit its limit of processes".into()
    } else if let Some(signal) = exit.signal {
        format!("was ended by signal {signal}")
    } else {
        format!("exited {}", exit.code)
    }
}
