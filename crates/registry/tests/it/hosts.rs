//! Own authorities, client certificates, mirrors.

use std::path::PathBuf;

use fs_err as fs;
use oci::{Descriptor, media_type};
use registry::{Client, ClientOptions, ErrorKind, HostFiles};

use crate::support::*;

fn with_hosts(hosts: HostFiles) -> Client {
    Client::new(ClientOptions { hosts, ..options() })
}

fn certificates(directories: impl Into<Vec<PathBuf>>) -> Client {
    with_hosts(HostFiles { certificates: directories.into(), ..HostFiles::default() })
}

#[tokio::test]
async fn hosts_have_authorities_and_clients_of_their_own() {
    let Some(registry) = DockerRegistry::start_mutual_tls().await else { return };
    let image = image(&[("a", b"one")]);
    let name = reference(registry.address, "app:1");
    let made = registry.directory.path();
    let own = tempfile::tempdir().unwrap();
    let host = own.path().join(name.domain());
    fs::create_dir(&host).unwrap();

    // Without a certificate of its own the client is turned away in the handshake.
    let error = client().resolve(&name).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unreachable(_) | ErrorKind::Unexpected { .. }), "{error:?}");

    fs::copy(made.join("authority.pem"), host.join("ca.crt")).unwrap();
    fs::copy(made.join("client.pem"), host.join("client.cert")).unwrap();
    fs::copy(made.join("client.key"), host.join("client.key")).unwrap();
    let client = certificates([own.path().to_owned()]);
    push(&client, &name, &image).await;
    check_pulled(&client, &name, &image).await;

    // Held to an authority, another one's server is refused, also on this machine.
    let other = DockerRegistry::start_tls().await.unwrap();
    let there = reference(other.address, "app:1");
    let directory = own.path().join(there.domain());
    fs::create_dir(&directory).unwrap();
    fs::copy(made.join("authority.pem"), directory.join("ca.crt")).unwrap();
    let error = certificates([own.path().to_owned()]).resolve(&there).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unreachable(_)), "{error:?}");

    fs::write(directory.join("ca.crt"), "-----BEGIN CERTIFICATE-----\nno\n").unwrap();
    let error = certificates([own.path().to_owned()]).resolve(&there).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Local(_)), "{error:?}");
}

#[tokio::test]
async fn mirrors_are_asked_first_and_may_fail() {
    let (origin, mirror) = (Embedded::start().await, Embedded::start().await);
    let image = image(&[("a", &noise(1, 100_000))]);
    let name = reference(origin.address, "app:1");
    let mirrored = |address: std::net::SocketAddr| {
        let mirrors = format!("{}={}/hub", name.domain(), reference(address, "x").domain());
        with_hosts(HostFiles { mirrors, ..HostFiles::default() })
    };
    let at_mirror = reference(mirror.address, "hub/app:1");
    push(&client(), &at_mirror, &image).await;

    // The origin has nothing: everything comes from the mirror. What is judged or pushed never does.
    let client = mirrored(mirror.address);
    let (resolved, manifest) = client.fetch_image_manifest(&name, &oci::Platform::host()).await.unwrap();
    assert_eq!(resolved.descriptor.digest, image.digest());
    assert_eq!(Descriptor::of(media_type::LAYER, &fetch(&client, &name, &manifest.layers[0]).await.unwrap()).size, {
        manifest.layers[0].size
    });
    assert!(client.resolve(&name).await.unwrap_err().is_not_found());
    assert!(client.list_tags(&name).await.unwrap_err().is_not_found());

    // A mirror that is gone, or gives other bytes, costs nothing but the try.
    push(&client, &name, &image).await;
    mirror.stop().await;
    check_pulled(&mirrored(at_mirror_address(&at_mirror)), &name, &image).await;
    let liar = Embedded::start().await;
    let at_liar = reference(liar.address, "hub/app:1");
    push(&client, &at_liar, &image).await;
    corrupt_blobs(&liar.directory);
    check_pulled(&mirrored(liar.address), &name, &image).await;
}

fn at_mirror_address(name: &oci::Reference) -> std::net::SocketAddr {
    name.domain().parse().unwrap()
}

/// Turns a byte of every blob of a server's directory around.
fn corrupt_blobs(directory: &std::path::Path) {
    let mut found = 0;
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if fs::metadata(&path).unwrap().len() > 50_000 {
                let mut bytes = fs::read(&path).unwrap();
                bytes[10] ^= 1;
                fs::write(&path, bytes).unwrap();
                found += 1;
            }
        }
    }
    assert!(found > 0, "there are blobs to corrupt");
}
