//! Crates that `cargo package` made, to a registry that checks each frame, and by `cargo fetch` back.

use std::{
    path::{Path as FilePath, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State as Shared},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use oci::Digest;
use packages::State;
use serde_json::{Value, json};

use crate::support::{login, look, publish, words};

const WORD: &str = "cio0123456789";

#[derive(Default)]
struct Kept {
    lines: Vec<String>,
    content: Vec<u8>,
    metadata: Value,
}

type Registry = Arc<Mutex<Kept>>;

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.env_remove("CARGO_TARGET_DIR");
    cargo
}

/// A crate as cargo packs it.
fn pack(directory: &FilePath, text: &str) -> PathBuf {
    fs_err::create_dir_all(directory.join("src")).unwrap();
    fs_err::write(directory.join("src/lib.rs"), text).unwrap();
    fs_err::write(directory.join("README.md"), "Numbers.\n").unwrap();
    let manifest = "[package]\nname = \"Number_api\"\nversion = \"1.2.3\"\nedition = \"2021\"\ndescription = \"Numbers\"\n\
                    license = \"MIT\"\nreadme = \"README.md\"\n[features]\nmore = []\n[workspace]\n";
    fs_err::write(directory.join("Cargo.toml"), manifest).unwrap();
    let mut cargo = cargo();
    cargo.args(["package", "--quiet", "--offline", "--no-verify", "--allow-dirty"]).current_dir(directory);
    assert!(cargo.status().unwrap().success());
    directory.join("target/package/Number_api-1.2.3.crate")
}

/// Takes a frame as crates.io does: two lengths, little-endian, and what they measure.
async fn new(Shared(kept): Shared<Registry>, headers: HeaderMap, body: Bytes) -> Response {
    if headers.get("authorization").is_none_or(|value| value != WORD) {
        let errors = json!({ "errors": [{ "detail": "must be logged in" }] });
        return (StatusCode::FORBIDDEN, Json(errors)).into_response();
    }
    let length = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap()) as usize;
    let metadata_end = 4 + length(0);
    let metadata: Value = serde_json::from_slice(&body[4..metadata_end]).unwrap();
    let content = &body[metadata_end + 4..];
    assert_eq!(content.len(), length(metadata_end), "nothing follows the crate");
    let mut kept = kept.lock().unwrap();
    let line = json!({
        "name": metadata["name"], "vers": metadata["vers"], "deps": [], "features": metadata["features"],
        "cksum": Digest::of(content).hex(), "yanked": false,
    });
    kept.lines.push(line.to_string());
    kept.content = content.to_vec();
    kept.metadata = metadata;
    Json(json!({ "warnings": { "invalid_categories": [], "invalid_badges": [], "other": [] } })).into_response()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crate_goes_to_a_registry_of_cargo_and_comes_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let kept = Registry::default();
    let config = json!({ "dl": format!("{url}/dl"), "api": url });
    let line = |Shared(kept): Shared<Registry>, Path((one, two, name)): Path<(String, String, String)>| async move {
        let lines = kept.lock().unwrap().lines.join("\n");
        let is_it = (one.as_str(), two.as_str(), name.as_str()) == ("nu", "mb", "number_api") && !lines.is_empty();
        if is_it { lines.into_response() } else { StatusCode::NOT_FOUND.into_response() }
    };
    let router = Router::new()
        .route("/index/config.json", get(move || async move { Json(config) }))
        .route("/index/{one}/{two}/{name}", get(line))
        .route("/api/v1/crates/new", put(new))
        .route(
            "/dl/{name}/{version}/download",
            get(|Shared(kept): Shared<Registry>| async move { kept.lock().unwrap().content.clone() }),
        )
        .with_state(Arc::clone(&kept));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let directory = tempfile::tempdir().unwrap();
    let file = pack(&directory.path().join("number"), "pub const NUMBER: u32 = 42;\n");
    let (target, good) = (format!("crates:sparse+{url}/index/"), login(None, WORD));
    assert_eq!(look(&target, Some(&good), &file).await.unwrap(), State::Absent);
    let error = publish(&target, None, &file).await.expect_err("a token is asked for");
    assert!(error.is_auth() && words(&error).contains("must be logged in"), "{}", words(&error));
    assert_eq!(publish(&target, Some(&good), &file).await.unwrap(), State::Sent);
    assert_eq!(publish(&target, Some(&good), &file).await.unwrap(), State::WasThere);
    let other = pack(&directory.path().join("other"), "pub const NUMBER: u32 = 43;\n");
    let error = publish(&target, Some(&good), &other).await.expect_err("other content");
    assert!(
        error.is_taken() && words(&error).contains(Digest::of(&fs_err::read(&file).unwrap()).hex()),
        "{}",
        words(&error)
    );
    {
        let kept = kept.lock().unwrap();
        let told = |key: &str| kept.metadata[key].clone();
        assert_eq!([told("name"), told("vers"), told("readme_file")], ["Number_api", "1.2.3", "README.md"]);
        assert_eq!((told("readme"), told("features")), (json!("Numbers.\n"), json!({ "more": [] })));
    }

    let user = directory.path().join("user");
    fs_err::create_dir_all(user.join("src")).unwrap();
    fs_err::write(user.join("src/lib.rs"), "").unwrap();
    let manifest = "[package]\nname = \"user\"\nversion = \"0.1.0\"\n[dependencies]\nNumber_api = { version = \"1\", registry = \"own\" }\n[workspace]\n";
    fs_err::write(user.join("Cargo.toml"), manifest).unwrap();
    let mut cargo = cargo();
    cargo.args(["fetch", "--quiet", "--config", &format!("registries.own.index=\"sparse+{url}/index/\"")]);
    cargo.env("CARGO_HOME", directory.path().join("home")).current_dir(&user);
    assert!(tokio::task::spawn_blocking(move || cargo.status()).await.unwrap().unwrap().success());
    server.abort();
}
