//! The packages of an image, as a user asks for them.

use expect_test::expect;
use serde_json::Value;

use crate::world_with_image;

const STATUS: &str = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n";

#[test]
fn packages_are_listed_in_every_form_and_from_every_place() {
    let world = world_with_image();
    world.file("status", STATUS).file("a.json", r#"{"name":"a","version":"1.0.0","license":"MIT"}"#);
    world.file(
        "Dockerfile",
        "FROM tiny:1\nCOPY status /var/lib/dpkg/status\nCOPY a.json /app/node_modules/a/package.json\n",
    );
    world.seatrial(["build", "-q", "-t", "app:1"]).run().exits(0);
    world.seatrial(["sbom", "app:1"]).run().exits(0).stderr_has("2 packages: 1 deb, 1 npm").stdout_is(&expect![[r#"
        NAME    VERSION   KIND   LICENCE
        libc6   2.36-9    deb
        a       1.0.0     npm    MIT
    "#]]);
    let lines = expect![[r#"
        pkg:deb/debian/libc6@2.36-9?arch=amd64
        pkg:npm/a@1.0.0
    "#]];
    world.seatrial(["sbom", "app:1", "--format", "{{.Purl}}"]).run().exits(0).stdout_is(&lines);

    // The documents are about the digest that a push gives, and the same each time.
    let read =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(world.repo().join(name)).unwrap()).unwrap() };
    world.seatrial(["sbom", "app:1", "-o", "one.spdx.json"]).run().exits(0);
    world.seatrial(["sbom", "app:1", "-o", "one.cdx.json"]).run().exits(0);
    let printed = world.seatrial(["sbom", "app:1", "--format", "spdx-json"]).run().exits(0).stdout();
    assert_eq!(std::fs::read_to_string(world.repo().join("one.spdx.json")).unwrap(), printed);
    let name = format!("{}/team/app:1", world.registry());
    world.seatrial(["tag", "app:1", &name]).run().exits(0);
    let pushed = world.seatrial(["push", "-q", &name]).run().exits(0).stdout();
    assert_eq!(read("one.spdx.json")["packages"][0]["versionInfo"], pushed.trim());
    assert_eq!(read("one.cdx.json")["metadata"]["component"]["version"], pushed.trim());

    // The same from a layout, an archive, and the registry, with nothing left here.
    world.seatrial(["save", "--format", "oci-dir", "-o", "layout", "app:1"]).run().exits(0);
    world.seatrial(["save", "-o", "app.tar", "app:1"]).run().exits(0);
    world.seatrial(["rmi", "-f", "app:1", &name]).run().exits(0);
    for place in ["oci:layout", "oci:layout:1", "docker-archive:app.tar", "app.tar", name.as_str()] {
        world.seatrial(["sbom", place, "--format", "{{.Purl}}"]).run().exits(0).stdout_is(&lines);
    }
    assert_eq!(world.seatrial(["images", "--format", "{{.Tag}}"]).run().exits(0).stdout().lines().count(), 1);

    world.seatrial(["sbom", "localhost/none"]).run().exits(1).stderr_has("there is no image `localhost/none` here");
    world.seatrial(["sbom", "oci:nowhere"]).run().exits(2).stderr_has("there is no ");
    world.seatrial(["sbom", "oci:layout:2"]).run().exits(1).stderr_has("layout");
    world.seatrial(["sbom", "tiny:1", "--format", "xml"]).run().exits(2).stderr_has("`xml` is not a format");
}
