//! Logins of Debian's clients at our server, with users as Apache's `htpasswd` writes them.

use std::path::Path;

use fs_err as fs;
use registry::{AccessOptions, Action, ServerOptions};

use crate::{
    access::{guarded, rule},
    foreign_clients::{Docker, podman},
    support::*,
};

/// `public` is anyone's to read, `team` is ann's, and bob's to read. Passwords are `secret`.
async fn start(directory: &Path) -> Option<Embedded> {
    if !has_tool("htpasswd") {
        return None;
    }
    let users = directory.join("htpasswd");
    let path = users.to_str().unwrap();
    run("htpasswd", &["-cbB", path, "ann", "secret"], &[]).await;
    run("htpasswd", &["-bB", "-C", "4", path, "bob", "secret"], &[]).await;
    let mut options = guarded(directory);
    options.access.as_mut().unwrap().users = users;
    Some(Embedded::with(&directory.join("data"), options).await)
}

/// Skopeo that knows no logins but those it is given.
async fn skopeo(home: &Path, arguments: &[&str]) -> String {
    run("skopeo", arguments, &[("HOME", home), ("XDG_RUNTIME_DIR", home)]).await
}

async fn skopeo_failing(home: &Path, arguments: &[&str]) -> String {
    run_failing("skopeo", arguments, &[("HOME", home), ("XDG_RUNTIME_DIR", home)]).await
}

#[tokio::test]
async fn other_kinds_of_htpasswd_are_refused() {
    if !has_tool("htpasswd") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    for (flag, expected) in
        [("-m", "an Apache MD5 hash"), ("-s", "a SHA-1 hash"), ("-d", "no bcrypt hash"), ("-p", "no")]
    {
        run("htpasswd", &["-cb", flag, users.to_str().unwrap(), "ann", "secret"], &[]).await;
        let options = ServerOptions { access: Some(AccessOptions::new(&users)), ..ServerOptions::default() };
        let data = directory.path().join("data");
        let error = registry::Server::bind("127.0.0.1:0".parse().unwrap(), data, options).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("users:1: user `ann`: this is {expected}")) && text.contains("htpasswd -B"),
            "{text}"
        );
        assert!(!text.contains("secret"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_logs_in_pushes_and_is_refused() {
    if !has_tool("skopeo") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let Some(server) = start(directory.path()).await else { return };
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (ann, bob, none) = (file("ann.json"), file("bob.json"), file("none.json"));
    fs::write(&none, "{}").unwrap();
    let host = server.address.to_string();
    let login = ["login", "--tls-verify=false", "-u"];
    for (name, auth) in [("ann", &ann), ("bob", &bob)] {
        skopeo(directory.path(), &[&login[..], &[name, "-p", "secret", "--authfile", auth, &host]].concat()).await;
    }
    let wrong = [&login[..], &["ann", "-p", "wrong", "--authfile", &none, &host]].concat();
    let said = skopeo_failing(directory.path(), &wrong).await;
    assert!(said.contains("invalid username/password") && !said.contains("wrong\""), "{said}");

    let layout = tempfile::tempdir().unwrap();
    let image = image(&[("a", b"one"), ("b", &noise(9, 2_000_000))]);
    let open = Embedded::start().await;
    push(&client(), &reference(open.address, "from:1"), &image).await;
    let layout = format!("oci:{}:x", layout.path().display());
    let policy = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false"];
    skopeo(directory.path(), &[&policy[..], &[&format!("docker://{}/from:1", open.address), &layout]].concat()).await;

    let copy = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", "--authfile"];
    let named = |rest: &str| format!("docker://{host}/{rest}");
    skopeo(directory.path(), &[&copy[..], &[&ann, &layout, &named("team/app:1")]].concat()).await;
    // From one repository to another it mounts; everyone may read the second.
    skopeo(directory.path(), &[&copy[..], &[&ann, &named("team/app:1"), &named("public/app:1")]].concat()).await;
    check_pulled(&client(), &reference(server.address, "public/app:1"), &image).await;
    for (number, (auth, name)) in [(&bob, "team/app:1"), (&none, "public/app:1")].into_iter().enumerate() {
        let target = format!("oci:{}", file(&number.to_string()));
        skopeo(directory.path(), &[&copy[..], &[auth, &named(name), &target]].concat()).await;
    }
    for (auth, arguments) in [
        (&bob, [layout.clone(), named("team/app:2")]),
        (&bob, [named("team/app:1"), named("public/app:2")]),
        (&none, [layout.clone(), named("public/app:2")]),
        (&none, [named("team/app:1"), format!("oci:{}", file("x"))]),
    ] {
        let said = skopeo_failing(directory.path(), &[&copy[..], &[auth, &arguments[0], &arguments[1]]].concat()).await;
        assert!(said.contains("denied") || said.contains("unauthorized") || said.contains("authentication"), "{said}");
    }
    let delete = ["delete", "--tls-verify=false", "--authfile"];
    skopeo_failing(directory.path(), &[&delete[..], &[&bob, &named("team/app:1")]].concat()).await;
    skopeo(directory.path(), &[&delete[..], &[&ann, &named("team/app:1")]].concat()).await;
    let tags = ["list-tags", "--tls-verify=false", "--authfile"];
    assert!(skopeo(directory.path(), &[&tags[..], &[&none, &named("public/app")]].concat()).await.contains("\"1\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn podman_and_buildah_log_in_and_push() {
    if !has_tool("podman") || !has_tool("buildah") || !is_root("podman's storage without root needs subordinate ids") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let Some(server) = start(directory.path()).await else { return };
    let host = server.address.to_string();
    let image = image(&[("a", b"one")]);
    let open = Embedded::start().await;
    push(&client(), &reference(open.address, "from:1"), &image).await;
    let root = tempfile::tempdir().unwrap();
    let podman = async |arguments: &[&str]| podman(root.path(), arguments).await;
    let (from, team, public) =
        (format!("{}/from:1", open.address), format!("{host}/team/app:1"), format!("{host}/public/app:1"));
    podman(&["pull", "-q", "--tls-verify=false", &from]).await;
    podman(&["login", "--tls-verify=false", "-u", "ann", "-p", "secret", &host]).await;
    for name in [&team, &public] {
        podman(&["tag", &from, name]).await;
        podman(&["push", "-q", "--tls-verify=false", name]).await;
    }
    podman(&["logout", &host]).await;
    podman(&["rmi", "-a", "-f"]).await;
    podman(&["pull", "-q", "--tls-verify=false", &public]).await;

    let home = tempfile::tempdir().unwrap();
    let auth = home.path().join("auth.json").to_str().unwrap().to_owned();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (storage, run_root) = (path("storage"), path("run"));
    let own = ["--root", &storage, "--runroot", &run_root, "--storage-driver", "vfs"];
    let environment = [("HOME", home.path()), ("XDG_RUNTIME_DIR", home.path())];
    let pull = [&own[..], &["pull", "-q", "--tls-verify=false", "--authfile", &auth, &team]].concat();
    fs::write(&auth, "{}").unwrap();
    run_failing("buildah", &pull, &environment).await;
    let login = ["login", "--tls-verify=false", "--authfile", &auth, "-u", "bob", "-p"];
    run_failing("buildah", &[&own[..], &login, &["wrong", &host]].concat(), &environment).await;
    run("buildah", &[&own[..], &login, &["secret", &host]].concat(), &environment).await;
    run("buildah", &pull, &environment).await;
    let target = format!("docker://{host}/team/bobs:1");
    let push = ["push", "-q", "--tls-verify=false", "--authfile", &auth, &team, &target];
    let said = run_failing("buildah", &[&own[..], &push].concat(), &environment).await;
    assert!(said.contains("denied") || said.contains("bob"), "{said}");
    run("buildah", &[&own[..], &["rmi", "-a", "-f"]].concat(), &environment).await;
    podman(&["rmi", "-a", "-f"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_keeps_a_login_token_and_works_with_it() {
    let Some(mut docker) = Docker::start() else { return };
    docker.wait().await;
    let directory = tempfile::tempdir().unwrap();
    let Some(server) = start(directory.path()).await else { return };
    let host = server.address.to_string();
    let image = image(&[("a", b"one"), ("b", &noise(3, 300_000))]);
    let open = Embedded::start().await;
    push(&client(), &reference(open.address, "from:1"), &image).await;
    let from = format!("{}/from:1", open.address);
    docker.run(&["pull", "-q", &from]).await;
    docker.run(&["login", "-u", "ann", "-p", "secret", &host]).await;
    let config = fs::read_to_string(docker.root.path().join(".docker/config.json")).unwrap();
    assert!(config.contains("identitytoken"), "{config}");
    for rest in ["team/app:1", "team/copy:1", "public/app:1"] {
        let name = format!("{host}/{rest}");
        docker.run(&["tag", &from, &name]).await;
        docker.run(&["push", &name]).await;
    }
    docker.run(&["logout", &host]).await;
    let names = ["team/app:1", "team/copy:1", "public/app:1"].map(|rest| format!("{host}/{rest}"));
    docker.run(&["rmi", "-f", &names[0], &names[1], &names[2], &from]).await;
    docker.run(&["pull", "-q", &names[2]]).await;
    let said = docker.run_failing(&["pull", "-q", &names[0]]).await;
    assert!(said.contains("unauthorized") || said.contains("denied") || said.contains("access"), "{said}");
    docker.run_failing(&["login", "-u", "ann", "-p", "wrong", &host]).await;
    docker.run(&["login", "-u", "bob", "-p", "secret", &host]).await;
    docker.run(&["pull", "-q", &names[0]]).await;
    let theirs = format!("{host}/team/bobs:1");
    docker.run(&["tag", &names[0], &theirs]).await;
    let said = docker.run_failing(&["push", &theirs]).await;
    assert!(said.contains("denied") || said.contains("bob"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_knows_passwords_without_tokens() {
    if !has_tool("skopeo") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut options = guarded(directory.path());
    let access = options.access.as_mut().unwrap();
    access.challenge = registry::ChallengeKind::Basic;
    access.rules = vec![rule("**", &["ann"], &Action::ALL)];
    let server = Embedded::with(&directory.path().join("data"), options).await;
    let open = Embedded::start().await;
    let image = image(&[("a", b"one")]);
    push(&client(), &reference(open.address, "from:1"), &image).await;
    let (from, to) = (format!("docker://{}/from:1", open.address), format!("docker://{}/to:1", server.address));
    let copy = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo(directory.path(), &[&copy[..], &["--dest-creds", "ann:secret", &from, &to]].concat()).await;
    skopeo_failing(directory.path(), &[&copy[..], &["--dest-creds", "bob:secret", &from, &to]].concat()).await;
}
