//! Hostile containers, files and surroundings: bounds hold, nothing is lost, messages name the way out.

use std::process::Command;

use rustix::process::Signal;
use testkit::World;

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

/// A small disk of its own below a world, which goes with it.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn new(world: &World, options: &str) -> Option<Self> {
        if !testkit::is_root() {
            testkit::skip("only root can mount a small disk");
            return None;
        }
        let place = world.path("small");
        std::fs::create_dir(&place).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "small"]).arg(&place).status().unwrap();
        assert!(mounted.success());
        Some(Self(place))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_no_verdict_and_room_is_enough_to_go_on() {
    let world = world_with_image();
    let Some(disk) = SmallDisk::new(&world, "size=24m") else { return };
    let image = world.path("tiny.tar");
    world.seatrial(["save", "tiny:1", "-o"]).arg(&image).run().exits(0);
    let on_disk = |arguments: &[&str]| world.seatrial(arguments).env("SEATRIAL_HOME", &disk.0);
    on_disk(&["load", "-q", "-i"]).arg(&image).run().exits(0);
    world.file("Dockerfile", "FROM tiny:1\nRUN dd if=/dev/zero of=/big bs=1M count=40\n");
    for _ in 0..2 {
        on_disk(&["build", "--progress=plain", "."])
            .run()
            .exits(3)
            .stderr_has("the disk is full")
            .stderr_has("hint: make room: `seatrial clean");
    }
    world.file("Dockerfile", "FROM tiny:1\nRUN dd if=/dev/zero of=/big bs=1M count=4\n");
    on_disk(&["build", "-q", "."]).run().exits(0);
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let world = world_with_image();
    let Some(disk) = SmallDisk::new(&world, "size=24m,ro") else { return };
    world.file("Dockerfile", "FROM tiny:1\n");
    let place = disk.0.to_string_lossy().into_owned();
    world.seatrial(["build", "."]).env("SEATRIAL_HOME", &place).run().exits(3).stderr_has("Read-only file system");
}
