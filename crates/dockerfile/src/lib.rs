//! Dockerfile text → instructions → stages, with a span on everything.
//!
//! Knows nothing of building. Start at [`parse`]; what a mistake looks like is a [`Diagnostic`].
//! Values of words come from [`expand`], `.dockerignore` is [`dockerignore`], build checks are [`lint`],
//! edits that keep the formatting are [`edit`], what a build may be asked for is [`outline`].
//! Source of all behaviour: the [Dockerfile reference](https://docs.docker.com/reference/dockerfile/), and BuildKit
//! where the reference is silent.

mod ast;
pub mod codes;
mod diagnostic;
pub mod dockerignore;
mod duration;
pub mod edit;
pub mod expand;
pub mod glob;
pub mod lint;
pub mod outline;
mod parse;
mod stages;
mod syntax;

pub use ast::*;
pub use diagnostic::{Diagnostic, Lines, Severity, line_column, nearest};
pub use duration::parse_duration;
pub use parse::{Parsed, parse, parse_trigger, parse_with_warnings};
