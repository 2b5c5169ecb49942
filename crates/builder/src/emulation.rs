//! RUN for another processor than this machine's: by an emulator that the kernel knows, or not at all.

use engine::{BuildError, EngineError};
use oci::Platform;
use runtime::{Emulation, Mount, MountKind};

use crate::stage::At;

/// What a RUN for the stage's platform has to be shown beside its own mounts.
///
/// # Errors
/// Programs of the platform do not run here: told before anything is started.
pub(crate) fn mount(at: &At<'_>, platform: &Platform) -> Result<Option<Mount>, BuildError> {
    let interpreter = match runtime::emulation(&platform.architecture) {
        Emulation::Native | Emulation::Held => return Ok(None),
        Emulation::Missing => return Err(missing(at, platform, "this machine has no emulator for it")),
        Emulation::ByPath(path) => path,
    };
    if !interpreter.is_file() {
        let reason = format!("its emulator {} is registered, but not there", interpreter.display());
        return Err(missing(at, platform, &reason));
    }
    if runtime::is_dynamic(&interpreter) {
        let reason = format!("its emulator {} needs libraries that the image does not have", interpreter.display());
        return Err(missing(at, platform, &reason));
    }
    let Some(target) = interpreter.to_str().map(str::to_owned) else {
        return Err(missing(at, platform, "the path of its emulator is no text"));
    };
    Ok(Some(Mount { target, kind: MountKind::Bind(interpreter), readonly: true }))
}

fn missing(at: &At<'_>, platform: &Platform, reason: &str) -> BuildError {
    let place = at.work.place(&at.span);
    let text = &at.instruction.text;
    let (file, line) = (&place.file, place.line);
    BuildError::Engine(EngineError {
        message: format!("cannot run `{text}` ({file}:{line}) for {platform}: {reason}"),
        hint: Some(
            "install static emulators that the kernel holds open (Debian: `apt-get install qemu-user-static`), or let the \
             stage run on this machine's platform: `FROM --platform=$BUILDPLATFORM …`; `seatrial doctor` lists what runs here"
                .to_owned(),
        ),
        command_code: None,
        source: None,
    })
}
