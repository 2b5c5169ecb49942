//! Dockerfile text → instructions → stages, with a span on everything.
//!
//! Knows nothing of building. Start at [`parse`]; what a mistake looks like is a [`Diagnostic`].
//! Source of all behaviour: the [Dockerfile reference](https://docs.docker.com/reference/dockerfile/).

mod ast;
pub use ast::*;
