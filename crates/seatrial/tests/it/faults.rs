//! Hostile containers, files and surroundings: bounds hold, nothing is lost, messages name the way out.

use rustix::process::Signal;

use crate::world_with_image;

#[test]
fn a_container_that_never_stops_talking_can_be_interrupted() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nRUN touch /started; yes\n");
    let mut session = world.seatrial(["build", "--progress=quiet"]).start();
    let log = world.store().join("runs/1/log/build");
    session.wait_until("the RUN talks", || std::fs::metadata(&log).is_ok_and(|log| log.len() > 1_000_000));
    session.signal(Signal::INT);
    session.finish().exits(130);
    assert_eq!(world.remains(), Vec::<String>::new());
}
