//! `RUN --network`, `--security` and `--device`: what an instruction may do, by what the user allows.

use dockerfile::{Diagnostic, Run, Word};
use engine::{BuildError, NetworkMode};
use runtime::Network;

use crate::{
    setup,
    stage::{At, State},
    step::Key,
};

/// What a RUN may do.
#[derive(Clone, Debug)]
pub(crate) struct Rights {
    pub(crate) network: Network,
    /// `--security=insecure`.
    pub(crate) privileged: bool,
}

impl Rights {
    /// The network is not part of the key, as little as what is reached through it; more rights are.
    pub(crate) fn add_to(&self, key: &mut Key) {
        if self.privileged {
            key.add("security", "insecure");
        }
    }
}

/// Reads the flags; what is not allowed is refused with the flag that allows it.
pub(crate) fn of(at: &At<'_>, state: &State, run: &Run) -> Result<Rights, BuildError> {
    if let Some(word) = run.devices.first() {
        let message = "`--device` is not supported: containers of a build see no devices of the host";
        let help = "build without the device, or prepare what it makes and COPY it in";
        return Err(at.invalid(Diagnostic::error("ST127", message).with_help(help), Some(&word.span)));
    }
    Ok(Rights { network: network(at, state, run)?, privileged: privileged(at, state, run)? })
}

fn network(at: &At<'_>, state: &State, run: &Run) -> Result<Network, BuildError> {
    let of_mode = |mode| setup::network(mode, at.work.host.default_network);
    let usual = of_mode(at.work.request.network);
    let Some(word) = &run.network else { return Ok(usual) };
    match at.expand(state, word)?.as_str() {
        "default" => Ok(usual),
        "none" => Ok(Network::None),
        // Refusing what every RUN has anyway would protect nothing.
        "host" if matches!(usual, Network::Host) || at.work.request.run.allow.network_host => {
            Ok(of_mode(NetworkMode::Host))
        }
        "host" => Err(not_allowed(at, word, "the host's network", "network.host")),
        other => {
            let message = format!("`{other}` is not a network; known are `default`, `none` and `host`");
            Err(at.invalid(Diagnostic::error("ST123", message), Some(&word.span)))
        }
    }
}

fn privileged(at: &At<'_>, state: &State, run: &Run) -> Result<bool, BuildError> {
    let Some(word) = &run.security else { return Ok(false) };
    // The parser takes `sandbox` and `insecure` only.
    let is_insecure = at.expand(state, word)? == "insecure";
    if is_insecure && !at.work.request.run.allow.security_insecure {
        return Err(not_allowed(at, word, "all rights", "security.insecure"));
    }
    Ok(is_insecure)
}

fn not_allowed(at: &At<'_>, word: &Word, what: &str, entitlement: &str) -> BuildError {
    let message = format!("this RUN asks for {what}, which is not allowed");
    let help = format!("if you trust the Dockerfile, allow it with `--allow {entitlement}`");
    at.invalid(Diagnostic::error("ST141", message).with_help(help), Some(&word.span))
}
