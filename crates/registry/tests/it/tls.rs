//! The embedded server with a certificate.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use fs_err as fs;
use registry::{
    Client, ClientOptions, Credential, Credentials, HostFiles, Notices, Server, ServerError, ServerOptions, TlsFiles,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{access::guarded, support::*};

fn files(directory: &Path) -> TlsFiles {
    TlsFiles { certificate: directory.join("server.pem"), key: directory.join("server.key") }
}

/// A client that trusts nobody but an authority.
fn trusting(server: &Embedded, authority: &Path, hosts: &Path) -> Client {
    let host = hosts.join(server.address.to_string());
    fs::create_dir_all(&host).unwrap();
    fs::copy(authority, host.join("ca.crt")).unwrap();
    let hosts = HostFiles { certificates: vec![hosts.to_owned()], ..HostFiles::default() };
    let credential = Credential::Password { user: "ann".into(), password: "secret".into() };
    let credentials = Credentials::anonymous().with(server.address.to_string(), credential);
    Client::new(ClientOptions { hosts, credentials, ..options() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_and_tokens_come_by_tls() {
    if !has_tool("openssl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path(), &["server"]).await;
    let options = ServerOptions { tls: Some(files(directory.path())), ..guarded(directory.path()) };
    let server = Embedded::with(&directory.path().join("data"), options).await;
    let authority = directory.path().join("authority.pem");
    let client = trusting(&server, &authority, &directory.path().join("hosts"));
    let (name, image) = (reference(server.address, "team/app:1"), image(&[("a", &noise(1, 3_000_000))]));
    push(&client, &name, &image).await;
    check_pulled(&client, &name, &image).await;

    if has_tool("skopeo") {
        let trusted = directory.path().join("skopeo");
        fs::create_dir(&trusted).unwrap();
        fs::copy(&authority, trusted.join("ca.crt")).unwrap();
        let from = format!("docker://{}/team/app:1", server.address);
        let to = format!("docker://{}/team/copied:1", server.address);
        let trusted = trusted.to_str().unwrap();
        let copy = ["--insecure-policy", "copy", "-q", "--src-cert-dir", trusted, "--dest-cert-dir", trusted];
        let login = ["--src-creds", "ann:secret", "--dest-creds", "ann:secret", &from, &to];
        run("skopeo", &[&copy[..], &login].concat(), &[("XDG_RUNTIME_DIR", directory.path())]).await;
        check_pulled(&client, &reference(server.address, "team/copied:1"), &image).await;
        let untrusting = ["inspect", "--creds", "ann:secret", &from];
        assert!(run_failing("skopeo", &untrusting, &[("XDG_RUNTIME_DIR", directory.path())]).await.contains("x509"));
    }
    if has_tool("curl") {
        let url = format!("https://localhost:{}/v2/team/app/tags/list", server.address.port());
        let ask = ["-sS", "--fail", "--cacert", authority.to_str().unwrap(), "-u", "ann:secret", &url];
        assert!(run("curl", &ask, &[]).await.contains("[\"1\"]"));
        let url = format!("https://127.0.0.1:{}/v2/", server.address.port());
        let said = run("curl", &["-sSi", "--cacert", authority.to_str().unwrap(), &url], &[]).await;
        assert!(said.contains(&format!("realm=\"https://{}/token\"", server.address)), "{said}");
    }
}

#[tokio::test]
async fn a_plain_request_is_told_to_use_tls_and_disturbs_nobody() {
    if !has_tool("openssl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path(), &["server"]).await;
    let options = ServerOptions { tls: Some(files(directory.path())), ..ServerOptions::default() };
    let server = Embedded::with(&directory.path().join("data"), options).await;
    // Some say nothing, some say nonsense, some begin a handshake and go.
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let mut nonsense = TcpStream::connect(server.address).await.unwrap();
    nonsense.write_all(&[0x16, 3, 1, 0, 2, 0, 0]).await.unwrap();
    let mut gone = TcpStream::connect(server.address).await.unwrap();
    gone.write_all(&[0x16, 3, 1]).await.unwrap();
    drop(gone);
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    plain.shutdown().await.unwrap();
    let mut answer = String::new();
    let read = plain.read_to_string(&mut answer);
    tokio::time::timeout(std::time::Duration::from_secs(5), read).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.contains("Client sent an HTTP request to an HTTPS server."), "{answer}");
    client().ping(&server.address.to_string()).await.unwrap();
}

#[tokio::test]
async fn new_certificates_are_taken_and_damaged_ones_are_not() {
    if !has_tool("openssl") {
        return;
    }
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_certificates(first.path(), &["server"]).await;
    make_certificates(second.path(), &["server"]).await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&heard);
    let options = ServerOptions {
        tls: Some(files(first.path())),
        notices: Notices::to(move |text| ear.lock().unwrap().push(text.to_owned())),
        ..ServerOptions::default()
    };
    let server = Embedded::with(&first.path().join("data"), options).await;
    let hosts = tempfile::tempdir().unwrap();
    let [old, new] = [&first, &second].map(|it| it.path().join("authority.pem"));
    let asks = async |authority: &Path, at: &str| {
        // Each time a client and a connection of its own.
        let client = trusting(&server, authority, &hosts.path().join(at));
        client.ping(&server.address.to_string()).await.map_err(|error| error.kind)
    };
    let old_copy = hosts.path().join("old.pem");
    fs::copy(&old, &old_copy).unwrap();
    asks(&old_copy, "1").await.unwrap();
    asks(&new, "2").await.unwrap_err();
    // Between the two files they do not fit together: the old ones stay, and that is told once.
    fs::copy(second.path().join("server.key"), first.path().join("server.key")).unwrap();
    asks(&old_copy, "3").await.unwrap();
    asks(&old_copy, "4").await.unwrap();
    {
        let heard = heard.lock().unwrap();
        assert!(heard.len() == 1 && heard[0].contains("certificate stays as it was"), "{heard:?}");
    }
    fs::copy(second.path().join("server.pem"), first.path().join("server.pem")).unwrap();
    asks(&new, "5").await.unwrap();
    asks(&old_copy, "6").await.unwrap_err();
    fs::remove_file(first.path().join("server.pem")).unwrap();
    asks(&new, "7").await.unwrap();
}

#[tokio::test]
async fn what_is_no_certificate_is_named() {
    if !has_tool("openssl") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path(), &["server", "other"]).await;
    let path = |name: &str| directory.path().join(name);
    let check = async |certificate: &str, key: &str, expected: &str| {
        let tls = Some(TlsFiles { certificate: path(certificate), key: path(key) });
        let options = ServerOptions { tls, ..ServerOptions::default() };
        let error = Server::bind("127.0.0.1:0".parse().unwrap(), path("data"), options).await.unwrap_err();
        assert!(matches!(error, ServerError::Tls(_)), "{error:?}");
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let text = format!("{error}: {cause}").replace(&directory.path().display().to_string(), "");
        assert!(text.starts_with(expected), "{text}");
    };
    check("server.pem", "other.key", "/server.pem and /other.key cannot be used together").await;
    check("names", "server.key", "/names holds no certificate in PEM").await;
    check("server.pem", "server.pem", "/server.pem holds no private key in PEM").await;
    check("none.pem", "server.key", "certificate and key cannot be read: /none.pem").await;
}
