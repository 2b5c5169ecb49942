//! HTTP proxies on the way: `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`. The environment is a process's own, so each case is one.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Output,
    sync::{Arc, Mutex},
};

use registry::{Client, ClientOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::support::*;

/// The image that the process is to look up, and the host that it may meet with any certificate.
const ORDERS: &str = "SEATRIAL_TEST_TUNNEL";

/// A proxy that leads every tunnel and request to one server, and remembers their first lines.
struct Tunnels {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Tunnels {
    /// `refusal`: the status line that it answers everything with.
    async fn start(target: SocketAddr, refusal: Option<&'static str>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let heard = Arc::clone(&heard);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = client.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8(head).unwrap();
                    heard.lock().unwrap().push(head.clone());
                    if let Some(refusal) = refusal {
                        let answer = format!("HTTP/1.1 {refusal}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                        let _ = client.write_all(answer.as_bytes()).await;
                        return;
                    }
                    let mut server = TcpStream::connect(target).await.unwrap();
                    if head.starts_with("CONNECT ") {
                        let _ = client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await;
                    } else {
                        let _ = server.write_all(head.as_bytes()).await;
                    }
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, seen, task }
    }

    fn lines(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|head| head.lines().next().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
#[ignore = "it is no test, but the process with an environment of its own"]
async fn the_process_behind_a_proxy() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let name: oci::Reference = orders.parse().unwrap();
    let insecure_hosts = vec![name.domain().to_owned()];
    let client = Client::new(ClientOptions { insecure_hosts, retries: 0, ..options() });
    client.resolve(&name).await.unwrap();
}

async fn look_up(name: &str, environment: &[(&str, String)]) -> Output {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tunnels::the_process_behind_a_proxy", "--ignored"]).env(ORDERS, name);
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(variable).env_remove(variable.to_lowercase());
    }
    command.envs(environment.iter().map(|(name, value)| (*name, value.as_str())));
    command.output().await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn registries_are_reached_through_the_proxy_of_the_environment() {
    let Some(registry) = DockerRegistry::start_tls().await else { return };
    let image = image(&[("a", b"one")]);
    push(&client(), &reference(registry.address, "app:1"), &image).await;
    let name = "registry.test:5443/app:1";

    let tunnels = Tunnels::start(registry.address, None).await;
    let proxy = format!("http://ann:secret@{}", tunnels.address);
    let output = look_up(name, &[("HTTPS_PROXY", proxy.clone())]).await;
    assert!(output.status.success(), "{}", said(&output));
    let heads = tunnels.seen.lock().unwrap().clone();
    assert!(heads.iter().all(|head| head.starts_with("CONNECT registry.test:5443 ")), "{heads:?}");
    let authorized = |head: &String| head.to_lowercase().contains("proxy-authorization: basic ");
    assert!(!heads.is_empty() && heads.iter().all(authorized), "{heads:?}");

    // Hosts that are exempt do not go through it; this one does not exist.
    let heard = tunnels.lines().len();
    let output = look_up(name, &[("HTTPS_PROXY", proxy), ("NO_PROXY", "other.test,registry.test".into())]).await;
    assert!(!output.status.success());
    assert_eq!(tunnels.lines().len(), heard);

    // Neither does this machine, whatever the environment says.
    let here = format!("127.0.0.1:{}/app:1", registry.address.port());
    let output = look_up(&here, &[("HTTPS_PROXY", format!("http://{}", tunnels.address))]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(tunnels.lines().len(), heard);
}

#[tokio::test]
async fn a_plain_registry_is_reached_through_a_proxy_as_well() {
    let server = Embedded::start().await;
    let image = image(&[("a", b"one")]);
    push(&client(), &reference(server.address, "app:1"), &image).await;
    let tunnels = Tunnels::start(server.address, None).await;
    let proxy = format!("http://{}", tunnels.address);
    let output = look_up("registry.test:5000/app:1", &[("HTTP_PROXY", proxy)]).await;
    assert!(output.status.success(), "{}", said(&output));
    let lines = tunnels.lines();
    assert!(lines.iter().any(|line| line.starts_with("GET http://registry.test:5000/v2/ ")), "{lines:?}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_of() {
    let tunnels = Tunnels::start(([127, 0, 0, 1], 9).into(), Some("407 Proxy Authentication Required")).await;
    let proxy = format!("http://{}", tunnels.address);
    let output = look_up("registry.test:5443/app:1", &[("HTTPS_PROXY", proxy)]).await;
    assert!(!output.status.success());
    assert!(said(&output).contains("Unreachable"), "{}", said(&output));
    assert!(!tunnels.lines().is_empty());
}
