//! `registry serve` with users, rules and an audit log, from the terminal.

use rustix::process::Signal;
use testkit::{Running, World};

use crate::{world, world_with_image};

/// `secret`, as `htpasswd -B` writes it.
const SECRET: &str = "$2b$04$nVV95ls4w7jkoDwOvtiNseZhPgIbXWD0mI2H/jgcmrkMUqdSfxN7e";

const SETTINGS: &str = "listen: 127.0.0.1:0
directory: data
access:
  users: users
  groups: {team: [ann]}
  rules:
    - {match: 'public/**', anyone: true, allow: [pull]}
    - {match: 'team/**', users: [bob], allow: [pull]}
    - {match: '**', groups: [team], allow: ['*']}
audit: {file: audit.log}
";

/// A registry with the settings above in `registry/`, and its host.
fn serve(world: &World) -> (Running, String) {
    world.file("registry/users", &format!("ann:{SECRET}\nbob:{SECRET}\n")).file("registry/config.yaml", SETTINGS);
    let config = world.repo().join("registry/config.yaml");
    let mut serving = world.seatrial(["registry", "serve", "--config"]).arg(config).start();
    let line = serving.line();
    let host = line.rsplit_once("http://").map(|(_, host)| host.to_owned());
    (serving, host.unwrap_or_else(|| panic!("it tells its address: {line}")))
}

#[test]
fn people_push_and_pull_what_the_rules_give_them() {
    let world = world_with_image();
    let (mut serving, host) = serve(&world);
    let [team, public] = ["team/app:1", "public/app:1"].map(|name| format!("{host}/{name}"));
    for name in [&team, &public] {
        world.seatrial(["tag", "tiny:1", name]).run().exits(0);
    }
    let hint = format!("hint: log in with `seatrial login {host}`");
    world.seatrial(["push", &team]).run().exits(4).stderr_has(&hint);
    world
        .seatrial(["login", "-u", "ann", "-p", "wrong", &host])
        .run()
        .exits(4)
        .stderr_has("wrong user name or password");
    world.seatrial(["login", "-u", "ann", "-p", "secret", &host]).run().exits(0);
    for name in [&team, &public] {
        world.seatrial(["push", name]).run().exits(0);
    }
    world.seatrial(["login", "-u", "bob", "-p", "secret", &host]).run().exits(0);
    world.seatrial(["pull", &team]).run().exits(0);
    world.seatrial(["push", &public]).run().exits(4).stderr_has("registry denies access");
    // Who may pull may ask.
    let remote = format!("docker://{team}");
    let questions = [&["history", &team][..], &["where", &team], &["diff", "--exit-code", "tiny:1", &remote]];
    questions.iter().for_each(|words| drop(world.seatrial(words.iter()).run().exits(0)));
    world.seatrial(["logout", &host]).run().exits(0);
    questions.iter().for_each(|words| drop(world.seatrial(words.iter()).run().exits(4).stderr_has(&hint)));
    world.seatrial(["pull", &team]).run().exits(4).stderr_has(&hint);
    world.seatrial(["pull", &public]).run().exits(0);

    // The log is begun anew when it is moved away and the server told so.
    let [log, moved] = ["audit.log", "audit.log.old"].map(|name| world.repo().join("registry").join(name));
    let has = |text: &str| std::fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
    serving.wait_until("what was pulled last is in the log", || has(r#""repository":"public/app""#));
    std::fs::rename(&log, &moved).unwrap();
    serving.signal(Signal::HUP);
    serving.wait_until("the log is begun anew", || log.exists());
    let text = std::fs::read_to_string(&moved).unwrap();
    assert!(
        text.contains(r#""user":"ann","address":"127.0.0.1","action":"push","repository":"team/app","reference":"1""#)
    );
    assert!(text.contains(r#""action":"push","repository":"public/app""#) && text.contains(r#""result":"DENIED""#));
    assert!(!text.contains("secret") && !text.contains("wrong"));
    serving.signal(Signal::TERM);
    serving.finish().exits(143);
}

#[test]
fn a_registry_that_would_be_open_to_all_says_what_to_do() {
    let world = world();
    world
        .seatrial(["registry", "--listen", "0.0.0.0:0"])
        .run()
        .exits(2)
        .stderr_has("can be reached from outside, and nothing would be encrypted")
        .stderr_has("--tls-cert FILE --tls-key FILE")
        .stderr_has("--plain-http");
    world.seatrial(["registry", "--tls-cert", "cert.pem"]).run().exits(2).stderr_has("--tls-key");
    world.file("cert.pem", "nothing\n");
    let tls = ["registry", "--listen", "127.0.0.1:0", "--tls-cert", "cert.pem", "--tls-key", "cert.pem"];
    world.seatrial(tls).run().exits(2).stderr_has("cert.pem holds no certificate in PEM");
    world.file("users", &format!("ann:{SECRET}\n"));
    world.file("config.yaml", "access: {users: users, rules: [{match: a, users: [ann], allow: [pull]}]}\n");
    let with_store = ["registry", "--listen", "127.0.0.1:0", "--config", "config.yaml", "--store"];
    world.seatrial(with_store).run().exits(2).stderr_has("the rules keep repositories apart");
    let settings = "store: true\naccess: {users: users, rules: [{match: a, users: [ann], allow: [pull]}]}\n";
    world.file("stored.yaml", settings);
    world
        .seatrial(["registry", "--config", "stored.yaml"])
        .run()
        .exits(2)
        .stderr_has("the rules keep repositories apart");
    world.file("users", "ann:$apr1$x$y\n");
    world
        .seatrial(["registry", "--listen", "127.0.0.1:0", "--config", "config.yaml"])
        .run()
        .exits(2)
        .stderr_has("users:1: user `ann`: this is an Apache MD5 hash; only bcrypt is taken, as `htpasswd -B` makes it");
}

#[test]
fn a_registry_with_the_store_has_what_was_built() {
    let world = world_with_image();
    world.file("config.yaml", "store: true\nlisten: 127.0.0.1:0\ndirectory: data\n");
    for arguments in [&["--store", "--listen", "127.0.0.1:0", "--dir", "other"][..], &["--config", "config.yaml"]] {
        let mut serving = world.seatrial(["registry", "serve"].iter().chain(arguments)).start();
        let host = serving.line().rsplit_once("http://").map(|(_, host)| host.to_owned()).unwrap();
        world.seatrial(["tag", "tiny:1", &format!("{host}/app:1")]).run().exits(0);
        world.seatrial(["push", &format!("{host}/app:1")]).run().exits(0);
        serving.signal(Signal::TERM);
        serving.finish().exits(143);
    }
}
