//! Sends what waits, one after the other for each receiver, signed.

use std::{sync::Arc, time::Duration};

use reqwest::header::CONTENT_TYPE;
use ring::hmac;
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{
    Webhook,
    queue::{Delivery, HookAnswer, Queue, now_ms},
};
use crate::{
    client::provide_tls,
    server::{Notices, metrics::Metrics},
};

/// A receiver should note what it is told and think later.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// A receiver that does not answer is left alone for so long at most.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// So much of an answer is kept for people to read.
const ANSWER_CHARS_MAX: usize = 300;
/// After a disk's failure it is tried again.
const DISK_WAIT: Duration = Duration::from_secs(30);
/// The type of the envelope (distribution, `notifications.EventsMediaType`).
const MEDIA_TYPE: &str = "application/vnd.docker.distribution.events.v2+json";

/// Delivers what is in a queue, for ever.
pub(super) async fn forever(queue: &Arc<Queue>, metrics: &Metrics, notices: &Notices) {
    let http = client(&queue.hook);
    loop {
        let id = match queue.next() {
            Some(Ok(id)) => id,
            Some(Err(wait)) => {
                // News may be due sooner.
                let _ = timeout(wait, queue.news.notified()).await;
                continue;
            }
            None => {
                queue.news.notified().await;
                continue;
            }
        };
        let read = {
            let queue = Arc::clone(queue);
            spawn_blocking(move || queue.read(&id))
        };
        match read.await {
            Ok(Ok(Some(delivery))) => attempt(queue, &http, delivery, metrics, notices).await,
            // It was taken away by hand.
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => sleep(DISK_WAIT).await,
        }
    }
}

async fn attempt(
    queue: &Arc<Queue>,
    http: &Result<reqwest::Client, String>,
    delivery: Delivery,
    metrics: &Metrics,
    notices: &Notices,
) {
    let answer = match http {
        Ok(http) => send(http, &queue.hook, &delivery).await,
        Err(reason) => HookAnswer { at_ms: now_ms(), status: None, text: reason.clone() },
    };
    let is_taken = answer.status.is_some_and(|status| (200..300).contains(&status));
    let is_silent = answer.status.is_none();
    metrics.hook_attempt(&queue.hook.name, if is_taken { "delivered" } else { "failed" });
    let id = delivery.id.clone();
    let noting = {
        let queue = Arc::clone(queue);
        spawn_blocking(move || {
            if is_taken {
                let attempts = delivery.attempts + 1;
                return queue.delivered(&Delivery { answer: Some(answer), attempts, ..delivery }).map(|()| None);
            }
            queue.refused(delivery, answer)
        })
    };
    match noting.await {
        // Nobody is there: what else there is would only wait for the same silence.
        Ok(Ok(Some(wait))) if is_silent => drop(timeout(wait.min(SILENCE_MAX), queue.hurry.notified()).await),
        Ok(Ok(None)) if !is_taken => {
            notices.say(&format!("webhook `{}` did not take delivery {id}: it is given up", queue.hook.name));
        }
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => sleep(DISK_WAIT).await,
    }
}

async fn send(http: &reqwest::Client, hook: &Webhook, delivery: &Delivery) -> HookAnswer {
    let now = now_ms();
    let timestamp = (now / 1000).to_string();
    let mut request = http
        .post(hook.url.0.clone())
        .header(CONTENT_TYPE, MEDIA_TYPE)
        .header("x-seatrial-delivery", &delivery.id)
        .header("x-seatrial-timestamp", &timestamp);
    if let Some(secret) = &hook.secret {
        let dated = format!("{timestamp}.{}", delivery.body);
        request = request
            .header("x-hub-signature-256", signature(&secret.0, &delivery.body))
            .header("x-seatrial-signature-256", signature(&secret.0, &dated));
    }
    let answering = async {
        let mut response = request.body(delivery.body.clone()).send().await?;
        let status = response.status().as_u16();
        let first = response.chunk().await.ok().flatten().unwrap_or_default();
        Ok::<_, reqwest::Error>((status, String::from_utf8_lossy(&first).into_owned()))
    };
    let (status, text) = match timeout(ANSWER_WAIT_MAX, answering).await {
        Ok(Ok((status, text))) => (Some(status), text),
        // The URL stays out of it: it may be a secret.
        Ok(Err(error)) => (None, crate::client::describe(&error.without_url())),
        Err(_) => (None, format!("no answer within {} s", ANSWER_WAIT_MAX.as_secs())),
    };
    let text = text.chars().filter(|c| !c.is_control()).take(ANSWER_CHARS_MAX).collect();
    HookAnswer { at_ms: now, status, text }
}

fn signature(secret: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, text.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

fn client(hook: &Webhook) -> Result<reqwest::Client, String> {
    provide_tls();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("seatrial/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(ANSWER_WAIT_MAX)
        .redirect(reqwest::redirect::Policy::none());
    let is_local = match hook.url.0.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if is_local {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| crate::client::describe(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_as_github_documents_them() {
        let (secret, text) = ("It's a Secret to Everybody", "Hello, World!");
        let expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(signature(secret, text), expected);
    }
}
