//! Packages go to real indexes, or to ones that check each request, and come back by the ecosystems' own tools.

mod cargo;
mod npm;
mod oci_artefact;
mod pypi;
mod support;
