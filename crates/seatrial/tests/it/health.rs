//! The health check against real containers.

use testkit::World;

use crate::world_with_image;

fn serving(command: &str, check: &str) -> World {
    let world = world_with_image();
    world
        .file(
            "Dockerfile",
            &format!("FROM tiny:1\nHEALTHCHECK CMD {check}\nSTOPSIGNAL SIGTERM\nCMD [\"sh\", \"-c\", {command:?}]\n"),
        )
        .file(
            "seatrial.yaml",
            "health: {interval: 200ms, attempts: 20, timeout: 1s, prove: true, stop_grace_period: 1s}\n",
        )
        .commit();
    world
}

const ANSWERS: &str = r"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 1 127.0.0.1 8000 | grep -q 200";

#[test]
fn a_check_that_asks_and_a_process_that_listens_are_proven() {
    let command = "mkdir /www; touch /www/index.html; httpd -f -p 8000 -h /www & trap 'kill $!; exit 0' TERM; wait";
    let finished = serving(command, ANSWERS).seatrial(["health"]).run().exits(0);
    finished.stderr_has("proven unhealthy when frozen, ended ");
}

#[test]
fn a_check_that_cannot_fail_is_named() {
    let finished = serving("touch /up; sleep 60", "test -f /up").seatrial(["health"]).run().exits(1);
    finished
        .stderr_has("✗ health check: the health check says healthy although the process is frozen")
        .stderr_has("  `test -f /up`\n")
        .stderr_has("hint: check what only");
}

#[test]
fn a_process_that_does_not_end_is_named() {
    let command = "mkdir /www; touch /www/index.html; exec httpd -f -p 8000 -h /www";
    let finished = serving(command, ANSWERS).seatrial(["health"]).run().exits(1);
    finished.stderr_has("does not hear SIGTERM").stderr_has("hint: process 1 gets no signal");
}
