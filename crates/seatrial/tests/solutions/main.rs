//! The main job on real input: the projects of `examples/`, each from its Debian base to what is published.
//!
//! They install Debian packages and Python libraries from the network, so they run where `CI` or `SEATRIAL_SLOW_TESTS` is
//! set. They are in one binary so that they run side by side: each mostly waits for one program, such as dpkg.

mod family;
mod number_api;
mod people;
