//! A failure of the owner's, told by the command that asked.

use events::Place;
use serde::{Deserialize, Serialize};
use services::ServiceError;

use crate::{
    exit::Exit,
    failure::{self, Failure},
    terminal::{Palette, summary},
};

/// A [`Failure`] on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    exit: u8,
    message: String,
    causes: Vec<String>,
    block: Option<String>,
    place: Option<Box<Place>>,
    hints: Vec<String>,
}

impl From<Failure> for Told {
    fn from(failure: Failure) -> Self {
        let Failure { exit, message, causes, block, place, hints, .. } = failure;
        Self { exit: exit.code(), message, causes, block, place, hints }
    }
}

impl From<Told> for Failure {
    fn from(told: Told) -> Self {
        let Told { exit, message, causes, block, place, hints } = told;
        let exit = match exit {
            0 => Exit::Passed,
            1 => Exit::Refused,
            2 => Exit::Usage,
            3 => Exit::Surroundings,
            4 => Exit::Authentication,
            129 => Exit::HungUp,
            130 => Exit::Interrupted,
            143 => Exit::Terminated,
            code => Exit::Command(code),
        };
        Failure { causes, block, place, hints, ..Failure::new(exit, message) }
    }
}

/// Services that did not come up, as the user is told.
pub(crate) fn service_failure(error: ServiceError) -> Failure {
    let message = error.to_string();
    match error {
        ServiceError::Failed(failed) => {
            let lines_max = summary::block_lines_max(false);
            let block = summary::Failed::service("seatrial logs", &failed).render(Palette::stderr(), lines_max);
            Failure::refused(message)
                .shown_as(block)
                .hint("look at it with `seatrial ps` and `seatrial logs`; `seatrial down` ends it")
        }
        ServiceError::Invalid { place, hint, .. } => {
            let failure = Failure { place: place.map(Box::new), ..Failure::usage(message) };
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        ServiceError::Image { service, source: engine::BuildError::Step(step) } => {
            let mut failed = summary::Failed::step(&format!("image of {service}"), "build", 0, &step);
            // Its log is not kept: the whole of it is seen by building it alone.
            (failed.earlier_lines, failed.hints) = (0, Vec::new());
            let block = failed.render(Palette::stderr(), summary::block_lines_max(false));
            Failure::refused(message).shown_as(block)
        }
        ServiceError::Image { source, .. } => failure::build(source, 0),
        ServiceError::Cancelled => Failure::cancelled(),
        ServiceError::Engine(error) => failure::explain(error.into()),
    }
}
