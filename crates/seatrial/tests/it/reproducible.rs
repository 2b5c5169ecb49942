//! The same commit gives the same image: whoever builds it, where, and when.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use testkit::{TINY, World, is_root, skip};

use crate::{PROGRAM, world, world_with_image};

/// What [`World::commit`] gives every commit.
const COMMIT_TIME: u64 = 1_767_323_045;
const DAY: u64 = 24 * 60 * 60;
/// Somebody whom no machine knows, so also somebody with a single id.
const STRANGER: u32 = 23_456;

const DOCKERFILE: &str = "\
FROM tiny:1 AS made
WORKDIR /out
RUN mkdir -p deep/er && echo made > deep/er/file && echo gone > gone && echo \"$SOURCE_DATE_EPOCH\" > epoch
RUN rm gone && touch deep/new
FROM tiny:1
WORKDIR /app/new
COPY . /app/
COPY --from=made /out /out
ADD --chmod=u+x program /bin/
RUN rm -r /app/old && touch /app/new/er && mkdir /var
ENTRYPOINT [\"/bin/program\"]
";

/// One who builds: a clone of the repository with file times of its own, a store, and how the program is started.
struct Builder {
    world: World,
}

impl Builder {
    fn new(origin: &World, name: &str, touched: u64, umask: &str, user: Option<u32>) -> Self {
        let start = origin.path(format!("start-{name}"));
        let world = World::new(start.to_str().expect("text"));
        let program = world.path("seatrial");
        if fs::hard_link(PROGRAM, &program).is_err() {
            fs::copy(PROGRAM, &program).expect("the program can be copied");
        }
        let become_user =
            user.map_or_else(String::new, |id| format!("setpriv --reuid={id} --regid={id} --clear-groups "));
        let script = format!("#!/bin/sh\numask {umask}\nexec {become_user}{} \"$@\"\n", program.display());
        fs::write(&start, script).expect("written");
        fs::set_permissions(&start, fs::Permissions::from_mode(0o755)).expect("its own file");
        let url = origin.repo();
        world.git(&["clone", "--quiet", url.to_str().expect("text"), "."]);
        let image = world.path("tiny.tar");
        fs::copy(origin.path("tiny.tar"), &image).expect("the image is there");
        touch(&world.repo(), UNIX_EPOCH + Duration::from_secs(touched));
        if let Some(id) = user {
            give(&world.path(""), id, &program);
        }
        world.seatrial(["load", "--name", TINY]).arg(&image).run().exits(0);
        Self { world }
    }

    /// Digest of the manifest, with the image's id.
    fn digest(&self, options: &[&str]) -> (String, String) {
        let args = ["build", "--progress=none", "--format", "json"];
        let built = self.world.seatrial(args.iter().chain(options)).run().exits(0).stdout();
        let built: Value = serde_json::from_str(&built).expect("JSON");
        let text = |name: &str| built[name].as_str().expect(name).to_owned();
        (text("Digest"), text("Id"))
    }
}

/// Sets the times of everything.
fn touch(path: &Path, time: SystemTime) {
    let metadata = path.symlink_metadata().expect("it is there");
    if metadata.is_dir() {
        fs::read_dir(path).expect("listed").flatten().for_each(|entry| touch(&entry.path(), time));
    }
    if !metadata.is_symlink() {
        fs::File::open(path).and_then(|file| file.set_modified(time)).expect("one's own file");
    }
}

/// Gives everything but the program away.
fn give(path: &Path, id: u32, program: &Path) {
    if path == program {
        return;
    }
    if path.symlink_metadata().expect("it is there").is_dir() {
        fs::read_dir(path).expect("listed").flatten().for_each(|entry| give(&entry.path(), id, program));
    }
    std::os::unix::fs::lchown(path, Some(id), Some(id)).expect("root may");
}

fn origin() -> World {
    let world = world_with_image();
    world.file("Dockerfile", DOCKERFILE).file(".dockerignore", ".git\n").file("old/file", "old").file("a", "A");
    world.program("program", "#!/bin/sh\n").file("deep/er/b", "B");
    std::os::unix::fs::symlink("deep/er", world.repo().join("link")).expect("made");
    world.commit();
    world
}

#[test]
fn one_commit_is_one_image() {
    let origin = origin();
    let one = Builder::new(&origin, "one", COMMIT_TIME + DAY, "022", None);
    let mut others =
        vec![("another directory, time and umask", Builder::new(&origin, "two", COMMIT_TIME + 99 * DAY, "077", None))];
    if is_root() {
        let stranger = Builder::new(&origin, "stranger", COMMIT_TIME + 7 * DAY, "027", Some(STRANGER));
        others.push(("an ordinary user", stranger));
    } else {
        skip("only root can build as somebody else too");
    }
    for options in [
        ["-o", "type=image,compression=gzip"].as_slice(),
        &["-o", "type=image,compression=zstd,force-compression=true"],
        // Unchanged, from the cache.
        &["-o", "type=image,compression=gzip"],
    ] {
        let expected = one.digest(options);
        for (who, builder) in &others {
            assert_eq!(builder.digest(options), expected, "{who}, {options:?}");
        }
    }
}

#[test]
fn the_commit_dates_what_is_newer() {
    let world = world();
    let created = |world: &World, variable: Option<&str>| {
        let mut session = world.seatrial(["build", "--progress=none", "-t", "dated:1"]);
        if let Some(epoch) = variable {
            session = session.env("SOURCE_DATE_EPOCH", epoch);
        }
        session.run().exits(0);
        let inspected = world.seatrial(["inspect", "dated:1"]).run().exits(0).stdout();
        let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
        inspected[0]["Created"].as_str().expect("a time").to_owned()
    };
    world.file("Dockerfile", "FROM scratch\nCOPY sub /\n").file("sub/a", "A").file("sub/b", "B");
    touch(&world.repo(), UNIX_EPOCH + Duration::from_secs(COMMIT_TIME + DAY));
    // Without Git the newest file tells.
    assert_eq!(created(&world, None), "2026-01-03T03:04:05Z");
    world.commit();
    assert_eq!(created(&world, None), "2026-01-02T03:04:05Z");
    // Changes that are not committed are newer.
    world.file("sub/a", "changed");
    assert_eq!(created(&world, None), "2026-01-02T03:04:05Z");
    assert_eq!(created(&world, Some("1700000000")), "2023-11-14T22:13:20Z");
}

#[test]
fn a_repository_of_somebody_else_is_told() {
    if !is_root() {
        return skip("only root can give files away");
    }
    let world = world();
    world.file("Dockerfile", "FROM scratch\nCOPY a /\n").file("a", "A").commit();
    chown(world.repo(), Some(STRANGER), Some(STRANGER)).expect("root may");
    world
        .seatrial(["build", "--progress=plain"])
        .run()
        .exits(0)
        .stderr_has("git refuses this repository because it belongs to another user")
        .stderr_has("the time of the newest file stands for that of the commit");
}

#[test]
fn where_a_commit_was_cloned_from_is_no_part_of_its_image_unless_labels_ask_for_it() {
    let world = world_with_image();
    let image = |labels: bool, url: &str, branch: &str| {
        world.git(&["checkout", "--quiet", "-B", branch]).git(&["config", "remote.origin.url", url]);
        let labels = if labels { "build: {oci_labels: true}\n" } else { "" };
        let pipeline = format!("image: example/app\nhealth: false\n{labels}");
        // Not tracked, so the tree is the commit.
        world.file("seatrial.yaml", &pipeline).seatrial(["run"]).run().exits(0);
        world.seatrial(["inspect", "-f", "{{.Id}}", &format!("example/app:{branch}")]).run().exits(0).stdout()
    };
    world.file("Dockerfile", "FROM tiny:1\nCOPY Dockerfile /\n").commit();
    let (https, ssh) = ("https://git.example/app.git", "ssh://git@git.example/app.git");
    assert_eq!(image(false, https, "main"), image(false, ssh, "release"));
    assert_ne!(image(true, https, "main"), image(true, https, "release"));
}
