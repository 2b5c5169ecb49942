use super::*;

fn places(hosts: &Hosts, host: &str, path: &str, is_digest: bool) -> Vec<String> {
    let places = hosts.mirrors(host, path, is_digest);
    places.into_iter().map(|place| format!("{}/{}", place.host, place.path)).collect()
}

#[test]
fn mirrors_come_from_all_places_in_order() {
    let mut hosts = Hosts::default();
    hosts.add_listed("docker.io=cache.example:5000/hub, quay.io/team=http://plain.example").unwrap();
    hosts
        .add_registries(
            r#"
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            prefix = "*.corp.example"
            location = "store.corp.example"
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "second.example"
            pull-from-mirror = "digest-only"
            [[registry.mirror]]
            location = "third.example"
            insecure = true
            "#,
        )
        .unwrap();
    hosts
        .add_daemon(
            r#"{"registry-mirrors": ["https://fourth.example/"], "insecure-registries": ["a:1", "10.0.0.0/8"]}"#,
        )
        .unwrap();
    assert_eq!(
        places(&hosts, "docker.io", "library/busybox", false),
        ["cache.example:5000/hub/library/busybox", "third.example/library/busybox", "fourth.example/library/busybox"]
    );
    assert!(places(&hosts, "docker.io", "a", true).contains(&"second.example/a".to_owned()));
    assert_eq!(places(&hosts, "quay.io", "team/x", false), ["plain.example/x"]);
    assert!(places(&hosts, "quay.io", "teammates/x", false).is_empty());
    assert_eq!(places(&hosts, "a.corp.example", "x", false), ["store.corp.example/x"]);
    assert!(places(&hosts, "acorp.example", "x", false).is_empty());
    assert_eq!(hosts.insecure(), ["plain.example", "third.example", "a:1"]);
}

#[test]
fn wrong_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("registries.conf");
    fs::write(&file, "[[registry]\n").unwrap();
    let files = HostFiles { registries: vec![directory.path().join("absent"), file], ..HostFiles::default() };
    let error = files.read().unwrap_err().to_string();
    assert!(error.contains("registries.conf cannot be used"), "{error}");
    let files = HostFiles { mirrors: "docker.io".into(), ..HostFiles::default() };
    assert_eq!(
        files.read().unwrap_err().to_string(),
        "SEATRIAL_MIRRORS cannot be used: `docker.io` is not HOST=MIRROR"
    );
}

#[test]
fn certificates_are_dockers() {
    let directory = tempfile::tempdir().unwrap();
    let host = directory.path().join("r.example:5000");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("ca.crt"), "authority").unwrap();
    fs::write(host.join("client.cert"), "certificate").unwrap();
    let files = HostFiles { certificates: vec![directory.path().to_owned()], ..HostFiles::default() };
    let hosts = files.read().unwrap();
    let error = hosts.certificates("r.example:5000").unwrap_err().to_string();
    assert!(error.ends_with("client.key cannot be used: there is no such file"), "{error}");
    fs::write(host.join("client.key"), "key").unwrap();
    let found = hosts.certificates("r.example:5000").unwrap().unwrap();
    assert_eq!(found.authorities, [b"authority".to_vec()]);
    assert_eq!(found.client.as_deref(), Some(&b"certificate\nkey"[..]));
    assert_eq!(hosts.certificates("other.example").unwrap(), None);
}
