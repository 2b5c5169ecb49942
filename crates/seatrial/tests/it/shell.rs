//! `seatrial shell`.

use expect_test::expect;

use crate::{world, world_with_image};

#[test]
fn the_commands_code_is_ours() {
    let world = world_with_image();
    world.seatrial(["shell", "tiny:1", "--", "/bin/sh", "-c", "exit 42"]).run().exits(42);
    world.seatrial(["shell", "tiny:1", "--", "no-such-program"]).run().exits(127);
    world.seatrial(["shell", "tiny:1", "--", "/etc/passwd"]).run().exits(126);
}

#[test]
fn user_directory_and_environment_can_be_chosen() {
    let world = world_with_image();
    world
        .seatrial([
            "shell",
            "-u",
            "app",
            "-w",
            "/tmp",
            "-e",
            "A=1",
            "tiny:1",
            "--",
            "/bin/sh",
            "-c",
            "id -u; pwd; echo $A",
        ])
        .run()
        .exits(0)
        .stdout_is(&expect![[r#"
            1000
            /tmp
            1
        "#]]);
}

#[test]
fn what_is_not_kept_cannot_be_entered() {
    let world = world_with_image();
    world.seatrial(["shell", "7", "unit"]).run().exits(1).stderr_has("there is no run 7");
    world.file("Dockerfile", "FROM tiny:1\n");
    world.seatrial(["build"]).run().exits(0);
    world.seatrial(["shell", "1"]).run().exits(1).stderr_has("nothing failed in run 1");
    world.seatrial(["shell", "nothing:1"]).run().exits(1).stderr_has("there is no image `nothing:1` here");
}

#[test]
fn an_image_is_needed() {
    world().seatrial(["shell"]).run().exits(2);
}

#[test]
fn a_failed_gate_is_entered_as_it_was_left() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nENV COLOUR=green\nCMD [\"true\"]\n").file(
        "seatrial.yaml",
        "image: localhost/app\ntest:\n  workdir: /tmp\n  gates:\n    unit: {user: app, run: echo half done > left; exit 3}\nhealth: false\n",
    );
    world.seatrial(["run"]).run().exits(1).stderr_has("seatrial shell 1 unit");
    world
        .seatrial(["shell", "1", "unit", "--", "/bin/sh", "-c", "id -u; pwd; cat left; echo $COLOUR"])
        .run()
        .exits(0)
        .stdout_is(&expect![[r#"
            1000
            /tmp
            half done
            green
        "#]]);
}

#[test]
fn a_failed_step_is_entered_as_it_was_left() {
    let world = world_with_image();
    world.file(
        "Dockerfile",
        "FROM tiny:1\nENV COLOUR=green\nWORKDIR /tmp\nUSER app\nRUN echo half done > left; exit 3\n",
    );
    world.seatrial(["build"]).run().exits(1);
    world
        .seatrial(["shell", "last", "--", "/bin/sh", "-c", "id -u; pwd; cat left; echo $COLOUR"])
        .run()
        .exits(0)
        .stdout_is(&expect![[r#"
            1000
            /tmp
            half done
            green
        "#]]);
}
