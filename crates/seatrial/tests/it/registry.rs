//! Push and pull against the embedded registry.

use crate::{world, world_with_image};

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    let world = world_with_image();
    let registry = world.registry();
    let name = format!("{registry}/team/tiny:1");
    world.seatrial(["tag", "tiny:1", &name]).run().exits(0);
    let pushed = world.seatrial(["push", &name]).run().exits(0);
    assert!(pushed.stdout().starts_with(&format!("{registry}/team/tiny@sha256:")), "{}", pushed.stdout());
    assert_eq!(world.registry_tags("team/tiny"), ["1"]);

    let id = world.seatrial(["inspect", "-f", "{{.Id}}", "tiny:1"]).run().exits(0).stdout();
    world.seatrial(["rmi", "-f", &name, "tiny:1"]).run().exits(0);
    world.seatrial(["clean", "--all"]).run().exits(0);
    world.seatrial(["pull", &name]).run().exits(0);
    assert_eq!(world.seatrial(["inspect", "-f", "{{.Id}}", &name]).run().exits(0).stdout(), id);
}

#[test]
fn a_build_is_pushed_under_all_its_names() {
    let world = world_with_image();
    let registry = world.registry();
    world.file("Dockerfile", "FROM tiny:1\nLABEL a=1\n");
    world
        .seatrial(["build", "--push", "-t", &format!("{registry}/app:1"), "-t", &format!("{registry}/app:latest")])
        .run()
        .exits(0)
        .stderr_has("pushed [REGISTRY]/app@sha256:[DIGEST]");
    assert_eq!(world.registry_tags("app"), ["1", "latest"]);
}

#[test]
fn a_registry_that_does_not_answer_exits_3() {
    let world = world_with_image();
    world.seatrial(["tag", "tiny:1", "127.0.0.1:9/x:1"]).run().exits(0);
    world.seatrial(["push", "127.0.0.1:9/x:1"]).run().exits(3).stderr_has("registry cannot be reached");
    world.seatrial(["pull", "127.0.0.1:9/x:1"]).run().exits(3).stderr_has("seatrial base");
}

#[test]
fn what_is_not_in_the_registry_exits_1() {
    let world = world();
    let name = format!("{}/nothing:1", world.registry());
    world.seatrial(["pull", &name]).run().exits(1).stderr_has("not found in the registry");
}

/// A registry that lets nobody in.
fn locked_registry() -> std::net::SocketAddr {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(
                b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    address
}

#[test]
fn a_wrong_login_exits_4_and_is_not_kept() {
    let world = world_with_image();
    let host = locked_registry().to_string();
    world
        .seatrial(["login", "-u", "ann", "--password-stdin", &host])
        .stdin("wrong\n")
        .run()
        .exits(4)
        .stderr_has("registry asks for credentials");
    assert!(!world.path("home/.docker/config.json").exists());
    let name = format!("{host}/x:1");
    world.seatrial(["tag", "tiny:1", &name]).run().exits(0);
    world.seatrial(["push", &name]).run().exits(4).stderr_has(&format!("hint: log in with `seatrial login {host}`"));
    world.seatrial(["logout", &host]).run().exits(0).stderr_has("there was no login");
    world.seatrial(["login", &host]).run().exits(2).stderr_has("there is no terminal to ask for a login");
}

#[test]
fn a_login_is_kept_where_docker_keeps_it() {
    let world = world();
    let host = world.registry().to_string();
    world.seatrial(["login", "-u", "ann", "-p", "secret", &host]).run().exits(0).stderr_has("logged in to [REGISTRY]");
    let config = std::fs::read_to_string(world.path("home/.docker/config.json")).unwrap();
    assert!(config.contains(&host), "{config}");
    world.seatrial(["logout", &host]).run().exits(0).stderr_has("logged out of [REGISTRY]");
}

#[test]
fn an_image_is_copied_within_and_between_registries() {
    let world = world_with_image();
    let registry = world.registry();
    let (name, copy) = (format!("{registry}/team/tiny:1"), format!("{registry}/release/tiny"));
    world.seatrial(["tag", "tiny:1", &name]).run().exits(0);
    world.seatrial(["push", &name]).run().exits(0);
    world.seatrial(["copy", &name, &copy]).run().exits(0).stderr_has("1 manifest, 2 blobs mounted");
    assert_eq!(world.registry_tags("release/tiny"), ["1"]);
    world.seatrial(["copy", &name, &copy]).run().exits(0).stderr_has("everything was there");
    let absent = format!("{registry}/absent:1");
    world.seatrial(["copy", &absent, &copy]).run().exits(1).stderr_has("cannot copy [REGISTRY]/absent:1");
    let host = locked_registry().to_string();
    world
        .seatrial(["copy", &name, &format!("{host}/x:1")])
        .run()
        .exits(4)
        .stderr_has(&format!("hint: log in with `seatrial login {host}`"));
}
