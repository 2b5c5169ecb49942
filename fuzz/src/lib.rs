//! What the fuzz targets do with their bytes: one function `run` each, which panics if something is wrong.
//!
//! The tests of the crates include the same files and replay the corpus, so that each target also runs on stable Rust
//! with plain `cargo test`.

pub mod dockerfile;
pub mod dockerignore;
pub mod image_config;
pub mod layer;
pub mod sbom;
