//! The store at its boundary, on real file systems, with archives made by hand.
#![expect(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod apply;
mod arrivals;
mod bombs;
mod compare;
mod export;
mod fuzz;
mod images;
mod limit;
mod platforms;
mod seal;
mod shared;
mod support;
