//! The distribution specification 1.1, requirement by requirement. Each test names its section; together they ask what the
//! specification's own conformance suite asks (its workflows Pull, Push, Content Discovery and Content Management), and what
//! of MUST and SHOULD it does not ask. Requests are bare: no client of ours stands in between.

use oci::{Descriptor, Digest, Index, Manifest, media_type};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

/// A registry and what one request to it gave.
struct Bare {
    server: Embedded,
    http: reqwest::Client,
}

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Vec<u8>,
    request: String,
}

impl Bare {
    async fn start() -> Self {
        let server = Embedded::start().await;
        client().ping(&server.address.to_string()).await.unwrap();
        Self { server, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
        let mut request = self.http.request(method.clone(), self.server.url(path)).body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap().to_vec();
        Answer { status, headers, body, request: format!("{method} {path}") }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], "").await
    }

    async fn head(&self, path: &str) -> Answer {
        self.ask(Method::HEAD, path, &[], "").await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, &[], "").await
    }

    /// Opens an upload and gives its location.
    async fn upload(&self, name: &str) -> String {
        let path = format!("/v2/{name}/blobs/uploads/");
        let answer = self.ask(Method::POST, &path, &[("content-length", "0")], "").await.is(202);
        answer.header("location").to_owned()
    }

    async fn blob(&self, name: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        let location = self.upload(name).await;
        self.ask(Method::PUT, &with_digest(&location, &digest), &OCTETS, bytes).await.is(201);
        Descriptor::of(media_type::LAYER_GZIP, bytes)
    }

    async fn put(&self, path: &str, kind: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.ask(Method::PUT, path, &[("content-type", kind)], body).await
    }

    /// Pushes an image with one layer.
    async fn image(&self, name: &str, reference: &str, text: &str) -> Vec<u8> {
        let mut config = self.blob(name, b"{}").await;
        config.media_type = media_type::CONFIG.into();
        let layer = self.blob(name, text.as_bytes()).await;
        let manifest = oci::to_json(&Manifest::image(config, vec![layer]));
        self.put(&format!("/v2/{name}/manifests/{reference}"), media_type::MANIFEST, manifest.clone()).await.is(201);
        manifest
    }
}

const OCTETS: [(&str, &str); 1] = [("content-type", "application/octet-stream")];

fn with_digest(location: &str, digest: &Digest) -> String {
    let sign = if location.contains('?') { '&' } else { '?' };
    format!("{location}{sign}digest={digest}")
}

impl Answer {
    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.request, String::from_utf8_lossy(&self.body));
        self
    }

    /// Refused with this code, in the specification's form ("Error Codes").
    #[track_caller]
    fn refused(self, status: u16, code: &str) -> Self {
        let answer = self.is(status);
        let document = answer.json();
        assert_eq!(document["errors"][0]["code"], code, "{}", answer.request);
        let codes = document["errors"].as_array().unwrap();
        assert!(
            codes.iter().all(|it| it["code"].as_str().unwrap().bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        );
        assert!(codes.iter().all(|it| it["message"].is_string()));
        answer
    }

    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{}: no `{name}`", self.request)).to_str().unwrap()
    }

    #[track_caller]
    fn has(self, name: &str, value: impl ToString) -> Self {
        assert_eq!(self.header(name), value.to_string(), "{}: {name}", self.request);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

// ---- "Determining Support" (end-1)

#[tokio::test]
async fn support_is_told() {
    let bare = Bare::start().await;
    bare.get("/v2/").await.is(200).has("docker-distribution-api-version", "registry/2.0");
    bare.head("/v2/").await.is(200);
}

// ---- "Pull" (end-2, end-3)

#[tokio::test]
async fn manifests_are_pulled_as_they_were_pushed() {
    let bare = Bare::start().await;
    let manifest = bare.image("a/b-c__d.e", "Tag_1.x-y", "layer").await;
    let digest = Digest::of(&manifest);
    for reference in ["Tag_1.x-y", &digest.to_string()] {
        let path = format!("/v2/a/b-c__d.e/manifests/{reference}");
        let whole = bare.get(&path).await.is(200).has("content-type", media_type::MANIFEST);
        assert_eq!(whole.body, manifest);
        let head = bare.head(&path).await.is(200).has("content-type", media_type::MANIFEST);
        for answer in [whole, head] {
            answer.has("docker-content-digest", &digest).has("content-length", manifest.len());
        }
    }
    // A client may ask for what it understands; what it gets is what there is.
    let accept = [("accept", media_type::INDEX)];
    let path = format!("/v2/a/b-c__d.e/manifests/{digest}");
    bare.ask(Method::GET, &path, &accept, "").await.is(200).has("content-type", media_type::MANIFEST);
}

#[tokio::test]
async fn what_is_absent_is_not_found() {
    let bare = Bare::start().await;
    let absent = Digest::of(b"absent");
    for name in ["nothing", "some"] {
        for reference in ["absent", ".INVALID_MANIFEST_NAME", &absent.to_string()] {
            bare.get(&format!("/v2/{name}/manifests/{reference}")).await.refused(404, "MANIFEST_UNKNOWN");
            bare.head(&format!("/v2/{name}/manifests/{reference}")).await.is(404);
        }
        bare.get(&format!("/v2/{name}/blobs/{absent}")).await.refused(404, "BLOB_UNKNOWN");
        bare.head(&format!("/v2/{name}/blobs/{absent}")).await.is(404);
        bare.image("some", "there", "layer").await;
    }
    bare.get("/v2/some/manifests/sha256:baddigeststring").await.refused(400, "DIGEST_INVALID");
    bare.get("/v2/some/blobs/sha256:baddigeststring").await.refused(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn blobs_are_pulled_whole_and_in_parts() {
    let bare = Bare::start().await;
    let bytes = noise(1, 2048);
    let blob = bare.blob("a", &bytes).await;
    let path = format!("/v2/a/blobs/{}", blob.digest);
    for answer in [bare.get(&path).await, bare.head(&path).await] {
        let is_head = answer.request.starts_with("HEAD");
        let answer = answer.is(200).has("docker-content-digest", &blob.digest).has("content-length", 2048);
        assert_eq!(answer.body, if is_head { &[][..] } else { &bytes });
    }
    for (range, expected) in [
        ("bytes=500-1499", Some(500..1500)),
        ("bytes=500-", Some(500..2048)),
        ("bytes=-500", Some(1548..2048)),
        ("bytes=2000-5000", Some(2000..2048)),
        ("bytes=500-0", None),
        ("bytes=5000-10000", None),
    ] {
        let answer = bare.ask(Method::GET, &path, &[("range", range)], "").await;
        let Some(part) = expected else {
            answer.is(416).has("content-range", "bytes */2048");
            continue;
        };
        let told = format!("bytes {}-{}/2048", part.start, part.end - 1);
        let answer = answer.is(206).has("content-range", told).has("content-length", part.len());
        assert_eq!(answer.body, &bytes[part], "{range}");
    }
    // Of something else, the whole (RFC 9110, 13.1.5).
    let other = format!("\"{}\"", Digest::of(b"other"));
    bare.ask(Method::GET, &path, &[("range", "bytes=0-1"), ("if-range", &other)], "").await.is(200);
    let same = format!("\"{}\"", blob.digest);
    bare.ask(Method::GET, &path, &[("range", "bytes=0-1"), ("if-range", &same)], "").await.is(206);
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let bare = Bare::start().await;
    let manifest = bare.image("a", "t", "layer").await;
    let layer = Digest::of(b"layer");
    for (path, digest) in
        [("/v2/a/manifests/t".to_owned(), Digest::of(&manifest)), (format!("/v2/a/blobs/{layer}"), layer.clone())]
    {
        let tag = bare.get(&path).await.is(200).header("etag").to_owned();
        assert_eq!(tag, format!("\"{digest}\""));
        let answer = bare.ask(Method::GET, &path, &[("if-none-match", &tag)], "").await.is(304);
        assert!(answer.body.is_empty());
        bare.ask(Method::GET, &path, &[("if-none-match", "\"other\"")], "").await.is(200);
    }
}

// ---- "Push": blobs (end-4a, end-4b, end-5, end-6, end-11, end-13, end-14)

#[tokio::test]
async fn blobs_are_pushed_in_every_way() {
    let bare = Bare::start().await;
    let bytes = noise(2, 40_000).to_vec();
    let digest = Digest::of(&bytes);
    // A wrong digest first: nothing of it may remain. Then the right one.
    for wrong in [true, false] {
        let digest = if wrong { Digest::of(b"something else") } else { digest.clone() };
        for way in ["post", "post and put", "stream", "chunks", "chunks and put"] {
            let answer = match way {
                "post" => {
                    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
                    bare.ask(Method::POST, &path, &OCTETS, bytes.clone()).await
                }
                "post and put" => {
                    let location = bare.upload("a").await;
                    bare.ask(Method::PUT, &with_digest(&location, &digest), &OCTETS, bytes.clone()).await
                }
                "stream" => {
                    let location = bare.upload("a").await;
                    let answer = bare.ask(Method::PATCH, &location, &OCTETS, bytes.clone()).await.is(202);
                    let location = answer.header("location").to_owned();
                    bare.ask(Method::PUT, &with_digest(&location, &digest), &[], "").await
                }
                _ => {
                    let mut location = bare.upload("a").await;
                    let parts: Vec<&[u8]> = bytes.chunks(13_400).collect();
                    let patched = if way == "chunks" { 3 } else { 2 };
                    let mut first = 0;
                    for part in &parts[..patched] {
                        let last = first + part.len() - 1;
                        let range = format!("{first}-{last}");
                        let headers = [OCTETS[0], ("content-range", range.as_str())];
                        let answer = bare.ask(Method::PATCH, &location, &headers, *part).await.is(202);
                        location = answer.has("range", format!("0-{last}")).header("location").to_owned();
                        first = last + 1;
                    }
                    let path = with_digest(&location, &digest);
                    let range = format!("{first}-{}", bytes.len() - 1);
                    match parts.get(patched) {
                        None => bare.ask(Method::PUT, &path, &[], "").await,
                        Some(part) => {
                            let headers = [OCTETS[0], ("content-range", range.as_str())];
                            bare.ask(Method::PUT, &path, &headers, *part).await
                        }
                    }
                }
            };
            let path = format!("/v2/a/blobs/{digest}");
            if wrong {
                answer.refused(400, "DIGEST_INVALID");
                bare.head(&path).await.is(404);
                continue;
            }
            let location = answer.is(201).has("docker-content-digest", &digest).header("location").to_owned();
            assert_eq!(bare.get(&location).await.is(200).body, bytes, "{way}");
            bare.delete(&path).await.is(202);
            bare.head(&path).await.is(404);
            bare.delete(&path).await.refused(404, "BLOB_UNKNOWN");
        }
    }
}

#[tokio::test]
async fn empty_and_well_known_blobs_are_blobs() {
    let bare = Bare::start().await;
    for bytes in [&b""[..], b"{}"] {
        let blob = bare.blob("a", bytes).await;
        let path = format!("/v2/a/blobs/{}", blob.digest);
        assert_eq!(bare.get(&path).await.is(200).has("content-length", bytes.len()).body, bytes);
        bare.head(&path).await.is(200).has("content-length", bytes.len());
    }
}

#[tokio::test]
async fn chunks_out_of_order_are_refused_and_the_upload_goes_on() {
    let bare = Bare::start().await;
    let bytes = b"0123456789ab";
    let location = bare.upload("a").await;
    let patch = async |method: Method, path: &str, range: &str, part: &[u8]| {
        bare.ask(method, path, &[OCTETS[0], ("content-range", range)], part).await
    };
    patch(Method::PATCH, &location, "4-7", &bytes[4..8]).await.is(416);
    let location = bare.get(&location).await.is(204).header("location").to_owned();
    patch(Method::PATCH, &location, "0-3", &bytes[..4]).await.is(202).has("range", "0-3");
    for range in ["0-3", "5-8", "8-11"] {
        let refused = patch(Method::PATCH, &location, range, &bytes[..4]).await.is(416);
        refused.has("range", "0-3").has("location", &location);
        bare.get(&location).await.is(204).has("range", "0-3").has("location", &location);
    }
    patch(Method::PUT, &with_digest(&location, &Digest::of(bytes)), "8-11", &bytes[8..]).await.is(416);
    patch(Method::PATCH, &location, "4-7", &bytes[4..8]).await.is(202).has("range", "0-7");
    patch(Method::PUT, &with_digest(&location, &Digest::of(bytes)), "8-11", &bytes[8..]).await.is(201);
    for (range, part) in [("a-b", "x"), ("3-1", "x"), ("0", "x"), ("0-5", "x")] {
        let location = bare.upload("a").await;
        patch(Method::PATCH, &location, range, part.as_bytes()).await.is(400);
    }
}

#[tokio::test]
async fn an_upload_is_its_repositorys_and_can_be_cancelled() {
    let bare = Bare::start().await;
    let location = bare.upload("a").await;
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    bare.get(&elsewhere).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    bare.ask(Method::PATCH, &elsewhere, &OCTETS, "x").await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    bare.ask(Method::PUT, &location, &OCTETS, "x").await.refused(400, "DIGEST_INVALID");
    bare.ask(Method::DELETE, &location, &[("content-length", "0")], "").await.is(204);
    bare.get(&location).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    bare.ask(Method::PATCH, &location, &OCTETS, "x").await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    bare.delete(&location).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn blobs_are_mounted_or_an_upload_begins() {
    let bare = Bare::start().await;
    let blob = bare.blob("from/here", b"shared").await;
    let mount = async |query: &str| bare.ask(Method::POST, &format!("/v2/to/blobs/uploads/?{query}"), &[], "").await;
    let missing = format!("mount={}&from=from/here", Digest::of(b"missing"));
    let location = mount(&missing).await.is(202).header("location").to_owned();
    bare.ask(Method::PUT, &with_digest(&location, &Digest::of(b"missing")), &OCTETS, "missing").await.is(201);
    for query in [format!("mount={}&from=from/here", blob.digest), format!("mount={}", blob.digest)] {
        let location = mount(&query).await.is(201).header("location").to_owned();
        assert_eq!(bare.get(&location).await.is(200).body, b"shared");
        bare.delete(&location).await.is(202);
    }
}

// ---- "Push": manifests (end-7)

#[tokio::test]
async fn manifests_of_every_kind_are_taken() {
    let bare = Bare::start().await;
    let layer = bare.blob("a", b"layer").await;
    let empty = Descriptor { media_type: media_type::EMPTY.into(), ..bare.blob("a", b"{}").await };
    let config = Descriptor { media_type: media_type::CONFIG.into(), ..empty.clone() };
    let image = |layers: Vec<Descriptor>| serde_json::to_value(Manifest::image(config.clone(), layers)).unwrap();
    let with = |mut document: Value, field: &str, value: Value| {
        document[field] = value;
        document
    };
    let foreign = json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "size": 123_456,
        "digest": Digest::of(b"elsewhere"), "urls": ["https://store.example.com/blob"],
    });
    let large: serde_json::Map<String, Value> =
        (0..390).map(|number| (format!("large-annotation-{number}"), "A".repeat(10_000).into())).collect();
    let artifact = with(image(vec![layer.clone()]), "artifactType", "application/vnd.example.x".into());
    let mut data = image(vec![layer.clone()]);
    data["layers"][0]["data"] = "bGF5ZXI=".into();
    for (what, document) in [
        ("image", image(vec![layer.clone()])),
        ("no layers", image(Vec::new())),
        ("large", with(image(vec![layer.clone()]), "annotations", large.into())),
        ("artifact", with(artifact.clone(), "config", serde_json::to_value(&empty).unwrap())),
        ("data", data),
        ("unknown fields", with(image(vec![layer.clone()]), "org.example.custom", json!({ "x": [1] }))),
        ("foreign layers", with(image(Vec::new()), "layers", json!([foreign, layer]))),
        ("no media type", {
            let mut document = image(vec![layer.clone()]);
            document.as_object_mut().unwrap().remove("mediaType");
            document
        }),
    ] {
        let bytes = serde_json::to_vec_pretty(&document).unwrap();
        let digest = Digest::of(&bytes);
        for reference in ["kinds".to_owned(), digest.to_string()] {
            let answer = bare.put(&format!("/v2/a/manifests/{reference}"), media_type::MANIFEST, bytes.clone()).await;
            let answer = answer.is(201).has("docker-content-digest", &digest);
            let location = answer.header("location").to_owned();
            assert_eq!(
                bare.get(&location).await.is(200).has("content-type", media_type::MANIFEST).body,
                bytes,
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn indexes_hold_manifests_and_indexes() {
    let bare = Bare::start().await;
    let put = async |index: &Index| {
        let bytes = oci::to_json(index);
        let path = format!("/v2/a/manifests/{}", Digest::of(&bytes));
        let answer = bare.put(&path, media_type::INDEX, bytes.clone()).await;
        (answer, Descriptor::of(media_type::INDEX, &bytes))
    };
    let mut children = Vec::new();
    for text in ["one", "two"] {
        let bytes = bare.image("a", text, text).await;
        children.push(Descriptor::of(media_type::MANIFEST, &bytes));
    }
    let (answer, inner) = put(&Index::of(children)).await;
    answer.is(201);
    put(&Index::of(vec![inner])).await.0.is(201);
    put(&Index::of(Vec::new())).await.0.is(201);
    let absent = Descriptor::of(media_type::MANIFEST, b"absent");
    put(&Index::of(vec![absent])).await.0.refused(404, "MANIFEST_BLOB_UNKNOWN");
    // Docker's own types are the same documents.
    let config = Descriptor { media_type: media_type::DOCKER_CONFIG.into(), ..bare.blob("a", b"{}").await };
    let mut docker = Manifest::image(config, Vec::new());
    docker.media_type = Some(media_type::DOCKER_MANIFEST.into());
    let bytes = oci::to_json(&docker);
    bare.put("/v2/a/manifests/docker", media_type::DOCKER_MANIFEST, bytes).await.is(201);
    bare.get("/v2/a/manifests/docker").await.is(200).has("content-type", media_type::DOCKER_MANIFEST);
}

#[tokio::test]
async fn bad_manifests_are_refused() {
    let bare = Bare::start().await;
    let good = bare.image("a", "good", "layer").await;
    let put = async |reference: &str, kind: &str, body: &[u8]| {
        bare.put(&format!("/v2/a/manifests/{reference}"), kind, body).await
    };
    put("sha256:baddigeststring", media_type::MANIFEST, &good).await.refused(400, "DIGEST_INVALID");
    put(&Digest::of(b"other").to_string(), media_type::MANIFEST, &good).await.refused(400, "DIGEST_INVALID");
    put(".bad", media_type::MANIFEST, &good).await.refused(400, "MANIFEST_INVALID");
    put("t", media_type::MANIFEST, b"blablabla").await.refused(400, "MANIFEST_INVALID");
    put("t", media_type::INDEX, &good).await.refused(400, "MANIFEST_INVALID");
    // Parameters of a media type are ignored ("Pushing Manifests").
    put("t", &format!("{}; charset=utf-8", media_type::MANIFEST), &good).await.is(201);
    bare.get("/v2/a/manifests/t").await.is(200).has("content-type", media_type::MANIFEST);
    let absent = Manifest::image(Descriptor::of(media_type::CONFIG, b"absent"), Vec::new());
    put("t", media_type::MANIFEST, &oci::to_json(&absent)).await.refused(404, "MANIFEST_BLOB_UNKNOWN");
    // Blobs of another repository are not here.
    bare.put("/v2/b/manifests/t", media_type::MANIFEST, good.clone()).await.refused(404, "MANIFEST_BLOB_UNKNOWN");
    // 4 MiB are taken, more are not.
    let mut padded = good.clone();
    padded.resize(4 << 20, b' ');
    put("t", media_type::MANIFEST, &padded).await.is(201);
    padded.push(b' ');
    put("t", media_type::MANIFEST, &padded).await.refused(413, "SIZE_INVALID");
    // Another algorithm is told apart from rubbish of ours.
    let other = format!("sha512:{}", "a".repeat(128));
    let answer = bare.get(&format!("/v2/a/blobs/{other}")).await.refused(400, "DIGEST_INVALID");
    assert!(answer.json()["errors"][0]["message"].as_str().unwrap().contains("sha256"));
    let location = bare.upload("a").await;
    bare.ask(Method::PUT, &format!("{location}?digest={other}"), &OCTETS, "x").await.refused(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn names_follow_the_grammar() {
    let bare = Bare::start().await;
    for name in ["A", "a//b", "-a", "a-", "a..b", "a___b", "a/_b", &"a".repeat(256)] {
        bare.get(&format!("/v2/{name}/tags/list")).await.refused(400, "NAME_INVALID");
    }
    for name in ["a", "a/b/c", "0.x", "a__b", "a---b", "manifests/blobs/tags/list"] {
        bare.image(name, "t", "layer").await;
        bare.get(&format!("/v2/{name}/tags/list")).await.is(200);
    }
    let long = "t".repeat(128);
    bare.image("a", &long, "layer").await;
    let path = format!("/v2/a/manifests/{long}t");
    bare.put(&path, media_type::MANIFEST, "{}").await.refused(400, "MANIFEST_INVALID");
}

// ---- "Pushing Manifests with Subject", "Listing Referrers" (end-12a, end-12b)

#[tokio::test]
async fn referrers_are_listed_whole_filtered_and_in_pages() {
    let bare = Bare::start().await;
    let empty = Descriptor { media_type: media_type::EMPTY.into(), ..bare.blob("a", b"{}").await };
    // The subject comes later, or never.
    let subject = Descriptor::of(media_type::MANIFEST, b"absent");
    let path = format!("/v2/a/referrers/{}", subject.digest);
    let index = bare.get(&path).await.is(200).has("content-type", media_type::INDEX).json();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(media_type::INDEX)));
    assert_eq!(index["manifests"], json!([]));
    bare.get(&format!("/v2/never/referrers/{}", subject.digest)).await.is(200);
    bare.get("/v2/a/referrers/sha256:bad").await.refused(400, "DIGEST_INVALID");

    let push = async |document: Value, kind: &str| {
        let bytes = oci::to_json(&document);
        let digest = Digest::of(&bytes);
        let answer = bare.put(&format!("/v2/a/manifests/{digest}"), kind, bytes.clone()).await.is(201);
        answer.has("oci-subject", &subject.digest);
        Descriptor::of(kind, &bytes)
    };
    let mut manifest = Manifest::image(empty.clone(), Vec::new());
    manifest.subject = Some(subject.clone());
    manifest.annotations.insert("a".into(), "b".into());
    let by_config = push(serde_json::to_value(&manifest).unwrap(), media_type::MANIFEST).await;
    manifest.artifact_type = Some("application/x.one".into());
    let typed = push(serde_json::to_value(&manifest).unwrap(), media_type::MANIFEST).await;
    let mut index = Index::of(Vec::new());
    index.subject = Some(subject.clone());
    let listed = push(serde_json::to_value(&index).unwrap(), media_type::INDEX).await;
    let list = async |query: &str| {
        let answer = bare.get(&format!("{path}{query}")).await.is(200);
        let index: Index = serde_json::from_slice(&answer.body).unwrap();
        (answer, index.manifests)
    };
    let (answer, all) = list("").await;
    assert_eq!(all.len(), 3);
    assert!(!answer.headers.contains_key("oci-filters-applied"));
    let of = |wanted: &Descriptor| all.iter().find(|it| it.digest == wanted.digest).unwrap();
    assert_eq!(of(&by_config).artifact_type.as_deref(), Some(media_type::EMPTY));
    assert_eq!(of(&by_config).annotations["a"], "b");
    assert_eq!(of(&typed).artifact_type.as_deref(), Some("application/x.one"));
    assert_eq!(of(&listed).artifact_type, None);
    assert_eq!((of(&listed).size, of(&listed).media_type.as_str()), (listed.size, media_type::INDEX));
    let (answer, some) = list("?artifactType=application/x.one").await;
    answer.has("oci-filters-applied", "artifactType");
    assert_eq!(some.iter().map(|it| &it.digest).collect::<Vec<_>>(), [&typed.digest]);

    // Page by page, nothing is missed and nothing comes twice, also when something is pushed meanwhile.
    let (mut seen, mut query) = (Vec::new(), "?n=1".to_owned());
    loop {
        let (answer, page) = list(&query).await;
        seen.extend(page.into_iter().map(|it| it.digest));
        let Some(link) = answer.headers.get("link") else { break };
        let link = link.to_str().unwrap().strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
        query = link.strip_prefix(&path).unwrap().to_owned();
    }
    let mut expected: Vec<Digest> = all.iter().map(|it| it.digest.clone()).collect();
    expected.sort();
    assert_eq!(seen, expected);
    bare.delete(&format!("/v2/a/manifests/{}", typed.digest)).await.is(202);
    assert_eq!(list("").await.1.len(), 2);
}

// ---- "Content Discovery": tags (end-8a, end-8b)

#[tokio::test]
async fn tags_are_listed_sorted_and_in_pages() {
    let bare = Bare::start().await;
    bare.get("/v2/never/tags/list").await.refused(404, "NAME_UNKNOWN");
    let manifest = bare.image("a", "test0", "layer").await;
    for tag in ["B", "test2", "a", "test1"] {
        bare.put(&format!("/v2/a/manifests/{tag}"), media_type::MANIFEST, manifest.clone()).await.is(201);
    }
    let all = ["B", "a", "test0", "test1", "test2"];
    assert_eq!(bare.get("/v2/a/tags/list").await.is(200).json(), json!({ "name": "a", "tags": all }));
    let list = async |query: &str| {
        let answer = bare.get(&format!("/v2/a/tags/list?{query}")).await.is(200);
        let link = answer.headers.get("link").map(|link| link.to_str().unwrap().to_owned());
        (answer.json()["tags"].clone(), link)
    };
    assert_eq!(list("n=0").await, (json!([]), None));
    assert_eq!(list("n=5").await, (json!(all), None));
    assert_eq!(list("last=a").await, (json!(all[2..]), None));
    assert_eq!(list("last=test00").await, (json!(all[3..]), None));
    let (page, link) = list("n=2&last=B").await;
    assert_eq!(page, json!(all[1..3]));
    assert_eq!(link.unwrap(), "</v2/a/tags/list?n=2&last=test0>; rel=\"next\"");
    bare.get("/v2/a/tags/list?n=-1").await.refused(400, "PAGINATION_NUMBER_INVALID");
}

// ---- "Content Management" (end-9, end-10)

#[tokio::test]
async fn tags_and_manifests_are_deleted() {
    let bare = Bare::start().await;
    let manifest = bare.image("a", "one", "layer").await;
    bare.put("/v2/a/manifests/two", media_type::MANIFEST, manifest.clone()).await.is(201);
    let by_digest = format!("/v2/a/manifests/{}", Digest::of(&manifest));
    bare.delete("/v2/a/manifests/one").await.is(202);
    bare.get("/v2/a/manifests/one").await.is(404);
    bare.get("/v2/a/manifests/two").await.is(200);
    bare.delete(&by_digest).await.is(202);
    for path in ["/v2/a/manifests/two", &by_digest] {
        bare.get(path).await.refused(404, "MANIFEST_UNKNOWN");
        bare.delete(path).await.refused(404, "MANIFEST_UNKNOWN");
    }
    bare.delete("/v2/never/manifests/one").await.is(404);
    // Pushed again it is there again.
    bare.put("/v2/a/manifests/one", media_type::MANIFEST, manifest).await.is(201);
    bare.get(&by_digest).await.is(200);
}
