//! `seatrial shell`.

use expect_test::expect;

use crate::{world, world_with_image};

#[test]
fn the_commands_code_is_ours() {
    let world = world_with_image();
    world.seatrial(["shell", "tiny:1", "--", "/bin/sh", "-c", "exit 42"]).run().exits(42);
    world.seatrial(["shell", "tiny:1", "--", "no-such-program"]).run().exits(127);
    world.seatrial(["shell", "tiny:1", "--", "/etc/passwd"]).run().exits(126);
    // As with docker, whose flags come first; what follows is the command's.
    world.seatrial(["shell", "-it", "--rm", "tiny:1", "/bin/sh", "-c", "exit 42"]).run().exits(42);
    let finished = world.seatrial(["shell", "tiny:1", "-u", "app", "id"]).run().exits(2);
    finished.stderr_has("flags come first: `seatrial shell -u … tiny:1`");
    world.seatrial(["shell", "--usr", "app", "tiny:1"]).run().exits(2).stderr_has("'--user'");
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
    // The gate's own command can be repeated, reports and all.
    let repeat = "echo fine > $SEATRIAL_REPORTS/r.xml; cat $SEATRIAL_REPORTS/r.xml";
    world.seatrial(["shell", "1", "unit", "/bin/sh", "-c", repeat]).run().exits(0).stdout_has("fine");
    let finished = world.seatrial(["shell", "last", "ls", "/"]).run().exits(1);
    finished.stderr_has("run 1 has no stage `ls`").stderr_has("`seatrial shell 1 -- ls /`");
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

/// An image with one file, and no program at all.
const DISTROLESS: &str = "FROM scratch\nCOPY app.txt /app.txt\nENV COLOUR=green\nUSER 1000\n";

#[test]
fn an_image_without_a_shell_is_lent_one() {
    let world = world();
    world.file("Dockerfile", DISTROLESS).file("app.txt", "hello\n");
    world.seatrial(["build", "-t", "bare"]).run().exits(0);
    world
        .seatrial(["shell", "bare"])
        .stdin("cat /app.txt; echo $COLOUR; id -u; ls /; touch /.seatrial/x 2>/dev/null || echo read-only; exit 7\n")
        .run()
        .exits(7)
        .stderr_has("the image has no shell: /.seatrial lends this machine's ")
        .stdout_has("hello\ngreen\n1000\napp.txt\n")
        .stdout_has("read-only\n");
    world
        .seatrial(["shell", "bare", "--", "cat", "/app.txt"])
        .run()
        .exits(0)
        .stderr_has("the image has no `cat`: ")
        .stdout_is(&expect![[r#"
            hello
        "#]]);
    // What is named by its path is the image's own, or nothing.
    world.seatrial(["shell", "bare", "--", "/bin/cat"]).run().exits(127);
    world.seatrial(["shell", "bare", "--", "no-such-program"]).run().exits(127);
    world.seatrial(["shell", "--toolbox=never", "bare"]).run().exits(127).stderr_has("--toolbox=auto");
    world.seatrial(["shell", "--toolbox=never", "bare", "--", "cat"]).run().exits(127);
    world.seatrial(["shell", "-u", "nobody-here", "bare", "--", "cat"]).run().exits(125);
    // Nothing of it stays in the image.
    world.seatrial(["shell", "bare", "--", "ls", "-A", "/"]).run().exits(0).stdout_has("app.txt");
}

#[test]
fn an_image_with_a_shell_is_lent_tools_only_when_asked() {
    let world = world_with_image();
    let tool = ["seq", "3"];
    world.seatrial(["shell", "tiny:1", "--"]).arg(tool[0]).arg(tool[1]).run().exits(127);
    world
        .seatrial(["shell", "--toolbox=always", "tiny:1", "--", "sh", "-c", "seq 3"])
        .run()
        .exits(0)
        .stderr_is(&expect![""])
        .stdout_is(&expect![[r#"
            1
            2
            3
        "#]]);
}

#[test]
fn a_copy_that_fits_not_is_entered_where_it_failed() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nRUN echo here > /place\nWORKDIR /tmp\nCOPY sub /place/\n").file("sub/a", "");
    world
        .seatrial(["build"])
        .run()
        .exits(2)
        .stderr_has("--> Dockerfile:4")
        .stderr_has("hint: see what it found there with `seatrial shell 1 build`");
    world.seatrial(["shell", "1", "build", "--", "sh", "-c", "pwd; cat /place"]).run().exits(0).stdout_is(&expect![[
        r#"
        /tmp
        here
    "#
    ]]);
}

#[test]
fn what_was_kept_goes_when_its_time_is_over() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nRUN false\n");
    world.seatrial(["build", "--keep-failed", "1ms"]).run().exits(1).stderr_has("seatrial shell 1 build");
    world.seatrial(["shell", "1", "build"]).run().exits(1).stderr_has("what `build` of run 1 left is no longer kept");
    let kept = std::fs::read_dir(world.store().join("kept")).unwrap();
    assert_eq!(kept.count(), 0, "it is removed without being asked");
}
