//! Evidence at its boundary: on images in a real store.

mod sbom;
mod support;
