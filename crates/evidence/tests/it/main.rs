//! Evidence at its boundary: on images in a real store; keys, envelopes and policies against OpenSSL and against everything
//! that may be changed on the way.

mod interop;
mod keys;
mod policies;
mod repeats;
mod sbom;
mod signed;
mod support;
mod tampering;
