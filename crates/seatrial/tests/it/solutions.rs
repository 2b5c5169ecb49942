//! Solutions: services that are brought up, looked at, changed and taken down, by one process for each project. How they live
//! with terminals and users: `solutions_live`.

use testkit::World;

use crate::{world, world_with_image};

/// A database of sorts that keeps a file in a volume, an application that is built and waits for it, and a job.
const SHOP: &str = "\
name: shop
services:
  db:
    image: tiny:1
    command: [sh, -c, \"trap 'exit 0' TERM; echo db starts; touch /data/there; while true; do sleep 0.05; done\"]
    healthcheck: {test: test -f /data/there, interval: 100ms}
    volumes: [\"data:/data\"]
  web:
    build: .
    depends_on: {db: {condition: service_healthy}}
    environment: {GREETING: hello}
    stop_grace_period: 100ms
  job: {image: tiny:1, command: [sh, -c, echo job done]}
volumes: {data: {}}
";

fn shop() -> World {
    let world = world_with_image();
    world.file("compose.yaml", SHOP);
    world.file(
        "Dockerfile",
        "FROM tiny:1\nCOPY page /page\nCMD [\"sh\", \"-c\", \"echo web says $GREETING; exec sleep 1000\"]\n",
    );
    world.file("page", "first\n");
    world
}

#[test]
fn a_solution_comes_up_in_order_is_looked_at_and_leaves_nothing() {
    let world = shop();
    let up = world.seatrial(["up", "-d"]).run().exits(0);
    let stderr = up.stderr();
    let at = |words: &str| stderr.find(words).unwrap_or_else(|| panic!("`{words}` is missing in:\n{stderr}"));
    assert!(at("Container shop-db-1  Healthy") < at("Container shop-web-1  Started"), "{stderr}");
    at("Container shop-job-1  Exited");

    let ps = world.seatrial(["ps", "--format", "{{.Name}} {{.Image}} {{.State}} {{.Health}}"]).run().exits(0).stdout();
    let expected = "shop-db-1 tiny:1 running healthy\nshop-job-1 tiny:1 exited \nshop-web-1 shop-web running \n";
    assert_eq!(ps, expected);
    world.seatrial(["ps"]).run().exits(0).stdout_has("Exited (0)").stdout_has("(healthy)");
    world.seatrial(["ps", "wbe"]).run().exits(1);

    let logs = world.seatrial(["logs", "--no-log-prefix"]).run().exits(0).stdout();
    for words in ["db starts\n", "web says hello\n", "job done\n"] {
        assert!(logs.contains(words), "{logs}");
    }
    world.seatrial(["logs", "-n", "1", "web"]).run().exits(0).stdout_has("shop-web-1  | web says hello");

    // Its own code, docker's codes, streams, environment, user, directory.
    world.seatrial(["exec", "web", "sh", "-c", "cat; exit 7"]).stdin("through\n").run().exits(7).stdout_has("through");
    world.seatrial(["exec", "web", "/nowhere"]).run().exits(127);
    world.seatrial(["exec", "job", "true"]).run().exits(1).stderr_has("is not running");
    let exec = ["exec", "-u", "app", "-w", "/tmp", "-e", "A=b", "web", "sh", "-c", "id -u; pwd; echo $A $GREETING"];
    assert_eq!(world.seatrial(exec).run().exits(0).stdout(), "1000\n/tmp\nb hello\n");
    world.seatrial(["shell", "db", "--", "ls", "/data"]).run().exits(0).stdout_has("there");

    world.seatrial(["down"]).run().exits(0).stderr_has("Container shop-web-1  Removed");
    assert_eq!(world.remains(), Vec::<String>::new());
    world.seatrial(["ps", "-q"]).run().exits(0);
    world.seatrial(["down"]).run().exits(0).stderr_has("is not up");

    // The volume is still there; `down -v` removes it, also without an owner.
    let volume = world.store().join("volumes/shop_data");
    assert!(volume.join("content/there").is_file());
    world.seatrial(["down", "-v"]).run().exits(0).stderr_has("Volume shop_data  Removed");
    assert!(!volume.exists());
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn what_has_changed_is_made_anew_and_the_rest_stays() {
    let world = shop();
    world.seatrial(["up", "-d"]).run().exits(0);
    // Only where things stand has changed.
    world.file("compose.yaml", &format!("# A line more.\n{SHOP}"));
    let again = world.seatrial(["up", "-d", "db", "web"]).run().exits(0);
    again.stderr_has("Container shop-db-1  Running").stderr_has("Container shop-web-1  Running");
    world.seatrial(["exec", "db", "touch", "/tmp/mark"]).run().exits(0);
    // An image, and a variable.
    world.file("page", "second\n").file("compose.yaml", &SHOP.replace("hello", "good day"));
    let changed = world.seatrial(["up", "-d", "web"]).run().exits(0);
    changed.stderr_has("Container shop-db-1  Running").stderr_has("Container shop-web-1  Recreate");
    let said = world.seatrial(["exec", "web", "sh", "-c", "cat /page; echo $GREETING"]).run().exits(0).stdout();
    assert_eq!(said, "second\ngood day\n");

    // Stopped and started again, a container has its files; several share their service's name.
    world.seatrial(["stop", "db"]).run().exits(0).stderr_has("Container shop-db-1  Stopped");
    world.seatrial(["exec", "db", "true"]).run().exits(1);
    world.seatrial(["restart", "db"]).run().exits(0).stderr_has("Container shop-db-1  Healthy");
    world.seatrial(["exec", "db", "ls", "/tmp/mark"]).run().exits(0);
    world.seatrial(["up", "-d", "--scale", "web=2"]).run().exits(0).stderr_has("Container shop-web-2  Started");
    world
        .seatrial(["exec", "--index", "2", "web", "cat", "/proc/sys/kernel/hostname"])
        .run()
        .exits(0)
        .stdout_has("web-2");

    // Beside it the same files under another name.
    world.seatrial(["up", "-d", "-p", "other"]).run().exits(0).stderr_has("Container other-db-1  Healthy");
    world.seatrial(["down", "-p", "other", "-v"]).run().exits(0).stderr_has("Volume other_data  Removed");
    let names = world.seatrial(["ps", "-q", "--all-projects"]).run().exits(0).stdout();
    assert_eq!(names, "shop-db-1\nshop-job-1\nshop-web-1\nshop-web-2\n");

    // What the file does not have any more is an orphan.
    world.file("compose.yaml", &SHOP.replace("  job:", "  task:"));
    world.seatrial(["up", "-d", "task"]).run().exits(0).stderr_has("shop-job-1 belongs to no service");
    world.seatrial(["up", "-d", "--remove-orphans", "task"]).run().exits(0).stderr_has("shop-job-1  Removed");
    world.seatrial(["down", "-v"]).run().exits(0);
    assert_eq!(world.remains(), Vec::<String>::new());
}

/// A container that is ended is started again; when its owner is killed, nothing is left but its volume.
#[test]
fn restart_policies_hold_and_a_killed_owner_leaves_nothing() {
    let world = world_with_image();
    world.file(
        "compose.yaml",
        "name: keep\nservices:\n  a:\n    image: tiny:1\n    restart: always\n    init: true\n    volumes: [\"v:/v\"]\n    command: [sh, -c, \"echo start >> /v/starts; echo $$$$ > /tmp/pid; exec sleep 1000\"]\n  once:\n    image: tiny:1\n    restart: \"on-failure:2\"\n    command: [sh, -c, \"echo try; exit 3\"]\n    profiles: [failing]\nvolumes: {v: {}}\n",
    );
    world.seatrial(["up", "-d"]).run().exits(0);
    let starts = || std::fs::read_to_string(world.store().join("volumes/keep_v/content/starts")).unwrap_or_default();
    world.seatrial(["exec", "a", "sh", "-c", "kill -9 $(cat /tmp/pid)"]).run();
    let mut follow = world.seatrial(["logs", "-f", "a"]).start();
    follow.wait_until("it was started again", || starts().lines().count() == 2);
    world.seatrial(["ps", "--format", "{{.State}} {{.Restarts}}"]).run().exits(0).stdout_has("running 1");
    let failed = world.seatrial(["up", "-d", "--profile", "failing"]).run().exits(1);
    failed.stderr_has("service once: `sh -c echo try; exit 3` exited 3 before it was ready");
    let tries = world.seatrial(["logs", "--no-log-prefix", "once"]).run().exits(0).stdout();
    assert_eq!(tries, "try\ntry\ntry\n");

    let scopes = world.scopes();
    let owner = owner_of(&world);
    rustix::process::kill_process(owner, rustix::process::Signal::KILL).expect("the owner runs");
    // Whoever follows hears of the end.
    follow.finish();
    world.seatrial(["down"]).run().exits(0).stderr_has("was killed; what it left was removed");
    assert_eq!(world.remains(), Vec::<String>::new());
    assert_eq!(testkit::control_groups(&scopes), Vec::<String>::new());
    assert!(!starts().is_empty());
    world.seatrial(["down", "-v"]).run().exits(0);
    assert!(starts().is_empty());
}

fn owner_of(world: &World) -> rustix::process::Pid {
    let remains = world.remains();
    let line = remains.iter().find(|line| line.contains("solution-owner")).expect("there is an owner");
    let pid = line.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).expect("a number");
    rustix::process::Pid::from_raw(pid).expect("a process")
}

/// Files reach all running containers, whatever is in their image; a change of the Dockerfile reaches a new one; Ctrl-C takes
/// all down.
#[test]
fn watched_files_are_synchronised_and_images_rebuilt() {
    let world = world_with_image();
    world.file(
        "compose.yaml",
        "name: dev\nservices:\n  web:\n    build: .\n    scale: 2\n    stop_grace_period: 100ms\n    develop:\n      watch:\n        - {path: ./src, action: sync, target: /link/src, ignore: [\"*.tmp\"], initial_sync: true}\n        - {path: ./Dockerfile, action: rebuild}\n",
    );
    // No tar, no rm, and a link whose target is the root's `app`, not the host's.
    world
        .file(
            "Dockerfile",
            "FROM scratch\nCOPY --from=tiny:1 /bin/busybox /busybox\nRUN [\"/busybox\", \"mkdir\", \"/app\"]\nRUN [\"/busybox\", \"ln\", \"-s\", \"/app\", \"/link\"]\nCMD [\"/busybox\", \"sleep\", \"1000\"]\n",
        )
        .file("src/a", "one\n")
        .program("src/run", "#!\n");
    let mut session = world.seatrial(["up", "--watch"]).start();
    let inside = |number: &str, file: &str| {
        world.seatrial(["exec", "-T", "--index", number, "web", "/busybox", "cat", file]).run().stdout()
    };
    let in_each = |file: &str, text: &str| ["1", "2"].iter().all(|number| inside(number, file) == text);
    session.wait_until("the first files are there", || in_each("/app/src/a", "one\n"));
    world.file("src/a", "two\n").file("src/deep/b", "new\n").file("src/no.tmp", "no\n");
    session
        .wait_until("the changes are there", || in_each("/app/src/a", "two\n") && in_each("/app/src/deep/b", "new\n"));
    assert!(in_each("/app/src/no.tmp", "") && !std::path::Path::new("/app/src").exists());
    std::fs::remove_file(world.repo().join("src/a")).expect("it is there");
    session.wait_until("it is gone there too", || in_each("/app/src/a", ""));
    world.file("Dockerfile", "FROM tiny:1\nRUN mkdir /app; echo built > /app/built; ln /bin/busybox /busybox; ln -s app /link\nCMD [\"sleep\", \"1000\"]\n");
    session.wait_until("the image was built again", || in_each("/app/built", "built\n"));
    // As root of the container has it: its own, with the mode of here.
    world.program("src/run", "#!/bin/sh\n");
    let stat = || world.seatrial(["exec", "-T", "web", "sh", "-c", "stat -c '%a %u %n' /app/src/run"]).run().stdout();
    session.wait_until("a program is one there too", || stat() == "755 0 /app/src/run\n");
    // What does not work is told, and the watching goes on.
    world
        .seatrial(["exec", "-T", "web", "sh", "-c", "mkdir /app/src/c; touch /app/src/c/x; echo file > /app/src/d"])
        .run()
        .exits(0);
    world.file("src/d/e", "no place\n").file("src/c", "a file now\n");
    session.wait_until("it replaces a directory", || inside("1", "/app/src/c") == "a file now\n");
    session.signal(rustix::process::Signal::INT);
    let finished = session.finish().exits(130);
    finished
        .stderr_has("Rebuilding service \"web\"")
        .stderr_has("cannot change files in dev-web-1")
        .stderr_has("cannot write the file /link/src/d/e")
        .stderr_has("Container dev-web-1  Removed");
    assert_eq!(world.remains(), Vec::<String>::new());
}

/// What services are started `from` is built for them, with what it is built on, and again while files are watched.
#[test]
fn services_start_from_images_of_the_pipeline_file() {
    let world = world_with_image();
    world
        .file(
            "seatrial.yaml",
            "image: localhost/fleet\nimages:\n  base: {build: {dockerfile: Dockerfile.base}, health: false}\n  app: {build: {context: app, additional_contexts: {\"registry.example/base\": \"image:base\"}}}\nservices:\n  web:\n    from: app\n    stop_grace_period: 100ms\n    develop: {watch: [{path: app, action: rebuild}]}\n",
        )
        .file("Dockerfile.base", "FROM tiny:1\nRUN echo base > /base\n")
        .file("app/Dockerfile", "FROM registry.example/base\nCOPY text /text\nCMD [\"sh\", \"-c\", \"cat /base /text; exec sleep 1000\"]\n")
        .file("app/text", "first\n");
    let text = || world.seatrial(["exec", "-T", "web", "cat", "/text"]).run().stdout();
    world.seatrial(["up", "-d"]).run().exits(0).stderr_has("Container fleet-web-1  Started");
    assert_eq!(text(), "first\n");
    world.seatrial(["ps", "--format", "{{.Image}}"]).run().exits(0).stdout_has("app");
    // Nothing has changed, and nothing got a name by it.
    world.seatrial(["up", "-d"]).run().exits(0).stderr_has("Container fleet-web-1  Running");
    assert!(!world.seatrial(["images"]).run().exits(0).stdout().contains("localhost/fleet"));
    let mut terminal = world.seatrial(["up", "--watch"]).terminal(30, 100);
    terminal.wait_for("watch enabled");
    world.file("app/text", "second\n");
    terminal.wait_for("Rebuilding service \"web\"").wait_for("Recreate").wait_for("Started");
    world.wait_until("the new image is there", || text() == "second\n");
    // A step that fails leaves what runs, and is told, also by the watching.
    let dockerfile = std::fs::read_to_string(world.repo().join("app/Dockerfile")).expect("it was written");
    world.file("app/Dockerfile", &format!("{dockerfile}RUN echo broken; exit 5\n"));
    world.seatrial(["up", "-d"]).run().exits(1).stderr_has("broken").stderr_has("exited 5");
    assert_eq!(text(), "second\n");
    // None of this is a run of the pipeline.
    world.seatrial(["logs", "last"]).run().exits(1).stderr_has("no runs yet");
    terminal.keys("\x03");
    assert_eq!(terminal.finish().0, 130);
    assert_eq!(world.remains(), Vec::<String>::new());
}

/// Lines of a former life do not count.
#[test]
fn a_restarted_service_says_again_that_it_is_ready() {
    let world = world_with_image();
    world.file(
        "seatrial.yaml",
        "image: localhost/said\nservices:\n  a:\n    image: tiny:1\n    command: [sh, -c, \"test -f /silent && exec sleep 1000; echo ready; test -f /twice || echo ready; touch /twice; exec sleep 1000\"]\n    stop_grace_period: 100ms\n    ready: {log: {pattern: ready, times: 2}, timeout: 4s}\n",
    );
    world.file("Dockerfile", "FROM tiny:1\n");
    world.seatrial(["up", "-d"]).run().exits(0);
    // Once more is enough: what the first start says besides does not come again.
    world.seatrial(["restart", "a"]).run().exits(0);
    world.seatrial(["exec", "a", "touch", "/silent"]).run().exits(0);
    let silent = world.seatrial(["restart", "a"]).run().exits(1);
    silent.stderr_has("was not ready after 4s: its log had 0 of 1 lines like `ready`");
    world.seatrial(["down"]).run().exits(0);
}

#[test]
fn no_project_is_a_mistake_with_a_way_on() {
    let world = world();
    world.seatrial(["up"]).run().exits(2).stderr_has("no Compose file");
    world.seatrial(["ps", "-p", "Shop"]).run().exits(2).stderr_has("not the name of a project");
    world.seatrial(["logs", "-f", "-p", "shop"]).run().exits(1).stderr_has("project shop is not up");
}
