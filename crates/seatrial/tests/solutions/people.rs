//! A whole solution: `examples/people`, with PostgreSQL, Redis, and a Selenium Grid of Chromium and Firefox, as root and as
//! an ordinary user.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use testkit::{Finished, Running, Session, World};

use crate::family::Family;

const BASE: &str = "localhost/people:base";
/// What the images of the example install, so that all of them and both users share one installation.
const PACKAGES: &str = "postgresql-15,redis-server,python3-psycopg2,python3-redis,unzip,chromium,chromium-driver,\
                        firefox-esr,default-jre-headless,fonts-dejavu-core,curl,jq";
/// Installing browsers takes minutes where two processors do other things as well.
const INSTALL_MAX: Duration = Duration::from_secs(900);
/// So do their first starts.
const RUN_MAX: Duration = Duration::from_secs(400);

const BROKEN_MIGRATION: &str = "relation \"peple\" does not exist";

/// Where an ordinary user's copy of this test finds what root made for it.
const PROGRAM: &str = "SEATRIAL_PEOPLE_PROGRAM";
const EXAMPLE: &str = "SEATRIAL_PEOPLE_EXAMPLE";
const ARCHIVE: &str = "SEATRIAL_PEOPLE_BASE";

#[test]
fn a_solution_passes_and_what_breaks_it_is_named() {
    if !testkit::wants_slow_tests() {
        testkit::skip("needs the network and minutes; set SEATRIAL_SLOW_TESTS=1");
        return;
    }
    let program = std::env::var(PROGRAM).unwrap_or_else(|_| env!("CARGO_BIN_EXE_seatrial").to_owned());
    let solution = Solution { world: World::new(&program) };
    match std::env::var_os(ARCHIVE) {
        Some(archive) => {
            solution.seatrial(&["load"]).arg(archive).run().exits(0);
        }
        None => {
            let base = ["base", "debian:bookworm-slim", "--include", PACKAGES, "--tag", BASE];
            solution.world.seatrial(base).within(INSTALL_MAX).run().exits(0);
        }
    }
    solution.copy_example();

    solution.passes_and_is_published();
    solution.leaves_nothing_when_killed();
    // What breaks it breaks it for everybody.
    if testkit::is_root() {
        solution.refuses_a_broken_migration();
        solution.refuses_a_broken_page();
        as_ordinary_user(&solution.world);
    }
}

struct Solution {
    world: World,
}

impl Solution {
    fn passes_and_is_published(&self) {
        let run = self.run(&["run", "--publish"]).exits(0);
        for gate in ["migrations", "e2e", "browser (chrome)", "browser (firefox)"] {
            assert!(run.stderr().lines().any(|line| line.contains("PASS") && line.contains(gate)), "{}", run.stderr());
        }
        assert_eq!(self.tags(), ["master"]);
        assert_eq!(self.world.registry_tags("people-web"), ["master"]);
    }

    fn refuses_a_broken_migration(&self) {
        self.edit("people-api/people_api/migrations/2_email.up.sql", "TABLE people", "TABLE peple");
        // The gate alone needs the database only.
        self.run(&["test", "migrations"]).exits(1).stderr_has("✗ gate migrations").stderr_has(BROKEN_MIGRATION);
        // With the others, the service whose start migrates does not get up.
        self.run(&["run", "--publish"]).exits(1).stderr_has("✗ service people-api").stderr_has(BROKEN_MIGRATION);
        assert_eq!(self.tags(), ["master"]);
        self.back();
    }

    fn refuses_a_broken_page(&self) {
        self.edit("people-web/people_web.py", "html.escape(person['name'])", "html.escape(person['email'])");
        let test = self.run(&["test", "e2e", "browser"]).exits(1);
        for gate in ["gate e2e", "gate browser (chrome)", "gate browser (firefox)"] {
            assert!(test.stderr().contains(gate), "{}", test.stderr());
        }
        test.stderr_has("'Grace <firefox>' not found in");
        self.back();
    }

    /// The next command finds what a killed one left.
    fn leaves_nothing_when_killed(&self) {
        let mut running = self.seatrial(&["test", "e2e", "--rerun"]).start();
        let family = Family::watch(running.id());
        running.wait_until("the page is served", || family.has("people_web.py"));
        running.signal(rustix::process::Signal::KILL);
        running.finish().exits(128 + 9);
        self.seatrial(&["images"]).run().exits(0);
        assert_eq!((family.left(), self.world.remains()), (Vec::new(), Vec::new()));
    }

    /// A session after which nothing may be left.
    fn run(&self, arguments: &[&str]) -> Finished {
        let running: Running = self.seatrial(arguments).arg("--progress=plain").start();
        let family = Family::watch(running.id());
        let finished = running.finish();
        assert_eq!((family.left(), self.world.remains()), (Vec::new(), Vec::new()), "{}", finished.stderr());
        finished
    }

    fn seatrial(&self, arguments: &[&str]) -> Session {
        let registry = self.world.registry().to_string();
        self.world.seatrial(arguments).within(RUN_MAX).env("REGISTRY", registry).env("BASE", BASE)
    }

    fn tags(&self) -> Vec<String> {
        self.world.registry_tags("people-api")
    }

    fn copy_example(&self) {
        let example = std::env::var_os(EXAMPLE).map_or_else(example, PathBuf::from);
        copy(&example.join("."), &self.world.repo());
        self.world.commit();
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.world.repo().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} holds {from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        self.world.git(&["commit", "--quiet", "--all", "--message", "Break it"]);
    }

    fn back(&self) {
        self.world.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    }
}

/// The store of an ordinary user holds files of its subordinate ids, which only the program can remove.
impl Drop for Solution {
    fn drop(&mut self) {
        if !testkit::is_root() {
            self.world.seatrial(["clean", "--all"]).run();
        }
    }
}

/// Runs this test again as an ordinary user, with the program, the example, and the base that are here.
fn as_ordinary_user(world: &World) {
    let Some((user, group)) = testkit::user_with_subordinate_ids() else {
        testkit::skip("no user has an entry in /etc/subuid and /etc/subgid");
        return;
    };
    let directory = tempfile::Builder::new().prefix("seatrial-people-").tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    world.seatrial(["save", BASE, "--output"]).arg(at("base.tar")).within(INSTALL_MAX).run().exits(0);
    // Copies, since that user may not be able to reach the build directory.
    copy(Path::new(env!("CARGO_BIN_EXE_seatrial")), &at("seatrial"));
    copy(&std::env::current_exe().unwrap(), &at("test"));
    copy(&example(), &at("example"));
    fs::create_dir(at("home")).unwrap();
    std::os::unix::fs::chown(at("home"), Some(user), Some(group)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(at("base.tar"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = Command::new(at("test"))
        .args(["--exact", "people::a_solution_passes_and_what_breaks_it_is_named", "--nocapture"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("SEATRIAL_SLOW_TESTS", "1")
        .envs([("HOME", at("home")), ("TMPDIR", at("home"))])
        .envs([(PROGRAM, at("seatrial")), (EXAMPLE, at("example")), (ARCHIVE, at("base.tar"))])
        .current_dir(at("home"))
        .uid(user)
        .gid(group)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let [said, told] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "as user {user}: {said}\n{told}");
    assert!(said.contains("1 passed") && !told.contains("skipped:"), "{said}\n{told}");
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/people")
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg("--no-preserve=ownership").args([from, to]).status().unwrap();
    assert!(copied.success(), "{}", from.display());
}
