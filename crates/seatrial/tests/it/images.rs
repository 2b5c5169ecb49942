//! Images in the store: names, archives, clean-up.

use expect_test::expect;

use crate::{world, world_with_image};

#[test]
fn names_come_and_go() {
    let world = world_with_image();
    world.seatrial(["tag", "tiny:1", "other:2"]).run().exits(0);
    world.seatrial(["images", "--format", "{{.Repository}}:{{.Tag}}"]).run().exits(0).stdout_is(&expect![[r#"
        other:2
        tiny:1
    "#]]);
    world.seatrial(["rmi", "tiny:1"]).run().exits(0).stdout_is(&expect![[r#"
        Untagged: tiny:1
    "#]]);
    world.seatrial(["inspect", "tiny:1"]).run().exits(1).stderr_has("there is no image `tiny:1` here");
    world.seatrial(["rmi", "other:2"]).run().exits(0).stdout_is(&expect![[r#"
        Untagged: other:2
        Deleted: sha256:[DIGEST]
    "#]]);
    world.seatrial(["images", "-q"]).run().exits(0).stdout_is(&expect![""]);
}

#[test]
fn an_image_with_several_names_is_not_removed_by_its_id() {
    let world = world_with_image();
    world.seatrial(["tag", "tiny:1", "other:2"]).run().exits(0);
    let id = world.seatrial(["inspect", "-f", "{{.Id}}", "tiny:1"]).run().exits(0).stdout();
    world.seatrial(["rmi", id.trim()]).run().exits(1).stderr_has("has 2 names: ");
    world.seatrial(["rmi", "-f", id.trim()]).run().exits(0);
    world.seatrial(["rmi", "-f", id.trim()]).run().exits(0);
}

#[test]
fn inspect_speaks_dockers_words() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nENV A=1\nUSER app\nHEALTHCHECK CMD true\n");
    world.seatrial(["build", "-q", "-t", "app"]).run().exits(0);
    world
        .seatrial(["inspect", "app", "-f", "{{.Config.User}} {{json .Config.Healthcheck.Test}} {{.Os}}"])
        .run()
        .exits(0)
        .stdout_is(&expect![[r#"
        app ["CMD-SHELL","true"] linux
    "#]]);
    world.seatrial(["inspect", "app", "-f", "{{.Confg}}"]).run().exits(2).stderr_has("did you mean `{{.Config}}`?");
    world.seatrial(["inspect", "app:3"]).run().exits(1).stderr_has("hint: did you mean `app:latest`?");
    world.seatrial(["layers", "app"]).run().exits(0).stdout_has("ENV A=1");
}

#[test]
fn archives_go_out_and_come_back() {
    for format in ["docker", "oci", "oci-dir"] {
        let world = world_with_image();
        let id = world.seatrial(["inspect", "-f", "{{.Id}}", "tiny:1"]).run().exits(0).stdout();
        world.seatrial(["save", "--format", format, "-o", "out", "tiny:1"]).run().exits(0);
        world.seatrial(["rmi", "tiny:1"]).run().exits(0);
        world.seatrial(["clean", "--all"]).run().exits(0);
        world.seatrial(["load", "out"]).run().exits(0).stdout_is(&expect![[r#"
            Loaded image: tiny:1
        "#]]);
        let again = world.seatrial(["inspect", "-f", "{{.Id}}", "tiny:1"]).run().exits(0).stdout();
        assert_eq!(id, again, "{format}");
    }
}

#[test]
fn nothing_is_no_archive() {
    let world = world();
    world.seatrial(["load"]).stdin("").run().exits(2).stderr_has("error: stdin is empty");
    let text = "a text that is longer than the header of a tar\n".repeat(99);
    world.seatrial(["load"]).stdin(text).run().exits(2).stderr_has("cannot load from stdin\n  cause: ");
}

#[test]
fn an_archive_goes_through_a_pipe() {
    let world = world_with_image();
    let archive = world.seatrial(["save", "tiny:1"]).run().exits(0);
    world.seatrial(["rmi", "tiny:1"]).run().exits(0);
    world.seatrial(["load", "-q"]).stdin(archive.stdout_bytes()).run().exits(0).stdout_is(&expect![[r#"
        sha256:[DIGEST]
    "#]]);
    world
        .seatrial(["load", "-i", "nothing.tar"])
        .run()
        .exits(2)
        .stderr_has("there is no file [WORLD]/repo/nothing.tar");
}

#[test]
fn cleaning_keeps_named_images_and_their_cache() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nRUN echo 1 > /x\n");
    world.seatrial(["build", "-q", "-t", "app"]).run().exits(0);
    world.seatrial(["clean"]).run().exits(0);
    let counts =
        world.seatrial(["build", "-t", "app", "--format", "{{.StepsCached}}/{{.Steps}}"]).run().exits(0).stdout();
    let (cached, steps) = counts.trim().split_once('/').unwrap();
    assert_eq!(cached, steps);
    // What is younger than a minute may be in use elsewhere and stays, so there is nothing to count here.
    world.seatrial(["clean", "--all", "--dry-run"]).run().exits(0);
    world.seatrial(["clean", "--all"]).run().exits(0);
    world.seatrial(["shell", "app", "--", "/bin/cat", "/x"]).run().exits(0).stdout_is(&expect![[r#"
        1
    "#]]);
}

#[test]
fn sizes_and_times_of_clean_are_checked() {
    world().seatrial(["clean", "--older-than", "soon"]).run().exits(2).stderr_has("is not a duration");
    world().seatrial(["clean", "--max-size", "10XB"]).run().exits(2).stderr_has("is not a unit of size");
}
