//! Terminal sessions: the program as users type it.

mod attestations;
mod before;
mod build;
mod capsule;
mod checks;
mod cleanup;
mod contexts;
mod diff;
mod environments;
mod evidence;
mod explain;
mod faults;
mod files;
mod front;
mod gates;
mod health;
mod images;
mod outputs;
mod platforms;
mod registry;
mod registry_access;
mod remote;
mod reproducible;
mod run;
mod sbom;
mod secrets;
mod services;
mod several_images;
mod shared_cache;
mod shell;
mod solutions;
mod solutions_live;
mod tampering;

use testkit::World;

const PROGRAM: &str = env!("CARGO_BIN_EXE_seatrial");

/// An empty world.
fn world() -> World {
    World::new(PROGRAM)
}

/// A world with the image `tiny:1`.
fn world_with_image() -> World {
    World::with_image(PROGRAM)
}
