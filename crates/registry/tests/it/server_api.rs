//! The server's answers, request by request (distribution-spec 1.1).

use oci::{Descriptor, Digest, Manifest, media_type};
use reqwest::{Method, Response, StatusCode, header::HeaderMap};

use crate::support::*;

struct Api {
    server: Embedded,
    http: reqwest::Client,
}

impl Api {
    async fn start() -> Self {
        // Makes the TLS provider known, which every client needs.
        let server = Embedded::start().await;
        client().ping(&server.address.to_string()).await.unwrap();
        Self { server, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let url = if path.starts_with('/') { self.server.url(path) } else { path.to_owned() };
        let mut request = self.http.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn check(&self, method: Method, path: &str, status: u16, code: &str) -> HeaderMap {
        let response = self.send(method.clone(), path, &[], "").await;
        let (found, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        assert_eq!(found.as_u16(), status, "{method} {path}: {text}");
        if !code.is_empty() {
            let document: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(document["errors"][0]["code"], code, "{method} {path}");
        }
        assert_eq!(headers["docker-distribution-api-version"], "registry/2.0");
        headers
    }

    async fn begin(&self, repository: &str) -> String {
        let headers = self.check(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), 202, "").await;
        headers["location"].to_str().unwrap().to_owned()
    }

    async fn put_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let response = self.send(Method::POST, &path, &[], bytes.to_vec()).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.headers()["location"], format!("/v2/{repository}/blobs/{digest}"));
        digest
    }

    async fn put_manifest(&self, path: &str, bytes: Vec<u8>) -> Response {
        self.send(Method::PUT, path, &[("content-type", media_type::MANIFEST)], bytes).await
    }
}

#[tokio::test]
async fn errors_have_the_codes_of_the_specification() {
    let api = Api::start().await;
    let absent = Digest::of(b"absent");
    api.put_blob("a", b"x").await;
    let (get, put, delete) = (Method::GET, Method::PUT, Method::DELETE);
    api.check(get.clone(), "/v2/", 200, "").await;
    api.check(get.clone(), &format!("/v2/a/blobs/{absent}"), 404, "BLOB_UNKNOWN").await;
    api.check(get.clone(), "/v2/a/blobs/sha256:12", 400, "DIGEST_INVALID").await;
    api.check(get.clone(), "/v2/a/manifests/none", 404, "MANIFEST_UNKNOWN").await;
    api.check(get.clone(), "/v2/a/manifests/.INVALID", 404, "MANIFEST_UNKNOWN").await;
    api.check(get.clone(), &format!("/v2/a/manifests/{absent}"), 404, "MANIFEST_UNKNOWN").await;
    api.check(get.clone(), "/v2/none/tags/list", 404, "NAME_UNKNOWN").await;
    api.check(get.clone(), "/v2/A/tags/list", 400, "NAME_INVALID").await;
    api.check(get.clone(), "/v2/a/blobs/uploads/0123456789abcdef0123456789abcdef", 404, "BLOB_UPLOAD_UNKNOWN").await;
    api.check(get.clone(), "/v2/a/blobs/uploads/..%2f..%2flock", 404, "BLOB_UPLOAD_UNKNOWN").await;
    api.check(put.clone(), "/v2/a/manifests/x", 400, "MANIFEST_INVALID").await;
    api.check(put, "/v2/a/tags/list", 405, "UNSUPPORTED").await;
    api.check(delete.clone(), &format!("/v2/a/blobs/{absent}"), 404, "BLOB_UNKNOWN").await;
    api.check(delete, "/v2/a/manifests/none", 404, "MANIFEST_UNKNOWN").await;
    api.check(get, &format!("/v2/a/referrers/{absent}"), 200, "").await;
}

#[tokio::test]
async fn hostile_names_never_leave_the_directory() {
    let api = Api::start().await;
    let secret = api.server.directory.parent().unwrap().join("seatrial-registry-test-outside");
    for path in [
        "/v2/../../etc/passwd/manifests/x",
        "/v2/%2e%2e/%2e%2e/manifests/x",
        "/v2/a/manifests/..%2f..%2f..%2fx",
        "/v2/a/manifests/..",
        "/v2/a%00b/manifests/x",
        "/v2/_uploads/blobs/uploads/",
        "/v2/a/_tags/manifests/x",
    ] {
        // A URL library would resolve the dots: the request is written by hand.
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut connection = tokio::net::TcpStream::connect(api.server.address).await.unwrap();
        let request = format!("PUT {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 40"), "{path}: {answer}");
    }
    assert!(!secret.exists());
    let mut entries: Vec<_> =
        fs_err::read_dir(&api.server.directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    entries.sort();
    assert_eq!(entries, ["blobs", "control", "lock", "repositories", "tmp"]);
    assert_eq!(fs_err::read_dir(api.server.directory.join("repositories")).unwrap().count(), 0);
}

#[tokio::test]
async fn chunks_go_in_order_and_status_tells_how_far() {
    let api = Api::start().await;
    let location = api.begin("a").await;
    let patch = async |range: &str, body: &'static [u8]| {
        let headers = [("content-range", range), ("content-type", "application/octet-stream")];
        api.send(Method::PATCH, &location, &headers, body).await
    };
    let response = patch("5-9", b"56789").await;
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(response.headers()["range"], "0-0");
    let response = patch("0-4", b"01234").await;
    assert_eq!((response.status(), response.headers()["range"].to_str().unwrap()), (StatusCode::ACCEPTED, "0-4"));
    assert_eq!(patch("0-4", b"01234").await.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(patch("5-7", b"56789").await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(patch("x", b"5").await.status(), StatusCode::BAD_REQUEST);
    let status = api.check(Method::GET, &location, 204, "").await;
    assert_eq!((&status["range"], &status["location"]), (&"0-4".parse().unwrap(), &location.parse().unwrap()));
    // Docker's clients send no range.
    assert_eq!(api.send(Method::PATCH, &location, &[], "56789").await.status(), StatusCode::ACCEPTED);
    let digest = Digest::of(b"0123456789ab");
    let response =
        api.send(Method::PUT, &format!("{location}?digest={digest}"), &[("content-range", "10-11")], "ab").await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["docker-content-digest"], digest.to_string());
    api.check(Method::GET, &location, 404, "BLOB_UPLOAD_UNKNOWN").await;
    let response = api.send(Method::GET, &format!("/v2/a/blobs/{digest}"), &[("range", "bytes=3-5")], "").await;
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(response.headers()["content-range"], "bytes 3-5/12");
    assert_eq!(response.text().await.unwrap(), "345");
    let response = api.send(Method::GET, &format!("/v2/a/blobs/{digest}"), &[("range", "bytes=12-")], "").await;
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let response = api.send(Method::HEAD, &format!("/v2/a/blobs/{digest}"), &[], "").await;
    assert_eq!(response.headers()["content-length"], "12");
}

#[tokio::test]
async fn wrong_digest_is_refused_and_nothing_remains() {
    let api = Api::start().await;
    let location = api.begin("a").await;
    let digest = Digest::of(b"right");
    let response = api.send(Method::PUT, &format!("{location}?digest={digest}"), &[], "wrong").await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    api.check(Method::GET, &location, 404, "BLOB_UPLOAD_UNKNOWN").await;
    api.check(Method::GET, &format!("/v2/a/blobs/{digest}"), 404, "BLOB_UNKNOWN").await;
    assert_eq!(fs_err::read_dir(api.server.directory.join("blobs/sha256")).unwrap().count(), 0);
    let location = api.begin("a").await;
    api.check(Method::DELETE, &location, 204, "").await;
    api.check(Method::GET, &location, 404, "BLOB_UPLOAD_UNKNOWN").await;
}

#[tokio::test]
async fn upload_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = Embedded::on(directory.path()).await;
    client().ping(&server.address.to_string()).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = http.post(server.url("/v2/a/blobs/uploads/")).send().await.unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    http.patch(server.url(&location)).body("first ").send().await.unwrap();
    drop(http);
    server.stop().await;

    let server = Embedded::on(directory.path()).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let response = http.get(server.url(&location)).send().await.unwrap();
    assert_eq!(response.headers()["range"], "0-5");
    let digest = Digest::of(b"first second");
    let response = http.put(server.url(&format!("{location}?digest={digest}"))).body("second").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn one_directory_has_one_server() {
    let server = Embedded::start().await;
    let address = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let second = registry::Server::bind(address, &server.directory, registry::ServerOptions::default()).await;
    assert!(matches!(second, Err(registry::ServerError::Busy(_))));
}

#[tokio::test]
async fn manifests_are_checked_before_they_are_kept() {
    let api = Api::start().await;
    let config = Descriptor::of(media_type::CONFIG, b"{}");
    let manifest = oci::to_json(&Manifest::image(config.clone(), Vec::new()));
    let digest = Digest::of(&manifest);
    let response = api.put_manifest("/v2/a/manifests/x", manifest.clone()).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(response.text().await.unwrap().contains("MANIFEST_BLOB_UNKNOWN"));
    api.put_blob("a", b"{}").await;
    assert_eq!(api.put_manifest("/v2/a/manifests/x", manifest.clone()).await.status(), StatusCode::CREATED);
    let other = format!("/v2/a/manifests/{}", Digest::of(b"other"));
    assert_eq!(api.put_manifest(&other, manifest.clone()).await.status(), StatusCode::BAD_REQUEST);
    let docker = [("content-type", media_type::DOCKER_MANIFEST)];
    let response = api.send(Method::PUT, "/v2/a/manifests/y", &docker, manifest).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let response = api.put_manifest("/v2/a/manifests/y", vec![b' '; 5 * 1024 * 1024]).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    api.check(Method::DELETE, "/v2/a/manifests/x", 202, "").await;
    api.check(Method::GET, "/v2/a/manifests/x", 404, "MANIFEST_UNKNOWN").await;
    api.check(Method::GET, &format!("/v2/a/manifests/{digest}"), 200, "").await;
}

#[tokio::test]
async fn tags_and_names_come_in_pages() {
    let api = Api::start().await;
    let config = Descriptor::of(media_type::CONFIG, b"{}");
    let manifest = oci::to_json(&Manifest::image(config, Vec::new()));
    for name in ["a", "b/c"] {
        api.put_blob(name, b"{}").await;
        for tag in ["t1", "t3", "t2"] {
            api.put_manifest(&format!("/v2/{name}/manifests/{tag}"), manifest.clone()).await;
        }
    }
    let get = async |path: &str| {
        let response = api.send(Method::GET, path, &[], "").await;
        let link = response.headers().get("link").map(|value| value.to_str().unwrap().to_owned());
        (response.text().await.unwrap(), link)
    };
    let (text, link) = get("/v2/a/tags/list?n=2").await;
    assert_eq!(text, r#"{"name":"a","tags":["t1","t2"]}"#);
    assert_eq!(link.as_deref(), Some("</v2/a/tags/list?n=2&last=t2>; rel=\"next\""));
    assert_eq!(get("/v2/a/tags/list?n=2&last=t2").await, (r#"{"name":"a","tags":["t3"]}"#.into(), None));
    assert_eq!(get("/v2/a/tags/list?n=0").await, (r#"{"name":"a","tags":[]}"#.into(), None));
    assert_eq!(get("/v2/_catalog").await, (r#"{"repositories":["a","b/c"]}"#.into(), None));
    assert_eq!(get("/v2/_catalog?n=1").await.1.as_deref(), Some("</v2/_catalog?n=1&last=a>; rel=\"next\""));
    api.check(Method::GET, "/v2/a/tags/list?n=x", 400, "PAGINATION_NUMBER_INVALID").await;
    // Our client follows the pages of any registry; deleting by digest takes the tags along.
    assert_eq!(client().list_tags(&reference(api.server.address, "b/c")).await.unwrap(), ["t1", "t2", "t3"]);
    api.check(Method::DELETE, &format!("/v2/a/manifests/{}", Digest::of(&manifest)), 202, "").await;
    assert_eq!(get("/v2/a/tags/list").await.0, r#"{"name":"a","tags":[]}"#);
}

#[tokio::test]
async fn referrers_are_listed_and_filtered() {
    let api = Api::start().await;
    api.put_blob("a", b"{}").await;
    let config = Descriptor::of(media_type::EMPTY, b"{}");
    let subject = Descriptor::of(media_type::MANIFEST, b"pushed later");
    let mut digests = Vec::new();
    for kind in ["application/x.one", "application/x.two"] {
        let mut manifest = Manifest::image(config.clone(), Vec::new());
        manifest.artifact_type = Some(kind.into());
        manifest.subject = Some(subject.clone());
        manifest.annotations.insert("for".into(), kind.into());
        let bytes = oci::to_json(&manifest);
        digests.push(Digest::of(&bytes));
        let response = api.put_manifest(&format!("/v2/a/manifests/{}", Digest::of(&bytes)), bytes).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.headers()["oci-subject"], subject.digest.to_string());
    }
    let list = async |query: &str| {
        let response = api.send(Method::GET, &format!("/v2/a/referrers/{}{query}", subject.digest), &[], "").await;
        assert_eq!(response.headers()["content-type"], media_type::INDEX);
        let filtered = response.headers().contains_key("oci-filters-applied");
        let index: oci::Index = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        (index.manifests, filtered)
    };
    let (all, filtered) = list("").await;
    assert_eq!((all.len(), filtered), (2, false));
    let (some, filtered) = list("?artifactType=application/x.two").await;
    assert_eq!((some.len(), filtered), (1, true));
    assert_eq!(some[0].digest, digests[1]);
    assert_eq!(some[0].annotations["for"], "application/x.two");
    api.check(Method::DELETE, &format!("/v2/a/manifests/{}", digests[0]), 202, "").await;
    assert_eq!(list("").await.0.len(), 1);
}

#[tokio::test]
async fn mount_needs_a_source_that_has_the_blob() {
    let api = Api::start().await;
    let digest = api.put_blob("a", b"content").await;
    let post =
        async |query: String| api.send(Method::POST, &format!("/v2/b/blobs/uploads/?{query}"), &[], "").await.status();
    assert_eq!(post(format!("mount={digest}&from=none")).await, StatusCode::ACCEPTED);
    assert_eq!(post(format!("mount={digest}&from=../a")).await, StatusCode::ACCEPTED);
    assert_eq!(post(format!("mount={}", Digest::of(b"nowhere"))).await, StatusCode::ACCEPTED);
    api.check(Method::GET, &format!("/v2/b/blobs/{digest}"), 404, "BLOB_UNKNOWN").await;
    assert_eq!(post(format!("mount={digest}&from=a")).await, StatusCode::CREATED);
    // Without a source any repository will do, but the content alone is in none.
    let path = format!("/v2/c/blobs/uploads/?mount={digest}");
    assert_eq!(api.send(Method::POST, &path, &[], "").await.status(), StatusCode::CREATED);
    for name in ["a", "b", "c"] {
        api.check(Method::DELETE, &format!("/v2/{name}/blobs/{digest}"), 202, "").await;
    }
    assert_eq!(api.send(Method::POST, &path, &[], "").await.status(), StatusCode::ACCEPTED);
    for name in ["a", "b"] {
        api.put_blob(name, b"content").await;
    }
    // The content is there once; deleting it in one repository leaves it to the other.
    api.check(Method::DELETE, &format!("/v2/a/blobs/{digest}"), 202, "").await;
    api.check(Method::GET, &format!("/v2/a/blobs/{digest}"), 404, "BLOB_UNKNOWN").await;
    api.check(Method::GET, &format!("/v2/b/blobs/{digest}"), 200, "").await;
}
