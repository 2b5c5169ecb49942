//! Files as an artefact: to our own registry, and by skopeo back.

use std::process::Command;

use packages::{Package, State, Target};
use registry::{Server, ServerOptions};

use crate::support::{client, publish, words};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_to_a_registry_as_one_artefact() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("registry");
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), &kept, ServerOptions::default()).await.unwrap();
    let address = server.local_addr();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async { drop(stopped.await) }));

    let [one, two] = ["one.txt", "two.tar.gz"].map(|name| directory.path().join(name));
    fs_err::write(&one, "one\n").unwrap();
    fs_err::write(&two, "two\n").unwrap();
    let name = format!("oci:{address}/app/files:1.2.3");
    let target: Target = name.parse().unwrap();
    let both = [&one, &two].map(|path| Package::read(path, &target).unwrap());
    for expected in [State::Absent, State::Sent, State::WasThere] {
        let mut states = Vec::new();
        let mut told = |package: &Package, state| states.push((package.file_name.clone(), state));
        match expected {
            State::Absent => packages::look(&client(), &target, None, &both, &mut told).await.unwrap(),
            _ => packages::publish(&client(), &target, None, &both, &mut told).await.unwrap(),
        }
        assert_eq!(states, [("one.txt".to_owned(), expected), ("two.tar.gz".to_owned(), expected)]);
    }
    // A whole version stays what it is; other tags move.
    let error = publish(&name, None, &one).await.expect_err("the version is taken");
    assert!(error.is_taken(), "{}", words(&error));
    let moving = format!("oci:{address}/app/files:main");
    assert_eq!(publish(&moving, None, &one).await.unwrap(), State::Sent);
    assert_eq!(publish(&moving, None, &two).await.unwrap(), State::Sent);

    let copy = directory.path().join("copy");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["copy", "--quiet", "--src-tls-verify=false"]).arg(format!("docker://{address}/app/files:1.2.3"));
    skopeo.arg(format!("dir:{}", copy.display()));
    match tokio::task::spawn_blocking(move || skopeo.status()).await.unwrap() {
        Ok(status) => {
            assert!(status.success());
            assert_eq!(fs_err::read_to_string(copy.join(both[0].sha256.hex())).unwrap(), "one\n");
            let manifest: serde_json::Value =
                serde_json::from_slice(&fs_err::read(copy.join("manifest.json")).unwrap()).unwrap();
            assert_eq!(manifest["layers"][1]["annotations"]["org.opencontainers.image.title"], "two.tar.gz");
        }
        Err(_) => testkit::skip("skopeo is not installed: nothing was copied"),
    }
    drop(stop);
    serving.await.unwrap().unwrap();
}
