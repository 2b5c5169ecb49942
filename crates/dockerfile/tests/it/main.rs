//! Tests of the public interface, one module a topic; cases are tables of text.

mod buildkit_checks;
mod dockerignore;
mod dump;
mod edit;
mod examples;
mod expand;
mod fuzz;
mod lint;
mod nearest;
mod outline;
mod parser_errors;
mod parser_forms;
mod properties;
mod spans;
