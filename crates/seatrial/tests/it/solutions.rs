//! Solutions: services that are brought up, looked at, changed and taken down, by one process for each project.

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
fn no_project_is_a_mistake_with_a_way_on() {
    let world = world();
    world.seatrial(["up"]).run().exits(2).stderr_has("no Compose file");
    world.seatrial(["ps", "-p", "Shop"]).run().exits(2).stderr_has("not the name of a project");
    world.seatrial(["logs", "-f", "-p", "shop"]).run().exits(1).stderr_has("project shop is not up");
}
