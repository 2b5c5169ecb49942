//! Our client on bad days: never wrong content, retries within bounds, credentials only where they belong.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use oci::{Descriptor, Digest, media_type};
use registry::{Client, ClientOptions, Credential, Credentials, ErrorKind, NoProgress, UploadOutcome};
use reqwest::Method;
use tokio::sync::Semaphore;

use crate::{
    proxy::{Fault, Proxy, Seen},
    support::*,
};

fn status(status: u16) -> Fault {
    Fault::Answer(status, Vec::new(), Vec::new())
}

fn before(all: &[Seen], now: &Seen) -> usize {
    all.iter().filter(|seen| seen.method == now.method && seen.path == now.path).count()
}

#[tokio::test]
async fn passing_failures_are_outlasted() {
    let server = Embedded::start().await;
    let proxy = Proxy::start(server.address, |now, all| match before(all, now) {
        0 => status(500),
        1 => Fault::Answer(429, vec![("retry-after", "0".into())], Vec::new()),
        2 => status(503),
        _ => Fault::Pass,
    })
    .await;
    let image = image(&[("a", b"one"), ("b", b"two")]);
    let name = reference(proxy.address, "app:1");
    push(&client(), &name, &image).await;
    check_pulled(&client(), &name, &image).await;
}

#[tokio::test]
async fn lasting_failures_end_after_the_retries() {
    let server = Embedded::start().await;
    let proxy = Proxy::start(server.address, |now, _| {
        if now.path.contains("manifests") {
            Fault::Answer(503, Vec::new(), br#"{"errors":[{"code":"UNAVAILABLE","message":"tired\u001b[31m"}]}"#.into())
        } else {
            Fault::Pass
        }
    })
    .await;
    let name = reference(proxy.address, "app:1");
    let error = client().fetch_manifest(&name, 1000).await.unwrap_err();
    assert!(error.is_surroundings() && !error.is_auth());
    assert_eq!(error.kind.to_string(), "registry answered with status 503 (UNAVAILABLE): tired[31m");
    assert_eq!(proxy.count(Method::GET, "manifests"), 6);
}

#[tokio::test]
async fn long_rate_limit_is_told_at_once() {
    let server = Embedded::start().await;
    let answer = |now: &Seen, _: &[Seen]| match now.path.as_str() {
        "/v2/" => Fault::Pass,
        _ => Fault::Answer(429, vec![("retry-after", "3600".into())], Vec::new()),
    };
    let proxy = Proxy::start(server.address, answer).await;
    let error = client().resolve(&reference(proxy.address, "app")).await.unwrap_err();
    let ErrorKind::RateLimited { retry_after } = error.kind else { panic!("{error:?}") };
    assert_eq!(retry_after, Some(Duration::from_secs(3600)));
    assert_eq!(proxy.count(Method::HEAD, "manifests"), 1);
}

#[tokio::test]
async fn wrong_content_is_never_accepted() {
    let server = Embedded::start().await;
    let image = image(&[("a", b"one")]);
    push(&client(), &reference(server.address, "app:1"), &image).await;
    let (layer, bytes) = &image.blobs[0];
    let mut wrong = bytes.to_vec();
    wrong[5] ^= 1;
    let longer = [&bytes[..], b"x"].concat();
    let shorter = bytes[1..].to_vec();
    for answer in [wrong, longer, shorter] {
        let proxy = Proxy::start(server.address, move |now, _| {
            if now.path.contains("/blobs/") { Fault::Answer(200, Vec::new(), answer.clone()) } else { Fault::Pass }
        })
        .await;
        let error = fetch(&client(), &reference(proxy.address, "app"), layer).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::WrongContent { .. }), "{error:?}");
        assert!(error.is_surroundings());
    }
    // Only the first copy is damaged: the second is taken.
    let mut wrong = bytes.to_vec();
    wrong[7] ^= 1;
    let proxy = Proxy::start(server.address, move |now, all| {
        let is_first = now.path.contains("/blobs/") && before(all, now) == 0;
        if is_first { Fault::Answer(200, Vec::new(), wrong.clone()) } else { Fault::Pass }
    })
    .await;
    assert_eq!(fetch(&client(), &reference(proxy.address, "app"), layer).await.unwrap(), *bytes);
}

#[tokio::test]
async fn wrong_manifest_is_never_accepted() {
    let server = Embedded::start().await;
    let (good, other) = (image(&[("a", b"one")]), image(&[("a", b"two")]));
    push(&client(), &reference(server.address, "app:1"), &good).await;
    let bytes = other.bytes.to_vec();
    let proxy = Proxy::start(server.address, move |now, _| {
        if now.is(Method::GET, "manifests") { Fault::Answer(200, Vec::new(), bytes.clone()) } else { Fault::Pass }
    })
    .await;
    let by_digest = reference(proxy.address, "app").with_digest(good.digest());
    let error = client().fetch_manifest(&by_digest, 1 << 20).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::WrongContent { .. }), "{error:?}");
    let proxy = Proxy::start(server.address, |now, _| {
        let answer = Digest::of(b"another").to_string();
        if now.path == "/v2/" { Fault::Pass } else { Fault::Header("docker-content-digest", answer) }
    })
    .await;
    let name = reference(proxy.address, "app:2");
    let error = client().fetch_manifest(&reference(proxy.address, "app:1"), 1 << 20).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::WrongContent { .. }), "{error:?}");
    let error = client().put_manifest(&name, media_type::MANIFEST, good.bytes.clone()).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::DigestMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn bodies_are_bounded() {
    let server = Embedded::start().await;
    let proxy =
        Proxy::start(server.address, |now, _| if now.path == "/v2/" { Fault::Pass } else { Fault::Endless }).await;
    let name = reference(proxy.address, "app:1");
    let error = client().fetch_manifest(&name, 100_000).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::TooLarge { limit_bytes: 100_000 }), "{error:?}");
    let descriptor = Descriptor::new(media_type::LAYER, Digest::of(b"x"), 1000);
    let error = fetch(&client(), &name, &descriptor).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::WrongContent { .. }), "{error:?}");
}

#[tokio::test]
async fn upload_goes_on_where_the_connection_broke() {
    let server = Embedded::start().await;
    let blob = noise(4, 8_000_000);
    let descriptor = Descriptor::of(media_type::LAYER, &blob);
    // The first connection is the TLS probe.
    let relay =
        Relay::start(server.address, vec![(u64::MAX, u64::MAX), (3_000_000, u64::MAX), (3_000_000, u64::MAX)]).await;
    let name = reference(relay.address, "cut");
    let outcome = client().upload_blob(&name, &descriptor, blob.clone(), None, &NoProgress).await.unwrap();
    assert_eq!(outcome, UploadOutcome::Uploaded);
    let sent = relay.up.load(Ordering::SeqCst);
    assert!(relay.connections.load(Ordering::SeqCst) >= 4 && sent < 10_000_000, "{sent} bytes went up");
    assert_eq!(fetch(&client(), &reference(server.address, "cut"), &descriptor).await.unwrap(), blob);
}

#[tokio::test]
async fn download_goes_on_where_the_connection_broke() {
    let server = Embedded::start().await;
    let blob = noise(4, 8_000_000);
    let descriptor = Descriptor::of(media_type::LAYER, &blob);
    let direct = reference(server.address, "cut");
    client().upload_blob(&direct, &descriptor, blob.clone(), None, &NoProgress).await.unwrap();
    let cuts = [u64::MAX, 3_000_000, 100, 3_000_000].map(|cut| (u64::MAX, cut)).to_vec();
    let relay = Relay::start(server.address, cuts).await;
    assert_eq!(fetch(&client(), &reference(relay.address, "cut"), &descriptor).await.unwrap(), blob);
    // A registry without ranges gives everything again; what we have is passed over.
    let relay = Relay::start(server.address, vec![(u64::MAX, u64::MAX), (u64::MAX, 3_000_000)]).await;
    let proxy = Proxy::start(relay.address, |_, _| Fault::Pass).await;
    assert_eq!(fetch(&client(), &reference(proxy.address, "cut"), &descriptor).await.unwrap(), blob);
}

#[tokio::test]
async fn large_requests_are_cut_into_parts_where_a_proxy_wants_it() {
    let server = Embedded::start().await;
    let proxy = Proxy::start(server.address, |now, _| {
        let length = now.headers.get("content-length").map_or(0, |value| value.to_str().unwrap().parse().unwrap());
        if length > 1_000_000 { status(413) } else { Fault::Pass }
    })
    .await;
    let blob = noise(6, 3_500_000);
    let descriptor = Descriptor::of(media_type::LAYER, &blob);
    let client = Client::new(ClientOptions { chunk_bytes: 1_000_000, ..options() });
    let name = reference(proxy.address, "parts");
    client.upload_blob(&name, &descriptor, blob.clone(), None, &NoProgress).await.unwrap();
    assert_eq!(proxy.count(Method::PATCH, "uploads"), 4);
    assert_eq!(fetch(&client, &name, &descriptor).await.unwrap(), blob);
}

#[tokio::test]
async fn credentials_stay_with_their_host() {
    let server = Embedded::start().await;
    let image = image(&[("a", b"one")]);
    push(&client(), &reference(server.address, "app:1"), &image).await;
    let storage = Proxy::start(server.address, |_, _| Fault::Pass).await;
    let elsewhere = storage.address;
    let registry = Proxy::start(server.address, move |now, _| {
        if now.authorization().is_none() {
            Fault::Answer(401, vec![("www-authenticate", "Basic realm=\"x\"".into())], Vec::new())
        } else if now.path.contains("/blobs/") {
            Fault::Answer(307, vec![("location", format!("http://{elsewhere}{}", now.path))], Vec::new())
        } else {
            Fault::Pass
        }
    })
    .await;
    let name = reference(registry.address, "app:1");
    let credential = Credential::Password { user: "u".into(), password: "p".into() };
    let credentials = Credentials::anonymous().with(name.domain(), credential);
    let known = Client::new(ClientOptions { credentials, ..options() });
    check_pulled(&known, &name, &image).await;
    assert!(storage.count(Method::GET, "/blobs/") >= 2);
    assert!(storage.seen().iter().all(|seen| seen.authorization().is_none()), "{:?}", storage.seen());
    assert!(registry.seen().iter().any(|seen| seen.authorization() == Some("Basic dTpw")));
}

#[tokio::test]
async fn redirects_are_bounded_and_stay_with_http() {
    let server = Embedded::start().await;
    for target in ["/v2/app/manifests/1", "ftp://example.invalid/x", "file:///etc/passwd"] {
        let proxy = Proxy::start(server.address, move |now, _| {
            if now.path == "/v2/" {
                Fault::Pass
            } else {
                Fault::Answer(302, vec![("location", target.into())], Vec::new())
            }
        })
        .await;
        let error = client().fetch_manifest(&reference(proxy.address, "app:1"), 1000).await.unwrap_err();
        assert!(error.kind.to_string().contains("redirect"), "{error:?}");
        assert!(proxy.seen().len() < 12);
    }
}

/// A registry that wants tokens; `accept` says whether a token is (still) good.
async fn with_tokens(
    server: &Embedded,
    life_s: u64,
    accept: impl Fn(&str, usize) -> bool + Send + Sync + 'static,
) -> Proxy {
    let issued = AtomicUsize::new(0);
    Proxy::start(server.address, move |now, all| {
        if now.path.starts_with("/token") {
            if now.authorization() != Some("Basic dTpw") && now.method == Method::GET {
                return Fault::Answer(401, Vec::new(), br#"{"details":"wrong password"}"#.to_vec());
            }
            let number = issued.fetch_add(1, Ordering::SeqCst);
            let token = format!(r#"{{"token":"t{number}","expires_in":{life_s}}}"#);
            return Fault::Answer(200, Vec::new(), token.into_bytes());
        }
        let token = now.authorization().and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if token.is_empty() || !accept(token, all.len()) {
            let host = now.headers["host"].to_str().unwrap();
            let challenge =
                format!("Bearer realm=\"http://{host}/token\",service=\"test\",scope=\"repository:x:pull\"");
            return Fault::Answer(401, vec![("www-authenticate", challenge)], Vec::new());
        }
        Fault::Pass
    })
    .await
}

fn knowing(host: &str, credential: Credential) -> Client {
    Client::new(ClientOptions { credentials: Credentials::anonymous().with(host, credential), ..options() })
}

fn user(password: &str) -> Credential {
    Credential::Password { user: "u".into(), password: password.into() }
}

#[tokio::test]
async fn tokens_are_kept_for_their_scope_and_renewed() {
    let server = Embedded::start().await;
    let image = image(&[("a", b"one"), ("b", b"two"), ("c", b"three")]);
    let proxy = with_tokens(&server, 300, |_, _| true).await;
    let name = reference(proxy.address, "team/app:1");
    let known = knowing(name.domain(), user("p"));
    push(&known, &name, &image).await;
    check_pulled(&known, &name, &image).await;
    let tokens: Vec<_> = proxy.seen().into_iter().filter(|seen| seen.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 2, "{tokens:?}");
    assert_eq!(tokens[0].path, "/token?service=test&scope=repository%3Ateam%2Fapp%3Apull%2Cpush");
    assert_eq!(tokens[1].path, "/token?service=test&scope=repository%3Ateam%2Fapp%3Apull");
    known.check_login(name.domain(), "u", "p").await.unwrap();
    assert!(known.check_login(name.domain(), "u", "q").await.unwrap_err().is_auth());

    // One that lives for no time at all is asked for each time, and used.
    let proxy = with_tokens(&server, 0, |_, _| true).await;
    let name = reference(proxy.address, "team/app:1");
    check_pulled(&knowing(name.domain(), user("p")), &name, &image).await;
}

#[tokio::test]
async fn expired_token_is_renewed_once() {
    let server = Embedded::start().await;
    let image = image(&[("a", b"one")]);
    push(&client(), &reference(server.address, "app:1"), &image).await;
    // The first token is good for one request only.
    let used = AtomicUsize::new(0);
    let proxy =
        with_tokens(&server, 300, move |token, _| token != "t0" || used.fetch_add(1, Ordering::SeqCst) == 0).await;
    let name = reference(proxy.address, "app:1");
    check_pulled(&knowing(name.domain(), user("p")), &name, &image).await;
    assert_eq!(proxy.count(Method::GET, "/token"), 2);
}

#[tokio::test]
async fn refused_logins_are_told_apart() {
    let server = Embedded::start().await;
    let proxy = with_tokens(&server, 300, |_, _| true).await;
    let name = reference(proxy.address, "app:1");
    for client in [client(), knowing(name.domain(), user("wrong"))] {
        let error = client.resolve(&name).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Unauthorized { .. }), "{error:?}");
    }
    // An identity token goes as a form, not in a URL.
    let known = knowing(name.domain(), Credential::IdentityToken("refresh-me".into()));
    assert!(known.resolve(&name).await.unwrap_err().is_not_found());
    assert_eq!(proxy.count(Method::POST, "/token"), 1);
    assert!(proxy.seen().iter().all(|seen| !seen.path.contains("refresh-me")));
    let proxy = with_tokens(&server, 300, |_, _| false).await;
    let name = reference(proxy.address, "app:1");
    let error = knowing(name.domain(), user("p")).resolve(&name).await.unwrap_err();
    assert!(error.is_auth());
    assert!(proxy.seen().len() < 8, "{:?}", proxy.seen());
    let denies =
        Proxy::start(server.address, |now, _| if now.path == "/v2/" { Fault::Pass } else { status(403) }).await;
    let error = client().resolve(&reference(denies.address, "app:1")).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Denied { .. }) && error.is_auth());
}

#[tokio::test]
async fn absent_and_silent_registries_are_given_up() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let quick = Client::new(ClientOptions {
        connect_timeout: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(100),
        retries: 2,
        ..options()
    });
    let name = reference(address, "app:1");
    drop(listener);
    let error = quick.resolve(&name).await.unwrap_err();
    assert!(error.is_unreachable() && error.is_surroundings(), "{error:?}");

    // Accepts, then says nothing.
    let silent = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            open.push(connection);
        }
    });
    let error = quick.resolve(&reference(address, "app:1")).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    accepting.abort();
}

#[tokio::test]
async fn unresolvable_host_is_unreachable() {
    let name = "registry.invalid/app:1".parse().unwrap();
    let error = client().resolve(&name).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_break_off_or_fall_silent_are_gone_on_with() {
    let server = Embedded::start().await;
    let blob = noise(21, 3_000_000);
    let descriptor = Descriptor::of(media_type::LAYER, &blob);
    client()
        .upload_blob(&reference(server.address, "app"), &descriptor, blob.clone(), None, &NoProgress)
        .await
        .unwrap();
    // Long enough for what is not held back to arrive, however busy the machine is.
    let impatient = || Client::new(ClientOptions { idle_timeout: Duration::from_secs(2), ..options() });
    for is_silent in [false, true] {
        let script = move |now: &Seen, all: &[Seen]| match before(all, now) {
            _ if !now.path.contains("/blobs/") => Fault::Pass,
            number @ 0..3 if is_silent => Fault::Held(number * 400_000, std::sync::Arc::new(Semaphore::new(0))),
            number @ 0..3 => Fault::Cut(number * 400_000),
            _ => Fault::Pass,
        };
        let proxy = Proxy::start(server.address, script).await;
        assert_eq!(fetch(&impatient(), &reference(proxy.address, "app"), &descriptor).await.unwrap(), blob);
        let ranges: Vec<bool> = proxy
            .seen()
            .iter()
            .filter(|seen| seen.path.contains("/blobs/"))
            .map(|seen| seen.headers.contains_key("range"))
            .collect();
        assert_eq!(ranges, [false, false, true, true], "what came is not asked for again");
    }
}

#[tokio::test]
async fn an_upload_to_another_host_takes_no_credentials_along() {
    let server = Embedded::start().await;
    let storage = Proxy::start(server.address, |_, _| Fault::Pass).await;
    let elsewhere = storage.address;
    let registry = Proxy::start(server.address, move |now, _| {
        if now.authorization().is_none() {
            Fault::Answer(401, vec![("www-authenticate", "Basic realm=\"x\"".into())], Vec::new())
        } else if now.method == Method::POST {
            Fault::Redirected(elsewhere)
        } else {
            Fault::Pass
        }
    })
    .await;
    let name = reference(registry.address, "app");
    let known = knowing(name.domain(), user("p"));
    let blob = noise(22, 500_000);
    let descriptor = Descriptor::of(media_type::LAYER, &blob);
    let outcome = known.upload_blob(&name, &descriptor, blob, None, &NoProgress).await.unwrap();
    assert_eq!((outcome, storage.count(Method::PUT, "uploads")), (UploadOutcome::Uploaded, 1));
    assert!(storage.seen().iter().all(|seen| seen.authorization().is_none()));
}

#[tokio::test]
async fn a_token_that_ends_during_a_push_is_renewed_where_it_was() {
    let server = Embedded::start().await;
    let image = image(&[("a", &noise(23, 2_000_000)), ("b", &noise(24, 2_000_000)), ("c", b"three")]);
    // Each token is good for three requests.
    let uses = std::sync::Mutex::new(std::collections::HashMap::new());
    let accept = move |token: &str, _: usize| {
        let mut uses = uses.lock().unwrap();
        let used: &mut usize = uses.entry(token.to_owned()).or_default();
        *used += 1;
        *used <= 3
    };
    let proxy = with_tokens(&server, 300, accept).await;
    let name = reference(proxy.address, "app:1");
    let known = knowing(name.domain(), user("p"));
    push(&known, &name, &image).await;
    check_pulled(&known, &name, &image).await;
    assert!(proxy.count(Method::GET, "/token") >= 5);
}

#[tokio::test]
async fn a_registry_that_stored_something_else_is_not_believed() {
    let server = Embedded::start().await;
    let proxy = Proxy::start(server.address, |now, _| {
        if now.method == Method::PUT {
            Fault::Header("docker-content-digest", Digest::of(b"something else").to_string())
        } else {
            Fault::Pass
        }
    })
    .await;
    let blob = noise(25, 1000);
    let descriptor = Descriptor::of(media_type::LAYER, &blob);
    let name = reference(proxy.address, "app");
    let error = client().upload_blob(&name, &descriptor, blob, None, &NoProgress).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::DigestMismatch { .. }), "{error:?}");
}
