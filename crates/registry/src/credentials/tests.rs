use std::os::unix::fs::PermissionsExt;

use super::*;

fn password(user: &str, password: &str) -> Option<Credential> {
    Some(Credential::Password { user: user.into(), password: password.into() })
}

async fn check(config: &str, host: &str, path: &str, expected: Option<Credential>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    fs_err::write(&file, config).unwrap();
    assert_eq!(Credentials::from_files([file]).lookup(host, path).await.unwrap(), expected, "{config} {host}/{path}");
}

#[tokio::test]
async fn keys_are_found_in_all_their_spellings() {
    // "dTpw" is `u:p`.
    for key in ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "https://registry-1.docker.io"] {
        check(&format!(r#"{{"auths":{{"{key}":{{"auth":"dTpw"}}}}}}"#), "docker.io", "a/b", password("u", "p")).await;
    }
    for key in ["reg.example:5000", "https://reg.example:5000", "http://reg.example:5000/v2/", "reg.example:5000/v2"] {
        check(&format!(r#"{{"auths":{{"{key}":{{"auth":"dTpw"}}}}}}"#), "reg.example:5000", "a", password("u", "p"))
            .await;
    }
    check(r#"{"auths":{"reg.example":{"auth":"dTpw"}}}"#, "reg.example:5000", "a", None).await;
    check(r#"{"auths":{"reg.example":{}}}"#, "reg.example", "a", None).await;
    check("", "reg.example", "a", None).await;
}

#[tokio::test]
async fn longer_keys_win_and_tokens_are_understood() {
    let config = r#"{"auths":{
        "reg.example":{"auth":"dTpw"},
        "reg.example/team":{"username":"t","password":"q"},
        "other.example":{"identitytoken":"abc"}}}"#;
    check(config, "reg.example", "team/app", password("t", "q")).await;
    check(config, "reg.example", "teams/app", password("u", "p")).await;
    check(config, "other.example", "x", Some(Credential::IdentityToken("abc".into()))).await;
}

#[tokio::test]
async fn login_keeps_unknown_fields_and_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sub/config.json");
    let credentials = Credentials::from_files([file.clone()]);
    assert_eq!(credentials.store("localhost:5000", "u", "p:q").await.unwrap(), LoginPlace::File(file.clone()));
    fs_err::write(&file, fs_err::read_to_string(&file).unwrap().replacen('{', r#"{"detachKeys":"ctrl-x","#, 1))
        .unwrap();
    credentials.store("docker.io", "hub", "secret").await.unwrap();
    let text = fs_err::read_to_string(&file).unwrap();
    assert!(text.contains("detachKeys") && text.contains("https://index.docker.io/v1/"), "{text}");
    assert_eq!(fs_err::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(credentials.lookup("localhost:5000", "a").await.unwrap(), password("u", "p:q"));
    assert_eq!(credentials.erase("localhost:5000").await.unwrap(), [LoginPlace::File(file.clone())]);
    assert_eq!(credentials.lookup("localhost:5000", "a").await.unwrap(), None);
    assert_eq!(credentials.erase("localhost:5000").await.unwrap(), []);
    assert_eq!(credentials.lookup("docker.io", "a").await.unwrap(), password("hub", "secret"));
}

#[tokio::test]
async fn broken_file_is_an_error_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    fs_err::write(&file, "{ not json").unwrap();
    let credentials = Credentials::from_files([file.clone()]);
    assert!(matches!(credentials.lookup("a.example", "x").await, Err(CredentialError::Malformed { .. })));
    assert!(matches!(credentials.store("a.example", "x", "y").await, Err(CredentialError::Malformed { .. })));
    assert_eq!(fs_err::read_to_string(&file).unwrap(), "{ not json");
}

#[tokio::test]
async fn helper_names_cannot_be_paths_and_missing_helpers_are_named() {
    for (name, expected) in [("../../bin/sh", "legal"), ("seatrial-test-absent", "No such file")] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        fs_err::write(&file, format!(r#"{{"credHelpers":{{"a.example":"{name}"}}}}"#)).unwrap();
        let error = Credentials::from_files([file]).lookup("a.example", "x").await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn secrets_do_not_show() {
    let shown = format!("{:?}", Credentials::anonymous().with("a", password("u", "hunter2").unwrap()));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn environment_names_the_files() {
    let credentials = Credentials::from_environment(|name| match name {
        "HOME" => Some("/home/a".into()),
        "DOCKER_CONFIG" => Some("/conf".into()),
        _ => None,
    });
    let expected = ["/conf/config.json", "/home/a/.config/containers/auth.json"].map(PathBuf::from);
    assert_eq!(credentials.files, expected);
}

#[tokio::test]
async fn helpers_are_asked_told_and_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let helper = dir.path().join("docker-credential-test");
    let script = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 2
case $1 in
    get) read -r server; [ -f kept ] && cat kept && exit; echo "credentials not found in native keychain"; exit 1;;
    store) cat > kept;;
    erase) rm kept;;
esac
"#;
    fs_err::write(&helper, script).unwrap();
    fs_err::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    fs_err::write(dir.path().join("config.json"), r#"{"credsStore":"test"}"#).unwrap();
    let path = dir.path().to_owned();
    let credentials = Credentials::from_environment(move |name| match name {
        "DOCKER_CONFIG" => Some(path.clone().into()),
        "PATH" => Some(path.clone().into()),
        _ => None,
    });
    assert_eq!(credentials.lookup("reg.example", "a").await.unwrap(), None);
    let place = credentials.store("reg.example", "u", "p").await.unwrap();
    assert_eq!(place, LoginPlace::Helper("test".into()));
    assert_eq!(credentials.lookup("reg.example", "a").await.unwrap(), password("u", "p"));
    assert_eq!(credentials.erase("reg.example").await.unwrap(), [place]);
    assert_eq!(credentials.lookup("reg.example", "a").await.unwrap(), None);
    assert!(!fs_err::read_to_string(dir.path().join("config.json")).unwrap().contains("auths"));
}

#[tokio::test]
async fn pull_secrets_and_texts_of_the_environment_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = dir.path().join("mounted");
    fs_err::create_dir(&mounted).unwrap();
    fs_err::write(mounted.join(".dockerconfigjson"), r#"{"auths":{"a.example":{"auth":"dTpw"}}}"#).unwrap();
    let old = dir.path().join("dockercfg");
    fs_err::write(&old, r#"{"b.example":{"auth":"dTpw","email":"x"}}"#).unwrap();
    let whole = dir.path().join("secret.json");
    let data = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        r#"{"auths":{"c.example":{"username":"t","password":"q"}}}"#,
    );
    fs_err::write(&whole, format!(r#"{{"kind":"Secret","data":{{".dockerconfigjson":"{data}"}}}}"#)).unwrap();
    let list = std::env::join_paths([&dir.path().join("absent"), &mounted, &old, &whole]).unwrap();
    let credentials = Credentials::from_environment(|name| match name {
        "SEATRIAL_PULL_SECRETS" => Some(list.clone()),
        "DOCKER_AUTH_CONFIG" => Some(r#"{"auths":{"d.example":{"auth":"dTpw"}}}"#.into()),
        _ => None,
    });
    for host in ["a.example", "b.example", "d.example"] {
        assert_eq!(credentials.lookup(host, "x").await.unwrap(), password("u", "p"), "{host}");
    }
    assert_eq!(credentials.lookup("c.example", "x").await.unwrap(), password("t", "q"));
    assert_eq!(credentials.lookup("e.example", "x").await.unwrap(), None);
    assert!(!format!("{credentials:?}").contains("dTpw"), "a log shows no secret");
    fs_err::write(&whole, r#"{"data":{".dockerconfigjson":"?"}}"#).unwrap();
    assert!(credentials.lookup("e.example", "x").await.unwrap_err().to_string().contains("secret.json"));
}
