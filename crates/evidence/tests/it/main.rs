//! Evidence at its boundary: on images in a real store; keys, envelopes and policies against OpenSSL and against everything
//! that may be changed on the way.
#![expect(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod interop;
mod keys;
mod policies;
mod repeats;
mod sbom;
mod signed;
mod support;
mod tampering;
