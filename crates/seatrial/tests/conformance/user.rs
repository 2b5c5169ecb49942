//! A part of the table as an ordinary user has it: root becomes one, since nothing else differs.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

/// One in so many cases; the whole table is for whoever runs the tests as such a user.
const CASES_ONE_IN: &str = "6";

#[test]
fn ordinary_users_get_the_same() {
    if !testkit::is_root() {
        testkit::skip("only root can become another user; the whole table is checked as this one");
        return;
    }
    let Some((user, group)) = testkit::user_with_subordinate_ids() else {
        testkit::skip("no user has an entry in /etc/subuid and /etc/subgid");
        return;
    };
    let directory = tempfile::Builder::new().prefix("conformance-").tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    // Copies, since that user may not be able to reach the build directory.
    fs::copy(crate::PROGRAM, at("seatrial")).expect("the program can be copied");
    fs::copy(std::env::current_exe().expect("a program has a path"), at("test")).expect("the test can be copied");
    copy_tree(&crate::directory(), &at("conformance"));
    fs::create_dir(at("home")).expect("a fresh directory takes directories");
    std::os::unix::fs::chown(at("home"), Some(user), Some(group)).expect("root gives files away");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("modes can be set");
    let output = Command::new(at("test"))
        .args(["--exact", "every_case_gets_its_answer", "--nocapture"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([("HOME", at("home")), ("TMPDIR", at("home"))])
        .env("SEATRIAL_CONFORMANCE_PROGRAM", at("seatrial"))
        .env("SEATRIAL_CONFORMANCE_DIRECTORY", at("conformance"))
        .env("SEATRIAL_CONFORMANCE_ONE_IN", CASES_ONE_IN)
        .current_dir(at("home"))
        .uid(user)
        .gid(group)
        .stdin(Stdio::null())
        .output()
        .expect("the test runs");
    assert!(
        output.status.success(),
        "as user {user}: {}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the table was checked");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    told.lines().filter_map(|line| line.strip_prefix("skipped: ")).for_each(testkit::skip);
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a fresh directory takes directories");
    for entry in fs::read_dir(from).expect("the cases can be read") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("entries have names"));
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a case can be copied");
        }
    }
}
