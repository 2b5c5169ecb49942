//! npm tarballs, to a registry that checks each document, and by `npm install` back where npm is installed.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State as Shared},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use packages::State;
use serde_json::{Value, json};

use crate::support::{login, look, publish, tar_gz, words};

const WORD: &str = "npm_0123456789";

#[derive(Default)]
struct Kept {
    documents: BTreeMap<String, Value>,
    tarballs: BTreeMap<String, Vec<u8>>,
}

type Registry = Arc<Mutex<Kept>>;

async fn document(Shared(kept): Shared<Registry>, Path(name): Path<String>) -> Response {
    match kept.lock().unwrap().documents.get(&name) {
        Some(document) => Json(document.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Takes what follows the protocol to the letter, as npm's own registry does.
async fn put(Shared(kept): Shared<Registry>, Path(name): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let refused = |status: StatusCode, error: &str| (status, Json(json!({ "error": error }))).into_response();
    if headers.get("authorization").is_none_or(|value| value != &format!("Bearer {WORD}")) {
        return refused(StatusCode::UNAUTHORIZED, "You must be logged in to publish packages");
    }
    let Ok(mut document) = serde_json::from_slice::<Value>(&body) else {
        return refused(StatusCode::BAD_REQUEST, "no JSON");
    };
    let attachments = document["_attachments"].take();
    let (file, attached) = attachments.as_object().and_then(|map| map.iter().next()).expect("an attachment");
    let data = BASE64_STANDARD.decode(attached["data"].as_str().unwrap()).expect("base64");
    let (version, manifest) = document["versions"].as_object().and_then(|map| map.iter().next()).expect("a version");
    assert_eq!(attached["length"], data.len());
    assert_eq!(file, &format!("{name}-{version}.tgz"));
    assert_eq!((&document["_id"], &document["name"]), (&json!(name), &json!(name)));
    assert_eq!(manifest["_id"], format!("{name}@{version}"));
    let digest = |algorithm| ring::digest::digest(algorithm, &data);
    let integrity = format!("sha512-{}", BASE64_STANDARD.encode(digest(&ring::digest::SHA512)));
    assert_eq!(manifest["dist"]["integrity"], integrity);
    assert_eq!(manifest["dist"]["shasum"], hex::encode(digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY)));
    let mut kept = kept.lock().unwrap();
    if kept.documents.get(&name).is_some_and(|known| known["versions"].get(version).is_some()) {
        return refused(StatusCode::FORBIDDEN, "You cannot publish over the previously published versions");
    }
    let tarball = manifest["dist"]["tarball"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    kept.tarballs.insert(tarball, data);
    match kept.documents.get_mut(&name) {
        None => drop(kept.documents.insert(name, document)),
        Some(known) => {
            for part in ["versions", "dist-tags"] {
                let more = document[part].as_object().unwrap().clone();
                known[part].as_object_mut().unwrap().extend(more);
            }
        }
    }
    Json(json!({ "ok": true })).into_response()
}

async fn tarball(Shared(kept): Shared<Registry>, Path((_, _, file)): Path<(String, String, String)>) -> Response {
    kept.lock()
        .unwrap()
        .tarballs
        .get(&file)
        .cloned()
        .map_or(StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tarball_goes_to_a_registry_of_npm_and_comes_back() {
    let kept = Registry::default();
    let router = Router::new()
        .route("/npm/{name}", get(document).put(put))
        .route(
            "/npm/{scope}/{name}/-/{file}",
            get(|state, Path((_, name, file)): Path<(String, String, String)>| {
                tarball(state, Path((String::new(), name, file)))
            }),
        )
        .with_state(Arc::clone(&kept));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/npm", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let directory = tempfile::tempdir().unwrap();
    let pack = |version: &str, text: &str| {
        let package =
            json!({ "name": "@team/number", "version": version, "main": "index.js", "description": "numbers" });
        let files = [("package/package.json", package.to_string()), ("package/index.js", text.to_owned())];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        tar_gz(&directory.path().join(format!("team-number-{version}.tgz")), &files)
    };
    let (target, good, wrong) = (format!("npm:{url}"), login(None, WORD), login(None, "npm_wrong"));
    let file = pack("1.10.0", "module.exports = 42\n");
    assert_eq!(look(&target, None, &file).await.unwrap(), State::Absent);
    let error = publish(&target, Some(&wrong), &file).await.expect_err("another token is asked for");
    assert!(error.is_auth() && words(&error).contains("You must be logged in"), "{}", words(&error));
    assert_eq!(publish(&target, Some(&good), &file).await.unwrap(), State::Sent);
    assert_eq!(publish(&target, Some(&good), &file).await.unwrap(), State::WasThere);
    publish(&target, Some(&good), &pack("1.9.1", "")).await.unwrap();
    publish(&target, Some(&good), &pack("2.0.0-rc.1", "")).await.unwrap();
    let error =
        publish(&target, Some(&good), &pack("1.10.0", "module.exports = 43\n")).await.expect_err("other content");
    assert!(error.is_taken(), "{}", words(&error));
    let tags = kept.lock().unwrap().documents["@team/number"]["dist-tags"].clone();
    assert_eq!(tags, json!({ "latest": "1.10.0", "release-1.9": "1.9.1", "next": "2.0.0-rc.1" }));

    let project = directory.path().join("project");
    fs_err::create_dir(&project).unwrap();
    fs_err::write(project.join("package.json"), "{}").unwrap();
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--silent", "@team/number", "--registry", &url]);
    npm.arg("--cache").arg(directory.path().join("cache")).current_dir(&project);
    match tokio::task::spawn_blocking(move || npm.status()).await.unwrap() {
        Ok(status) => {
            assert!(status.success());
            let installed = project.join("node_modules/@team/number/index.js");
            assert_eq!(fs_err::read_to_string(installed).unwrap(), "module.exports = 42\n");
        }
        Err(_) => testkit::skip("npm is not installed: nothing was installed from the registry"),
    }
    server.abort();
}
