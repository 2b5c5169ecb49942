//! Hosts that want fewer requests: 429 and 503 in all their forms.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures::{StreamExt, stream::FuturesUnordered};
use oci::{Descriptor, media_type};
use registry::{Client, ClientOptions, NoProgress, UploadOutcome};
use reqwest::Method;

use crate::{
    proxy::{Fault, Proxy, Seen},
    support::*,
};

/// So many requests at the same time are fine.
const ACTIVE_MAX: usize = 3;
const BLOBS: u64 = 32;

/// "Too many", in one of the forms that registries have for it.
fn too_many(number: usize) -> Fault {
    let past = SystemTime::now() - Duration::from_secs(5);
    match number % 4 {
        0 => Fault::Answer(429, Vec::new(), Vec::new()),
        1 => Fault::Answer(429, vec![("retry-after", "0".into())], Vec::new()),
        2 => Fault::Answer(429, vec![("retry-after", httpdate::fmt_http_date(past))], Vec::new()),
        _ => Fault::Answer(503, vec![("retry-after", "0".into())], Vec::new()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_blobs_come_through_a_host_that_likes_three_requests() {
    let server = Embedded::start().await;
    let script = |now: &Seen, all: &[Seen]| {
        if now.active > ACTIVE_MAX && now.path != "/v2/" { too_many(all.len()) } else { Fault::Pass }
    };
    let proxy = Proxy::start(server.address, script).await;
    let client = Client::new(ClientOptions { parallel_blobs: BLOBS as usize, ..options() });
    let name = reference(proxy.address, "app");
    let blobs: Vec<_> = (0..BLOBS).map(|number| noise(number + 1, 200_000)).collect();
    let mut up = FuturesUnordered::new();
    for blob in &blobs {
        let (client, name, descriptor) = (&client, &name, Descriptor::of(media_type::LAYER, blob));
        up.push(async move { client.upload_blob(name, &descriptor, blob.clone(), None, &NoProgress).await.unwrap() });
    }
    while let Some(outcome) = up.next().await {
        assert_eq!(outcome, UploadOutcome::Uploaded);
    }
    let mut down = FuturesUnordered::new();
    for blob in &blobs {
        let (client, name, descriptor) = (&client, &name, Descriptor::of(media_type::LAYER, blob));
        down.push(async move { assert_eq!(fetch(client, name, &descriptor).await.unwrap(), *blob) });
    }
    while down.next().await.is_some() {}
    let seen = proxy.seen();
    let refused = seen.iter().filter(|seen| seen.active > ACTIVE_MAX).count();
    assert!(refused > 0, "the host was never asked for too much: nothing was tried here");
    // It learns: most requests are not refused.
    assert!(refused < seen.len() / 2, "{refused} of {} requests were too many", seen.len());
}

#[tokio::test]
async fn nothing_is_asked_before_the_time_that_the_host_named() {
    let server = Embedded::start().await;
    let early = Arc::new(AtomicUsize::new(0));
    let (count, refused) = (Arc::clone(&early), Mutex::new(None::<Instant>));
    let proxy = Proxy::start(server.address, move |now, _| {
        let mut refused = refused.lock().unwrap();
        match *refused {
            _ if now.path == "/v2/" => Fault::Pass,
            None if now.is(Method::HEAD, "manifests") => {
                *refused = Some(Instant::now());
                Fault::Answer(429, vec![("retry-after", "1".into())], Vec::new())
            }
            Some(at) if at.elapsed() < Duration::from_millis(900) => {
                count.fetch_add(1, Ordering::SeqCst);
                Fault::Pass
            }
            _ => Fault::Pass,
        }
    })
    .await;
    let client = client();
    let name = reference(proxy.address, "app:1");
    // Whoever comes while the host wants to be left alone waits as well.
    let other = async {
        while proxy.count(Method::HEAD, "manifests") == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::timeout(Duration::from_secs(20), client.list_tags(&name)).await.unwrap()
    };
    let (resolved, listed) = tokio::join!(client.resolve(&name), other);
    assert!(resolved.unwrap_err().is_not_found() && listed.unwrap_err().is_not_found());
    assert!(early.load(Ordering::SeqCst) <= 1, "{early:?} requests came too early");
}
