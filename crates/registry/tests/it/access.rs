//! Logins, tokens, rules, limits and the audit log of the embedded server, as its clients meet them.

use std::{path::Path, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use fs_err as fs;
use oci::{Digest, media_type};
use registry::{
    AccessOptions, AccessRule, Action, AuditOptions, ChallengeKind, Client, ClientOptions, Credential, Credentials,
    ErrorKind, Limits, Notices, Pattern, Rate, ServerError, ServerOptions,
};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::*;

/// `secret`, as `htpasswd -B` writes it.
pub(crate) const SECRET: &str = "$2b$04$nVV95ls4w7jkoDwOvtiNseZhPgIbXWD0mI2H/jgcmrkMUqdSfxN7e";

pub(crate) fn rule(pattern: &str, users: &[&str], actions: &[Action]) -> AccessRule {
    AccessRule {
        repositories: Pattern::parse(pattern).unwrap(),
        users: users.iter().map(|&user| user.to_owned()).collect(),
        is_for_anyone: users.is_empty(),
        actions: actions.iter().copied().collect(),
    }
}

/// `ann` and `bob` have the password `secret`; `public` is anyone's to read, `team` is ann's, and bob's to read.
pub(crate) fn guarded(directory: &Path) -> ServerOptions {
    let users = directory.join("users");
    fs::write(&users, format!("ann:{SECRET}\nbob:{SECRET}\n")).unwrap();
    let rules = vec![
        rule("public/*", &[], &[Action::Pull]),
        rule("public/*", &["ann"], &[Action::Push]),
        rule("team/*", &["ann"], &Action::ALL),
        rule("team/*", &["bob"], &[Action::Pull]),
    ];
    ServerOptions { access: Some(AccessOptions { rules, ..AccessOptions::new(users) }), ..ServerOptions::default() }
}

fn user(server: &Embedded, name: &str, password: &str) -> Client {
    let credential = Credential::Password { user: name.into(), password: password.into() };
    let credentials = Credentials::anonymous().with(server.address.to_string(), credential);
    Client::new(ClientOptions { credentials, ..options() })
}

struct Guarded {
    server: Embedded,
    http: reqwest::Client,
    directory: tempfile::TempDir,
}

impl Guarded {
    async fn start(change: impl FnOnce(&mut ServerOptions, &Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = guarded(directory.path());
        change(&mut options, directory.path());
        let server = Embedded::with(&directory.path().join("data"), options).await;
        // Makes the TLS provider known, which every client needs.
        let _ = client().ping(&server.address.to_string()).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { server, http, directory }
    }

    async fn send(&self, method: Method, path: &str, authorization: &str) -> reqwest::Response {
        let mut request = self.http.request(method, self.server.url(path));
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        request.send().await.unwrap()
    }

    #[track_caller]
    fn check(
        &self,
        method: Method,
        path: &str,
        authorization: &str,
        expected: (u16, &'static str),
    ) -> impl Future<Output = reqwest::header::HeaderMap> {
        let place = std::panic::Location::caller();
        async move {
            let response = self.send(method, path, authorization).await;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let text = response.text().await.unwrap();
            let document: Value = serde_json::from_str(&text).unwrap_or_default();
            let code = document["errors"][0]["code"].as_str().unwrap_or_default();
            assert_eq!((status, code), expected, "{place}: {text}");
            headers
        }
    }

    /// A token by the way that docker asks for it.
    async fn token(&self, query: &str, authorization: &str) -> Value {
        let response = self.send(Method::GET, &format!("/token?{query}"), authorization).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["cache-control"], "no-store");
        serde_json::from_str(&response.text().await.unwrap()).unwrap()
    }

    async fn bearer(&self, query: &str, authorization: &str) -> String {
        format!("Bearer {}", self.token(query, authorization).await["token"].as_str().unwrap())
    }

    async fn form(&self, form: &str) -> (u16, Value) {
        let request = self.http.post(self.server.url("/token")).body(form.to_owned());
        let response = request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    /// An image in two repositories, put there by ann.
    async fn fill(&self) -> Fixture {
        let (ann, image) = (user(&self.server, "ann", "secret"), image(&[("a", b"one")]));
        for name in ["public/app:1", "team/app:1"] {
            push(&ann, &reference(self.server.address, name), &image).await;
        }
        image
    }
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

const UNAUTHORIZED: (u16, &str) = (401, "UNAUTHORIZED");
const DENIED: (u16, &str) = (403, "DENIED");
const OK: (u16, &str) = (200, "");

#[tokio::test]
async fn our_client_does_what_the_rules_give() {
    let guarded = Guarded::start(|_, _| {}).await;
    let (server, image) = (&guarded.server, guarded.fill().await);
    let (public, team) = (reference(server.address, "public/app:1"), reference(server.address, "team/app:1"));
    let (ann, bob, nobody) = (user(server, "ann", "secret"), user(server, "bob", "secret"), client());
    check_pulled(&nobody, &public, &image).await;
    check_pulled(&bob, &team, &image).await;
    let error = nobody.resolve(&team).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unauthorized { .. }), "{error:?}");
    for (client, name) in [(&bob, &team), (&bob, &public)] {
        let manifest = image.bytes.clone();
        let error = client.put_manifest(name, media_type::MANIFEST, manifest).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Denied { .. }), "{error:?}");
    }
    for (client, told) in [(user(server, "ann", "wrong"), "wrong user"), (user(server, "eve", "secret"), "wrong user")]
    {
        let error = client.resolve(&public).await.unwrap_err();
        assert!(matches!(&error.kind, ErrorKind::Unauthorized { message } if message.contains(told)), "{error:?}");
        assert!(client.ping(&server.address.to_string()).await.is_err());
    }
    assert!(bob.delete(&team).await.is_err());
    ann.delete(&team).await.unwrap();
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let guarded = Guarded::start(|_, _| {}).await;
    let image = guarded.fill().await;
    let get = Method::GET;
    let address = guarded.server.address;
    let headers = guarded.check(get.clone(), "/v2/", "", UNAUTHORIZED).await;
    let realm = format!("Bearer realm=\"http://{address}/token\",service=\"seatrial-registry\"");
    assert_eq!(headers["www-authenticate"], realm);
    assert_eq!(headers["docker-distribution-api-version"], "registry/2.0");
    let headers = guarded.check(Method::PUT, "/v2/team/app/manifests/1", "", UNAUTHORIZED).await;
    assert_eq!(headers["www-authenticate"], format!("{realm},scope=\"repository:team/app:pull,push\""));
    // Passwords are taken as they are, too.
    let (ann, bob) = (basic("ann", "secret"), basic("bob", "secret"));
    guarded.check(get.clone(), "/v2/", &ann, OK).await;
    guarded.check(get.clone(), "/v2/team/app/manifests/1", &bob, OK).await;
    guarded.check(Method::DELETE, "/v2/team/app/manifests/1", &bob, DENIED).await;
    for wrong in [basic("ann", "Secret"), basic("ann", ""), basic("", ""), "Basic !".into(), "Digest x".into()] {
        guarded.check(get.clone(), "/v2/public/app/manifests/1", &wrong, UNAUTHORIZED).await;
    }
    // A repository that is not there looks as one that may not be seen.
    let absent = Digest::of(b"absent");
    for name in ["team/app", "team/none", "other"] {
        for path in ["tags/list", "manifests/1", &format!("blobs/{absent}"), &format!("referrers/{}", image.digest())] {
            guarded.check(get.clone(), &format!("/v2/{name}/{path}"), "", UNAUTHORIZED).await;
        }
    }
    guarded.check(get.clone(), "/v2/other/tags/list", &bob, DENIED).await;
    guarded.check(get.clone(), "/v2/public/app/tags/list", "", OK).await;
    guarded.check(get, "/v2/public/none/tags/list", "", (404, "NAME_UNKNOWN")).await;
}

#[tokio::test]
async fn tokens_are_good_for_their_scopes() {
    let guarded = Guarded::start(|_, _| {}).await;
    guarded.fill().await;
    let (get, put) = (Method::GET, Method::PUT);
    let ann = basic("ann", "secret");
    let pull = guarded.bearer("service=seatrial-registry&scope=repository:team/app:pull", &ann).await;
    guarded.check(get.clone(), "/v2/", &pull, OK).await;
    guarded.check(get.clone(), "/v2/team/app/manifests/1", &pull, OK).await;
    let headers = guarded.check(put, "/v2/team/app/manifests/2", &pull, UNAUTHORIZED).await;
    assert!(headers["www-authenticate"].to_str().unwrap().ends_with(",error=\"insufficient_scope\""), "{headers:?}");
    guarded.check(get.clone(), "/v2/team/other/tags/list", &pull, UNAUTHORIZED).await;
    // Whoever asks for more than is theirs gets what is theirs.
    let scopes =
        "scope=repository:team/app:pull,push,delete&scope=repository:public/app:* repository:other:pull nonsense";
    let given = |document: Value| document["scope"].as_str().unwrap().to_owned();
    let bob = basic("bob", "secret");
    assert_eq!(given(guarded.token(scopes, &bob).await), "repository:team/app:pull repository:public/app:pull");
    let anns = "repository:team/app:pull,push,delete repository:public/app:pull,push";
    assert_eq!(given(guarded.token(scopes, &ann).await), anns);
    assert_eq!(given(guarded.token(scopes, "").await), "repository:public/app:pull");
    guarded.check(get.clone(), "/token", &basic("ann", "wrong"), UNAUTHORIZED).await;
    guarded.check(get.clone(), "/token?service=other", &ann, (400, "UNSUPPORTED")).await;
    guarded.check(Method::DELETE, "/token", &ann, (405, "UNSUPPORTED")).await;
    for forged in ["Bearer x", "Bearer a.b.c", "Bearer "] {
        let headers = guarded.check(get.clone(), "/v2/public/app/tags/list", forged, UNAUTHORIZED).await;
        let challenge = headers["www-authenticate"].to_str().unwrap().to_owned();
        assert!(challenge.contains("invalid_token") || forged == "Bearer ", "{challenge}");
    }
}

#[tokio::test]
async fn refresh_tokens_stand_for_a_password_until_it_changes() {
    let guarded = Guarded::start(|_, _| {}).await;
    guarded.fill().await;
    let ann = basic("ann", "secret");
    assert!(guarded.token("", &ann).await.get("refresh_token").is_none());
    assert!(guarded.token("offline_token=true", "").await.get("refresh_token").is_none());
    let login = guarded.token("account=ann&client_id=docker&offline_token=true", &ann).await;
    let refresh = login["refresh_token"].as_str().unwrap().to_owned();
    let (status, document) =
        guarded.form("grant_type=password&username=ann&password=secret&access_type=offline&client_id=x").await;
    assert_eq!(status, 200, "{document}");
    assert!(document["refresh_token"].is_string());

    let credentials =
        Credentials::anonymous().with(guarded.server.address.to_string(), Credential::IdentityToken(refresh.clone()));
    let identified = || Client::new(ClientOptions { credentials: credentials.clone(), ..options() });
    let (name, image) = (reference(guarded.server.address, "team/other:1"), image(&[("b", b"two")]));
    push(&identified(), &name, &image).await;
    check_pulled(&identified(), &name, &image).await;
    // It is no token to come in with, and an access token gives no other.
    guarded.check(Method::GET, "/v2/team/app/tags/list", &format!("Bearer {refresh}"), UNAUTHORIZED).await;
    let access = login["token"].as_str().unwrap();
    let asked = |token: &str| format!("grant_type=refresh_token&refresh_token={token}&scope=repository:team/app:pull");
    assert_eq!(guarded.form(&asked(access)).await.0, 401);
    assert_eq!(guarded.form(&asked(&refresh)).await.0, 200);
    assert_eq!(guarded.form("grant_type=password&username=ann&password=wrong").await.0, 401);
    assert_eq!(guarded.form("grant_type=other").await.0, 400);

    // Another password ends them all, also those given out; bob's stay.
    let bob = guarded.bearer("scope=repository:team/app:pull", &basic("bob", "secret")).await;
    let old = guarded.bearer("scope=repository:team/app:pull", &ann).await;
    guarded.check(Method::GET, "/v2/team/app/tags/list", &old, OK).await;
    let hash = bcrypt::hash("other", 4).unwrap();
    fs::write(guarded.directory.path().join("users"), format!("ann:{hash}\nbob:{SECRET}\n")).unwrap();
    guarded.check(Method::GET, "/v2/team/app/tags/list", &old, UNAUTHORIZED).await;
    guarded.check(Method::GET, "/v2/team/app/tags/list", &ann, UNAUTHORIZED).await;
    guarded.check(Method::GET, "/v2/team/app/tags/list", &basic("ann", "other"), OK).await;
    guarded.check(Method::GET, "/v2/team/app/tags/list", &bob, OK).await;
    let (status, document) = guarded.form(&asked(&refresh)).await;
    assert_eq!((status, document["errors"][0]["code"].as_str().unwrap()), UNAUTHORIZED);
    assert!(identified().resolve(&name).await.is_err());
    // And who is gone is gone.
    fs::write(guarded.directory.path().join("users"), format!("ann:{hash}\n")).unwrap();
    guarded.check(Method::GET, "/v2/team/app/tags/list", &bob, UNAUTHORIZED).await;
}

#[tokio::test]
async fn a_push_goes_on_when_its_token_ends_under_way() {
    let guarded = Guarded::start(|_, _| {}).await;
    let (ann, image) = (user(&guarded.server, "ann", "secret"), image(&[("a", &noise(1, 400_000)), ("b", b"two")]));
    let name = reference(guarded.server.address, "team/app:1");
    let (first, rest) = image.blobs.split_first().unwrap();
    let upload = async |(descriptor, bytes): &(oci::Descriptor, bytes::Bytes)| {
        ann.upload_blob(&name, descriptor, bytes.clone(), None, &registry::NoProgress).await.unwrap();
    };
    upload(first).await;
    // The same password, stored anew: each token that was given is void, and a new one is to be had.
    let void = || {
        let hash = bcrypt::hash("secret", 4).unwrap();
        fs::write(guarded.directory.path().join("users"), format!("ann:{hash}\n")).unwrap();
    };
    void();
    for blob in rest {
        upload(blob).await;
        void();
    }
    ann.put_manifest(&name, media_type::MANIFEST, image.bytes.clone()).await.unwrap();
    void();
    check_pulled(&ann, &name, &image).await;
}

#[tokio::test]
async fn tokens_expire() {
    let guarded = Guarded::start(|options, _| {
        options.access.as_mut().unwrap().token_life = Duration::from_secs(1);
    })
    .await;
    guarded.fill().await;
    let token = guarded.bearer("scope=repository:team/app:pull", &basic("bob", "secret")).await;
    let begun = std::time::Instant::now();
    loop {
        let response = guarded.send(Method::GET, "/v2/team/app/tags/list", &token).await;
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
            assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
            assert!(response.text().await.unwrap().contains("expired"));
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it does not expire");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn lists_and_mounts_show_what_may_be_read() {
    let guarded = Guarded::start(|_, _| {}).await;
    let image = guarded.fill().await;
    let repositories = async |authorization: &str| {
        let response = guarded.send(Method::GET, "/v2/_catalog", authorization).await;
        let document: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        document["repositories"]
            .as_array()
            .map(|names| names.iter().map(|it| it.as_str().unwrap().to_owned()).collect())
    };
    let all = Some(vec!["public/app".to_owned(), "team/app".to_owned()]);
    let public = Some(vec!["public/app".to_owned()]);
    assert_eq!(repositories("").await, public);
    assert_eq!(repositories(&basic("bob", "secret")).await, all);
    let catalog = guarded.bearer("scope=registry:catalog:*", &basic("bob", "secret")).await;
    assert_eq!(repositories(&catalog).await, all);
    let nobody = guarded.bearer("scope=registry:catalog:*", "").await;
    assert_eq!(repositories(&nobody).await, public);
    let other = guarded.bearer("scope=repository:team/app:pull", &basic("bob", "secret")).await;
    assert_eq!(repositories(&other).await, None::<Vec<String>>);

    // carl may push to his own, and may read nothing of the team's.
    let digest = &image.blobs[0].0.digest;
    let users = guarded.directory.path().join("users");
    fs::write(&users, format!("ann:{SECRET}\nbob:{SECRET}\n")).unwrap();
    let mount = |from: &str| format!("/v2/public/new/blobs/uploads/?mount={digest}&from={from}");
    let ann = basic("ann", "secret");
    guarded.check(Method::POST, &mount("team/app"), &ann, (201, "")).await;
    let scoped = guarded.bearer("scope=repository:public/new:pull,push", &ann).await;
    // The token is not for reading the source: as if it had nothing.
    let other = mount("team/app").replace("public/new", "public/third");
    let scoped_third = guarded.bearer("scope=repository:public/third:pull,push", &ann).await;
    guarded.check(Method::POST, &other, &scoped_third, (202, "")).await;
    let without_source = other.split("&from").next().unwrap().to_owned();
    guarded.check(Method::POST, &without_source, &scoped_third, (202, "")).await;
    let both = "scope=repository:public/third:pull,push&scope=repository:team/app:pull";
    guarded.check(Method::POST, &other, &guarded.bearer(both, &ann).await, (201, "")).await;
    guarded.check(Method::POST, &mount("team/app"), "", UNAUTHORIZED).await;
    guarded.check(Method::POST, &mount("team/app"), &basic("bob", "secret"), DENIED).await;
    drop(scoped);
}

#[tokio::test]
async fn a_registry_without_anonymous_pull_says_so_at_once() {
    let guarded = Guarded::start(|options, _| {
        let access = options.access.as_mut().unwrap();
        access.rules.retain(|rule| !rule.is_for_anyone);
        access.service = "my-registry".into();
        access.realm = Some("https://registry.example/token".into());
    })
    .await;
    let headers = guarded.check(Method::GET, "/token", "", UNAUTHORIZED).await;
    assert!(headers["www-authenticate"].to_str().unwrap().starts_with("Basic realm=\"my-registry\""));
    let headers = guarded.check(Method::GET, "/v2/_catalog", "", UNAUTHORIZED).await;
    assert_eq!(
        headers["www-authenticate"],
        "Bearer realm=\"https://registry.example/token\",service=\"my-registry\",scope=\"registry:catalog:*\""
    );
}

#[tokio::test]
async fn basic_can_be_what_is_asked_for() {
    let guarded = Guarded::start(|options, _| {
        let access = options.access.as_mut().unwrap();
        access.rules.retain(|rule| !rule.is_for_anyone);
        access.challenge = ChallengeKind::Basic;
    })
    .await;
    let headers = guarded.check(Method::GET, "/v2/", "", UNAUTHORIZED).await;
    assert_eq!(headers["www-authenticate"], "Basic realm=\"seatrial-registry\",charset=\"UTF-8\"");
    let (name, image) = (reference(guarded.server.address, "team/app:1"), image(&[("a", b"one")]));
    let ann = user(&guarded.server, "ann", "secret");
    push(&ann, &name, &image).await;
    check_pulled(&user(&guarded.server, "bob", "secret"), &name, &image).await;
}

#[tokio::test]
async fn who_asks_too_often_waits() {
    let guarded = Guarded::start(|options, _| {
        let rate = |text| Some(Rate::parse(text).unwrap());
        options.limits = Limits { per_address: rate("12/h"), per_user: rate("3/h"), ..Limits::default() };
    })
    .await;
    let (get, bob) = (Method::GET, basic("bob", "secret"));
    const SLOWER: (u16, &str) = (429, "TOOMANYREQUESTS");
    for _ in 0..3 {
        guarded.check(get.clone(), "/v2/", &bob, OK).await;
    }
    let headers = guarded.check(get.clone(), "/v2/", &bob, SLOWER).await;
    let wait: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=1200).contains(&wait), "{wait}");
    guarded.check(get.clone(), "/v2/", &basic("ann", "secret"), OK).await;
    let mut last = OK;
    for _ in 0..12 {
        let response = guarded.send(get.clone(), "/v2/public/app/tags/list", "").await;
        last = (response.status().as_u16(), "");
    }
    assert_eq!(last.0, 429);
    guarded.check(get, "/token", "", SLOWER).await;
}

#[tokio::test]
async fn wrong_passwords_are_limited_and_right_ones_cannot_be_told_from_them_then() {
    let guarded = Guarded::start(|options, _| {
        options.limits.failed_logins = Rate::parse("3/h").unwrap();
    })
    .await;
    let get = Method::GET;
    guarded.check(get.clone(), "/v2/", &basic("ann", "secret"), OK).await;
    let token = guarded.bearer("", &basic("ann", "secret")).await;
    for number in 0..3 {
        guarded.check(get.clone(), "/v2/", &basic("ann", &number.to_string()), UNAUTHORIZED).await;
    }
    for password in ["3", "secret"] {
        let refused = guarded.check(get.clone(), "/token", &basic("ann", password), (429, "TOOMANYREQUESTS")).await;
        assert!(refused.contains_key("retry-after"));
    }
    // Others are not locked out by it, and neither is who has a token.
    guarded.check(get.clone(), "/v2/", &basic("bob", "secret"), OK).await;
    guarded.check(get, "/v2/", &token, OK).await;
}

#[tokio::test]
async fn the_audit_log_tells_who_did_what_and_no_secrets() {
    let guarded = Guarded::start(|options, directory| {
        options.audit = Some(AuditOptions { path: directory.join("audit.log"), bytes_max: None, keep: 0 });
        options.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    let image = guarded.fill().await;
    let bob = guarded.bearer("scope=repository:team/app:pull", &basic("bob", "secret")).await;
    guarded.check(Method::GET, "/v2/team/app/manifests/1", &bob, OK).await;
    guarded.check(Method::DELETE, "/v2/team/app/manifests/1", &bob, DENIED).await;
    guarded.check(Method::GET, "/v2/", &basic("ann", "hunter2"), UNAUTHORIZED).await;
    guarded.check(Method::GET, "/v2/", &basic("hunter3", "x"), UNAUTHORIZED).await;
    let mount = format!("/v2/public/new/blobs/uploads/?mount={}&from=team/app", image.blobs[0].0.digest);
    guarded.check(Method::POST, &mount, &basic("ann", "secret"), (201, "")).await;
    let request = guarded.http.get(guarded.server.url("/v2/public/app/tags/list"));
    // A proxy may write a line of its own.
    let request = request.header("x-forwarded-for", "1.2.3.4").header("x-forwarded-for", "10.0.0.7, 127.0.0.1");
    request.send().await.unwrap();
    let path = guarded.directory.path().join("audit.log");
    // All is written when the server has ended.
    guarded.server.stop().await;
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |action: &str, status: u64| {
        let found: Vec<_> = lines.iter().filter(|it| it["action"] == action && it["status"] == status).collect();
        assert!(!found.is_empty(), "{action} {status}\n{text}");
        found
    };
    let pushed = find("push", 201);
    assert!(pushed.iter().any(|it| it["repository"] == "team/app"
        && it["reference"] == "1"
        && it["digest"] == image.digest().to_string()
        && it["user"] == "ann"
        && it["result"] == "ok"
        && it["address"] == "127.0.0.1"));
    assert!(pushed.iter().any(|it| it["digest"] == image.blobs[0].0.digest.to_string()));
    let pulled = find("pull", 200);
    assert!(pulled.iter().any(|it| it["user"] == "bob" && it["digest"] == image.digest().to_string()));
    let refused = find("delete", 403);
    assert_eq!((&refused[0]["user"], &refused[0]["result"]), (&"bob".into(), &"DENIED".into()));
    let failed = find("login", 401);
    assert_eq!(failed.len(), 2);
    assert_eq!((&failed[0]["user"], &failed[1]["user"]), (&"ann".into(), &Value::Null));
    assert_eq!(find("mount", 201)[0]["repository"], "public/new");
    // What the client itself wrote about its address is not believed.
    assert_eq!(find("list", 200)[0]["address"], "10.0.0.7");
    for secret in ["hunter", "secret", "eyJ", "Bearer"] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
}

#[tokio::test]
async fn a_server_that_would_leak_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let bind = async |address: &str, options| {
        registry::Server::bind(address.parse().unwrap(), directory.path().join("data"), options).await
    };
    let error = bind("0.0.0.0:0", guarded(directory.path())).await.unwrap_err();
    assert!(matches!(error, ServerError::Plain(_)), "{error}");
    let plain = ServerOptions { is_plain_allowed: true, ..guarded(directory.path()) };
    bind("0.0.0.0:0", plain).await.unwrap();
    let store = store::Store::open(&directory.path().join("store"), store::StoreOptions::default()).unwrap();
    let shared = ServerOptions { store: Some(store), ..guarded(directory.path()) };
    let error = bind("127.0.0.1:0", shared.clone()).await.unwrap_err();
    assert!(matches!(error, ServerError::StoreLeaks), "{error}");
    let mut alike = shared;
    alike.access.as_mut().unwrap().rules = vec![rule("**", &["ann"], &Action::ALL)];
    bind("127.0.0.1:0", alike).await.unwrap();
    let mut unknown = guarded(directory.path());
    let heard = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let ear = std::sync::Arc::clone(&heard);
    unknown.notices = Notices::to(move |text| ear.lock().unwrap().push_str(text));
    unknown.access.as_mut().unwrap().rules.push(rule("x", &["anne"], &[Action::Pull]));
    bind("127.0.0.1:0", unknown).await.unwrap();
    assert!(heard.lock().unwrap().contains("`anne`"));
    fs::write(directory.path().join("users"), "ann:secret\n").unwrap();
    let plain =
        ServerOptions { access: Some(AccessOptions::new(directory.path().join("users"))), ..Default::default() };
    let error = bind("127.0.0.1:0", plain).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("users:1: user `ann`: this is no bcrypt hash; only bcrypt is taken, as `htpasswd -B` makes it"),
        "{error}"
    );
}
