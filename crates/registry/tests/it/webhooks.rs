//! Webhooks: told until they are heard, across restarts, signed, never in a push's way.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use oci::media_type;
use registry::{HookEvent, HookSecret, Pattern, ServerOptions, Webhook};
use serde_json::Value;
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};

use crate::support::*;

/// What a receiver does with the n-th request, and what it got.
struct Script {
    answers: Vec<u16>,
    got: Mutex<Vec<(HeaderMap, Bytes)>>,
    news: Notify,
}

struct Receiver {
    address: SocketAddr,
    script: Arc<Script>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Answers with these statuses, then with 200.
    async fn start(answers: &[u16]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Script { answers: answers.to_vec(), got: Mutex::default(), news: Notify::new() };
        let script = Arc::new(script);
        let app = Router::new().fallback(receive).with_state(Arc::clone(&script));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, script, task }
    }

    fn hook(&self) -> Webhook {
        let url = format!("http://{}/hook?token=hidden", self.address).parse().unwrap();
        Webhook {
            secret: Some(HookSecret("It's a Secret to Everybody".into())),
            retry_wait: Duration::from_millis(10),
            ..Webhook::new("ci", url)
        }
    }

    /// Waits for so many requests.
    async fn wait(&self, count: usize) -> Vec<(HeaderMap, Value)> {
        let waiting = async {
            loop {
                let news = self.script.news.notified();
                if self.script.got.lock().unwrap().len() >= count {
                    return;
                }
                news.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it is told");
        let got = self.script.got.lock().unwrap();
        got.iter().map(|(headers, body)| (headers.clone(), serde_json::from_slice(body).unwrap())).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(State(script): State<Arc<Script>>, headers: HeaderMap, body: Bytes) -> (StatusCode, &'static str) {
    let status = {
        let mut got = script.got.lock().unwrap();
        got.push((headers, body));
        script.answers.get(got.len() - 1).copied().unwrap_or(200)
    };
    script.news.notify_waiters();
    (StatusCode::from_u16(status).unwrap(), "what a\u{1b}[31m mess")
}

async fn serve(directory: &Path, hook: Webhook) -> Embedded {
    Embedded::with(directory, ServerOptions { webhooks: vec![hook], ..ServerOptions::default() }).await
}

/// The state of the one webhook once `is_so`.
async fn state_when(directory: &Path, is_so: impl Fn(&registry::HookState) -> bool) -> registry::HookState {
    let begun = Instant::now();
    loop {
        let states = registry::webhooks(directory).unwrap();
        if let Some(state) = states.into_iter().next()
            && is_so(&state)
        {
            return state;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the deliveries never came to be so");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn told(events: &Value) -> Vec<String> {
    let one = |event: &Value| {
        let name = event["target"]["tag"].as_str().unwrap_or("-");
        format!("{} {}:{name}", event["action"].as_str().unwrap(), event["target"]["repository"].as_str().unwrap())
    };
    events["events"].as_array().unwrap().iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_moves_and_deletions_are_told_in_distributions_form() {
    let receiver = Receiver::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let server = serve(directory.path(), receiver.hook()).await;
    let (client, old, new) = (client(), image(&[("a", b"old")]), image(&[("a", b"new")]));
    let name = reference(server.address, "team/app:1");
    push(&client, &name, &old).await;
    push(&client, &name, &old).await;
    push(&client, &name, &new).await;
    client.delete(&name).await.unwrap();
    client.delete(&name.with_digest(new.digest())).await.unwrap();
    let got = receiver.wait(5).await;
    let all: Vec<Vec<String>> = got.iter().map(|(_, body)| told(body)).collect();
    assert_eq!(all[..2], [["push team/app:1"], ["push team/app:1"]]);
    assert_eq!(all[2], ["push team/app:1", "tag team/app:1"]);
    assert_eq!(all[3..], [["delete team/app:1"], ["delete team/app:-"]]);
    let event = &got[0].1["events"][0];
    assert_eq!(event["target"]["digest"], old.digest().to_string());
    assert_eq!(event["target"]["mediaType"], media_type::MANIFEST);
    assert_eq!(event["target"]["size"], old.bytes.len());
    let url = server.url(&format!("/v2/team/app/manifests/{}", old.digest()));
    assert_eq!(event["target"]["url"], url);
    assert_eq!(event["request"]["method"], "PUT");
    assert!(event["request"]["useragent"].as_str().unwrap().starts_with("seatrial/"));
    assert_eq!(event["source"]["addr"], server.address.to_string());
    assert!(event["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(got[2].1["events"][1]["target"]["previousDigest"], old.digest().to_string());

    // Both signatures are what a receiver computes.
    let (headers, body) = receiver.script.got.lock().unwrap()[0].clone();
    let sign = |text: &[u8]| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"It's a Secret to Everybody");
        let tag = ring::hmac::sign(&key, text);
        format!("sha256={}", tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    assert_eq!(headers["content-type"], "application/vnd.docker.distribution.events.v2+json");
    assert_eq!(headers["x-hub-signature-256"], sign(&body));
    let dated = [headers["x-seatrial-timestamp"].as_bytes(), b".", &body].concat();
    assert_eq!(headers["x-seatrial-signature-256"], sign(&dated));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_wanted_is_told() {
    let receiver = Receiver::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let hook = Webhook {
        events: vec![HookEvent::Delete],
        repositories: vec![Pattern::parse("team/*").unwrap()],
        ..receiver.hook()
    };
    let server = serve(directory.path(), hook).await;
    let (client, image) = (client(), image(&[("a", b"old")]));
    for name in ["other/app:1", "team/app:1"] {
        let name = reference(server.address, name);
        push(&client, &name, &image).await;
        client.delete(&name).await.unwrap();
    }
    let got = receiver.wait(1).await;
    assert_eq!(told(&got[0].1), ["delete team/app:1"]);
    state_when(directory.path(), |state| state.pending.is_empty()).await;
    assert_eq!(receiver.wait(1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_outlasted_also_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[500, 404, 302]).await;
    let (client, image) = (client(), image(&[("a", b"old")]));
    // Nobody listens yet.
    let deaf = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let url = format!("http://{deaf}/token-in-path").parse().unwrap();
    let server = serve(directory.path(), Webhook { url, ..receiver.hook() }).await;
    push(&client, &reference(server.address, "app:1"), &image).await;
    let state = state_when(directory.path(), |state| state.pending.iter().any(|it| it.attempts > 0)).await;
    assert_eq!(state.pending[0].summary, "push app:1");
    let answer = state.pending[0].answer.as_ref().unwrap();
    assert!(answer.status.is_none() && !answer.text.contains("token"), "{answer:?}");
    server.stop().await;

    let server = serve(directory.path(), receiver.hook()).await;
    let got = receiver.wait(4).await;
    assert!(got.iter().all(|(headers, _)| headers["x-seatrial-delivery"] == got[0].0["x-seatrial-delivery"]));
    let state = state_when(directory.path(), |state| state.pending.is_empty() && state.last.is_some()).await;
    let last = state.last.unwrap().answer.unwrap();
    assert_eq!((last.status, last.text.as_str()), (Some(200), "what a[31m mess"));
    let text = reqwest::Client::builder().no_proxy().build().unwrap();
    let text = text.get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("webhook_attempts_total{webhook=\"ci\",outcome=\"delivered\"} 1"), "{text}");
    assert!(text.contains("webhook_deliveries{webhook=\"ci\",outcome=\"pending\"} 0"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_up_is_sent_again_by_command() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[500]).await;
    let server = serve(directory.path(), Webhook { give_up_after: Duration::ZERO, ..receiver.hook() }).await;
    push(&client(), &reference(server.address, "app:1"), &image(&[("a", b"old")])).await;
    let state = state_when(directory.path(), |state| state.failed.len() == 1 && state.pending.is_empty()).await;
    assert_eq!(state.failed[0].answer.as_ref().unwrap().status, Some(500));
    let place = directory.path().to_owned();
    let again = tokio::task::spawn_blocking(move || {
        assert!(registry::redeliver(&place, Some("none")).is_err());
        registry::redeliver(&place, Some(&state.failed[0].id)).unwrap()
    });
    assert_eq!(again.await.unwrap(), 1);
    assert_eq!(receiver.wait(2).await.len(), 2);
    let state = state_when(directory.path(), |state| state.last.is_some() && state.pending.is_empty()).await;
    assert!(state.failed.is_empty());
    assert_eq!(state.last.unwrap().attempts, 2);
}
