//! Solutions as people live with them: at terminals, with ports of the host, as root and as ordinary users.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use testkit::World;

use crate::{PROGRAM, world_with_image};

/// Speaks before it is ready, and serves a page.
const SITE: &str = "\
name: site
services:
  web:
    image: tiny:1
    command: [sh, -c, \"echo web begins; mkdir /www; echo a page > /www/index.html; trap 'echo web ends; exit 0' TERM; httpd -f -p 8080 -h /www & wait\"]
    ports: [\"8080\"]
    healthcheck: {test: test -f /www/go, interval: 50ms, retries: 1000}
";

fn site(world: &World) {
    world.file("compose.yaml", SITE);
}

/// The page, by the port of the host that the list of containers names.
fn page(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("the port accepts");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it takes a question");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// From `up` to `down`, with a port of the host; nothing is left.
fn comes_and_goes(world: &World) {
    world.file("compose.yaml", &SITE.replace("/www/go", "/www/index.html"));
    world.seatrial(["up", "-d"]).run().exits(0).stderr_has("Container site-web-1  Healthy");
    let ports = world.seatrial(["ps", "--format", "{{.Ports}}"]).run().exits(0).stdout();
    let address = ports.trim().strip_suffix("->8080/tcp").and_then(|address| address.parse().ok());
    let address: SocketAddr = address.unwrap_or_else(|| panic!("{ports}"));
    assert!(address.ip().is_loopback(), "{ports}");
    assert!(page(address).ends_with("a page\n"));
    // By its name, from beside it.
    let run = ["exec", "-T", "web", "sh", "-c", "wget -q -O - http://web:8080/ && id -u"];
    assert_eq!(world.seatrial(run).run().exits(0).stdout(), "a page\n0\n");
    world.seatrial(["logs", "web"]).run().exits(0).stdout_has("web begins");
    world.seatrial(["down", "-v"]).run().exits(0).stderr_has("Container site-web-1  Removed");
    assert!(TcpStream::connect(address).is_err(), "the port is free again");
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn published_ports_are_there_while_a_solution_is_up() {
    comes_and_goes(&world_with_image());
}

#[test]
fn an_ordinary_user_has_solutions_with_ports_too() {
    if !testkit::is_root() {
        testkit::skip("only root can become another user; all else here is checked as this one");
        return;
    }
    let Some(user) = testkit::user_with_subordinate_ids() else {
        testkit::skip("no user has an entry in /etc/subuid and /etc/subgid");
        return;
    };
    comes_and_goes(&World::of_user(PROGRAM, user).loaded());
}

/// What services say is seen from their start, and when the window is closed, they end with the command.
#[test]
fn at_the_foreground_words_come_at_once_and_all_ends_with_the_terminal() {
    let world = world_with_image();
    site(&world);
    let mut terminal = world.seatrial(["up"]).terminal(30, 100);
    // It is not ready, and will not be before somebody has seen this.
    terminal.wait_for("site-web-1").wait_for("| web begins");
    world.seatrial(["exec", "-T", "web", "touch", "/www/go"]).run().exits(0);
    terminal.wait_for("all is up");
    assert_eq!(terminal.hang_up(), 129);
    assert_eq!(world.remains(), Vec::<String>::new());

    // Ctrl-C shows last words, too.
    world.file("compose.yaml", &SITE.replace("/www/go", "/www/index.html"));
    let mut terminal = world.seatrial(["up"]).terminal(30, 100);
    terminal.wait_for("all is up").keys("\x03");
    terminal.wait_for("| web ends");
    let (code, rest) = terminal.finish();
    assert_eq!(code, 130, "{rest}");
    assert_eq!(world.remains(), Vec::<String>::new());

    // Detached, it does not care about the terminal that it came from.
    let terminal = world.seatrial(["up", "-d"]).terminal(30, 100);
    let (code, rest) = terminal.finish();
    assert_eq!(code, 0, "{rest}");
    world.seatrial(["ps", "--format", "{{.State}}"]).run().exits(0).stdout_has("running");
    world.seatrial(["exec", "-T", "web", "true"]).run().exits(0);
    world.seatrial(["down"]).run().exits(0);
}

/// Keys, sizes and Ctrl-C of our terminal are the process's.
#[test]
fn a_process_in_a_service_has_our_terminal() {
    let world = world_with_image();
    world.file("compose.yaml", "name: desk\nservices: {a: {image: \"tiny:1\", command: sleep 1000, init: true}}\n");
    world.seatrial(["up", "-d"]).run().exits(0);
    for command in [&["exec", "-it", "a", "sh"][..], &["shell", "tiny:1", "sh"]] {
        let mut terminal = world.seatrial(command.iter().copied()).terminal(30, 100);
        // Before anything was started.
        terminal.keys("echo ahe''ad\n").wait_for("ahead").keys("exit 3\n");
        assert_eq!(terminal.finish().0, 3, "{command:?}");
    }
    let mut terminal = world.seatrial(["exec", "-it", "a", "sh"]).terminal(30, 100);
    // What is typed is on the screen as well: words that are waited for are typed in two parts.
    terminal.wait_for("# ").keys("stty size; tty\n").wait_for("30 100").wait_for("/dev/pts/");
    terminal.keys("until stty size | grep -q '40 120'; do sleep 0.05; done; echo wid''er\n");
    terminal.resize(40, 120);
    terminal.wait_for("wider");
    terminal.keys("sh -c 'echo sle\"\"eps; exec sleep 1000'\n").wait_for("sleeps");
    terminal.keys("\x03").keys("echo co''de $?\n").wait_for("code 130");
    terminal.keys("exit 7\n");
    let (code, rest) = terminal.finish();
    assert_eq!(code, 7, "{rest}");
    world.seatrial(["down"]).run().exits(0);
}

/// Whoever has no patience for a grace period asks again, or says so before.
#[test]
fn a_second_ctrl_c_kills() {
    let world = world_with_image();
    world.file(
        "compose.yaml",
        "name: deaf\nservices:\n  a: {image: \"tiny:1\", command: [sh, -c, \"trap : TERM; while true; do sleep 1; done\"], stop_grace_period: 1h}\n",
    );
    let mut terminal = world.seatrial(["up"]).terminal(30, 100);
    terminal.wait_for("all is up").keys("\x03").wait_for("Stopping").keys("\x03").wait_for("killed");
    assert_eq!(terminal.finish().0, 130);
    // Its owner hears of it by the end of the call, and ends with all that it holds.
    world.wait_until("nothing is left", || world.remains().is_empty());

    world.seatrial(["up", "-d"]).run().exits(0);
    assert_eq!(world.seatrial(["ps", "--services"]).run().exits(0).stdout(), "a\n");
    world.seatrial(["restart", "-t", "0"]).run().exits(0).stderr_has("Container deaf-a-1  Stopped");
    world.seatrial(["down", "--timeout", "0"]).run().exits(0).stderr_has("Container deaf-a-1  Removed");
}
