//! The pages, as a browser without scripts sees them; metrics and health as Prometheus and probes do.

use std::{collections::BTreeMap, time::Duration};

use fs_err as fs;
use oci::{Descriptor, Index, Manifest, Platform, media_type};
use registry::{AccessOptions, AccessRule, Action, ServerOptions, Webhook};
use reqwest::{StatusCode, header};

use crate::support::*;

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn page(server: &Embedded, path: &str) -> String {
    let response = http().get(server.url(path)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    assert!(response.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self'"), "{policy}");
    response.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_show_what_there_is_without_running_any_of_it() {
    let server = Embedded::start().await;
    let client = client();
    let mut image = image(&[("a", b"one"), ("b", &noise(1, 50_000))]);
    image.manifest.annotations = BTreeMap::from([("<b>key</b>".to_owned(), "<script>alert(1)</script>".to_owned())]);
    image.bytes = oci::to_json(&image.manifest).into();
    let name = reference(server.address, "team/app:1.0");
    push(&client, &name, &image).await;
    let platform: Platform = "linux/arm64".parse().unwrap();
    let child = Descriptor { platform: Some(platform), ..Descriptor::of(media_type::MANIFEST, &image.bytes) };
    let index = oci::to_json(&Index::of(vec![child]));
    client.put_manifest(&name.with_tag("all"), media_type::INDEX, index).await.unwrap();
    let empty = Descriptor::of(media_type::EMPTY, b"{}");
    client.upload_blob(&name, &empty, b"{}".to_vec(), None, &registry::NoProgress).await.unwrap();
    let mut signature = Manifest::image(empty, Vec::new());
    signature.artifact_type = Some("application/x.signature".into());
    signature.subject = Some(Descriptor::of(media_type::MANIFEST, &image.bytes));
    client.put_manifest(&name.with_tag("signature"), media_type::MANIFEST, oci::to_json(&signature)).await.unwrap();

    let text = page(&server, "/").await;
    assert!(text.contains("<a href=\"/ui/team/app\">team/app</a></td><td class=\"number\">3</td>"), "{text}");
    let text = page(&server, "/ui/team/app").await;
    assert!(text.contains("<a href=\"/ui/team/app:1.0\">1.0</a>") && text.contains("linux/arm64"), "{text}");
    let text = page(&server, "/ui/team/app:1.0").await;
    assert!(!text.contains("<script") && text.contains("&#60;script&#62;alert(1)&#60;/script&#62;"), "{text}");
    assert!(text.contains(&format!("docker pull {}/team/app:1.0", server.address)), "{text}");
    for (layer, _) in &image.blobs[..2] {
        assert!(text.contains(layer.digest.short()), "{text}");
    }
    assert!(text.contains("application/x.signature"), "{text}");
    let text = page(&server, "/ui/team/app:all").await;
    assert!(text.contains("linux/arm64") && text.contains(&format!("/ui/team/app@{}", image.digest())), "{text}");
    page(&server, &format!("/ui/team/app@{}", image.digest())).await;

    for path in ["/ui/team/none", "/ui/team/app:none", "/ui/team/app:%3Cx%3E"] {
        let response = http().get(server.url(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let evil = http().get(server.url("/ui/team/app:1.0")).header(header::HOST, "x\"><script>").send().await.unwrap();
    assert!(!evil.text().await.unwrap().contains("<script"));
    assert_eq!(http().post(server.url("/")).send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(
        http().get(server.url("/style.css")).send().await.unwrap().headers()["content-type"],
        "text/css; charset=utf-8"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tags_come_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let server = Embedded::on(directory.path()).await;
    let image = image(&[("a", b"one")]);
    push(&client(), &reference(server.address, "app:0"), &image).await;
    // Written as the server writes them: ten thousand requests would show nothing more.
    for number in 0..10_000 {
        let path = directory.path().join(format!("repositories/app/_tags/t{number:05}"));
        fs::write(path, image.digest().to_string()).unwrap();
    }
    let text = page(&server, "/ui/app").await;
    assert!(text.contains("10001 tags") && text.contains("t00098") && !text.contains("t00099"), "{text}");
    assert!(text.contains("/ui/app?last=t00098"), "{text}");
    let text = page(&server, "/ui/app?last=t09990").await;
    assert!(text.contains(":t09999\"") && !text.contains("Next page"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_show_what_their_reader_may_read() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users");
    // `secret`, as `htpasswd -B` writes it.
    fs::write(&users, "ada:$2b$04$nVV95ls4w7jkoDwOvtiNseZhPgIbXWD0mI2H/jgcmrkMUqdSfxN7e\n").unwrap();
    let server = Embedded::on(&directory.path().join("registry")).await;
    for name in ["open/app:1", "shut/app:1"] {
        push(&client(), &reference(server.address, name), &image(&[("a", b"one")])).await;
    }
    let place = server.directory.clone();
    server.stop().await;
    let rule = |text: &str, users: &[&str]| AccessRule {
        repositories: registry::Pattern::parse(text).unwrap(),
        users: users.iter().map(|&user| user.to_owned()).collect(),
        is_for_anyone: users.is_empty(),
        actions: [Action::Pull].into(),
    };
    let access = AccessOptions { rules: vec![rule("open/**", &[]), rule("**", &["ada"])], ..AccessOptions::new(users) };
    let hook = Webhook::new("ci", "http://127.0.0.1:9/".parse().unwrap());
    let options = ServerOptions { access: Some(access), webhooks: vec![hook], ..ServerOptions::default() };
    let server = Embedded::with(&place, options).await;
    let text = page(&server, "/").await;
    assert!(text.contains("open/app") && !text.contains("shut/app"), "{text}");
    let status = async |path: &str, user: Option<&str>| {
        let mut request = http().get(server.url(path));
        if let Some(user) = user {
            request = request.basic_auth(user, Some("secret"));
        }
        let response = request.send().await.unwrap();
        let challenge = response.headers().get(header::WWW_AUTHENTICATE).map(|it| it.to_str().unwrap().to_owned());
        (response.status().as_u16(), challenge.is_some_and(|it| it.starts_with("Basic ")))
    };
    assert_eq!(status("/ui/open/app:1", None).await, (200, false));
    assert_eq!(status("/ui/shut/app:1", None).await, (401, true));
    assert_eq!(status("/ui/shut/app:1", Some("ada")).await, (200, false));
    assert_eq!(status("/metrics", None).await, (401, true));
    assert_eq!(status("/metrics", Some("ada")).await, (200, false));
    assert_eq!(status("/ui/-/webhooks", None).await, (401, true));
    assert_eq!(status("/ui/-/webhooks", Some("ada")).await, (200, false));
    assert_eq!(status("/healthz", None).await, (200, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_webhooks_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}/hidden").parse().unwrap();
    let hook = Webhook { retry_wait: Duration::from_secs(3600), ..Webhook::new("ci", url) };
    let options = ServerOptions { webhooks: vec![hook], ..ServerOptions::default() };
    let server = Embedded::with(directory.path(), options).await;
    push(&client(), &reference(server.address, "app:1"), &image(&[("a", b"one")])).await;
    let text = page(&server, "/ui/-/webhooks").await;
    assert!(text.contains("push app:1") && text.contains("pending") && !text.contains("hidden"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_add_up() {
    let server = Embedded::start().await;
    let image = image(&[("a", &noise(7, 100_000))]);
    push(&client(), &reference(server.address, "app:1"), &image).await;
    check_pulled(&client(), &reference(server.address, "app:1"), &image).await;
    assert_eq!(http().get(server.url("/v2/app/manifests/none")).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let response = http().get(server.url("/metrics")).send().await.unwrap();
    assert!(response.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = response.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(&format!("seatrial_registry_{name} ")));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(value("requests_total{method=\"PUT\",route=\"manifest\",status=\"201\"}"), 1.0);
    assert_eq!(value("requests_total{method=\"GET\",route=\"manifest\",status=\"404\"}"), 1.0);
    assert_eq!(value("request_duration_seconds_count{method=\"PUT\",route=\"manifest\"}"), 1.0);
    let bytes: u64 = image.blobs.iter().map(|(blob, _)| blob.size).sum::<u64>() + image.bytes.len() as u64;
    assert_eq!(value("received_bytes_total"), bytes as f64);
    assert!(value("sent_bytes_total") >= bytes as f64);
    assert_eq!(value("repositories"), 1.0);
    assert_eq!(value("contents"), 3.0);
    assert_eq!(value("uploads"), 0.0);
    assert_eq!(http().get(server.url("/healthz")).send().await.unwrap().text().await.unwrap(), "ok\n");
}
