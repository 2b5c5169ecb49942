//! Images for several platforms, and RUN for another one than this machine's.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use testkit::{World, is_root, skip};

use crate::world;

/// A stage that needs no RUN of the platform.
const NO_RUN: &str = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /which\n";

fn world_of_two() -> World {
    let world = world();
    world.file("Dockerfile", NO_RUN).file("amd64", "for amd64").file("s390x", "for s390x").file("z80", "");
    world
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn several_platforms_are_one_name_with_an_index() {
    let world = world_of_two();
    let name = format!("{}/app:1", world.registry());
    let args = ["build", "--progress=none", "--platform", "linux/s390x,linux/amd64", "-t", &name, "--push"];
    let built = world.seatrial(args.iter().chain(&["--format", "json"])).run().exits(0);
    let built = json(&built.stdout());
    let platforms: Vec<&str> =
        built["Platforms"].as_array().unwrap().iter().map(|of| of["Platform"].as_str().unwrap()).collect();
    assert_eq!(platforms.len(), 2, "{built}");
    assert!(platforms.contains(&"linux/s390x") && platforms.contains(&"linux/amd64"), "{built}");

    // Another client finds the index, and in it each image.
    let remote = format!("docker://{name}");
    let raw = skopeo(&["inspect", "--tls-verify=false", "--raw", &remote]);
    let index = json(&raw);
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    for architecture in ["amd64", "s390x"] {
        let config = skopeo(&["--override-arch", architecture, "inspect", "--tls-verify=false", "--config", &remote]);
        assert_eq!(json(&config)["architecture"], architecture);
    }

    // The same is built and pushed again without a step, under the same digest.
    let again = world.seatrial(args.iter().chain(&["--format", "{{.Digest}} {{.StepsCached}}"])).run().exits(0);
    assert_eq!(again.stdout().trim(), format!("{} 2", built["Digest"].as_str().unwrap()));

    let inspected = json(&world.seatrial(["inspect", &name]).run().exits(0).stdout());
    assert_eq!(inspected[0]["Platforms"].as_array().unwrap().len(), 2);
    world.seatrial(["images"]).run().exits(0).stdout_has("linux/s390x").stdout_has("PLATFORM");
    let other = format!("{}/other:1", world.registry());
    world.seatrial(["tag", &name, &other]).run().exits(0);
    let pushed = world.seatrial(["push", &other]).run().exits(0).stdout();
    assert!(pushed.contains(built["Digest"].as_str().unwrap()), "{pushed}");
    world.seatrial(["rmi", &other]).run().exits(0);
    let removed = world.seatrial(["rmi", &name]).run().exits(0);
    assert_eq!(removed.stdout().matches("Deleted: ").count(), 2, "{}", removed.stdout());
}

fn skopeo(args: &[&str]) -> String {
    let output = Command::new("skopeo").args(args).output().expect("skopeo is installed");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn layouts_and_directories_hold_all_platforms() {
    let world = world_of_two();
    let platforms = ["--platform=linux/amd64", "--platform=linux/s390x"];
    let build = |rest: &[&str]| world.seatrial(["build", "--progress=none"].iter().chain(&platforms).chain(rest)).run();
    build(&["-o", "files"]).exits(0);
    assert_eq!(fs::read_to_string(world.repo().join("files/linux_s390x/which")).unwrap(), "for s390x");
    build(&["-t", "app:1", "-o", "type=oci,dest=app.tar", "--annotation", "index:org.example.a=b"]).exits(0);
    world.seatrial(["rmi", "app:1"]).run().exits(0);
    world.seatrial(["load", "app.tar"]).run().exits(0).stdout_has("app:1");
    let inspected = json(&world.seatrial(["inspect", "app:1"]).run().exits(0).stdout());
    assert_eq!(inspected[0]["Platforms"].as_array().unwrap().len(), 2);
    world.seatrial(["save", "--format=oci-dir", "-o", "layout", "app:1"]).run().exits(0);
    let index = json(&fs::read_to_string(world.repo().join("layout/index.json")).unwrap());
    assert_eq!(index["manifests"][0]["mediaType"], "application/vnd.oci.image.index.v1+json");
    build(&["-o", "type=docker,dest=x.tar"]).exits(2).stderr_has("`--output type=docker` holds one platform");
    build(&["-o", "type=tar,dest=x.tar"]).exits(2).stderr_has("--output type=local");
    world
        .seatrial(["build", "--platform=linux/amd64", "--annotation", "index:a=b", "-t", "x"])
        .run()
        .exits(2)
        .stderr_has("is for an index");
}

#[test]
fn a_run_without_an_emulator_is_told_before_anything_starts() {
    let world = world();
    world.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /x\nRUN [\"/x\"]\n");
    let finished = world.seatrial(["build", "--progress=none", "--platform=linux/z80"]).run().exits(3);
    finished
        .stderr_has("cannot run `RUN [\"/x\"]` (Dockerfile:3) for linux/z80: this machine has no emulator for it")
        .stderr_has("FROM --platform=$BUILDPLATFORM");
}

/// The smallest program of arm64: `exit(0)`. What runs in its place says what it was.
fn arm64_program() -> Vec<u8> {
    let mut program = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |value: u16| value.to_le_bytes().to_vec();
    let word = |value: u64| value.to_le_bytes().to_vec();
    let (base, entry) = (0x40_0000_u64, 120);
    // ELF header, one loaded segment, code (System V ABI).
    program.extend([half(2), half(183), vec![1, 0, 0, 0], word(base + entry), word(64), word(0)].concat());
    program.extend([vec![0; 4], half(64), half(56), half(1), half(0), half(0), half(0)].concat());
    program.extend([vec![1, 0, 0, 0], vec![5, 0, 0, 0], word(0), word(base), word(base)].concat());
    program.extend([word(entry + 12), word(entry + 12), word(0x1_0000)].concat());
    // mov x0, #0; mov x8, #93; svc #0
    for instruction in [0xd280_0000_u32, 0xd280_0ba8, 0xd400_0001] {
        program.extend(instruction.to_le_bytes());
    }
    program
}

const BINFMT_MISC: &str = "/proc/sys/fs/binfmt_misc";

/// A registration that goes with it.
struct Registered {
    name: String,
    has_mounted: bool,
}

impl Registered {
    /// `interpreter` runs programs of arm64; `None` where this kernel takes no registration.
    fn new(interpreter: &Path, flags: &str) -> Option<Registered> {
        let has_mounted = !Path::new(BINFMT_MISC).join("register").exists();
        if has_mounted
            && !Command::new("mount").args(["-t", "binfmt_misc", "none", BINFMT_MISC]).status().unwrap().success()
        {
            skip("binfmt_misc cannot be mounted");
            return None;
        }
        let name = format!("seatrial-test-{}", std::process::id());
        let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
        let line = format!(":{name}:M:0:{magic}::{}:{flags}", interpreter.display());
        let registered = Registered { name, has_mounted };
        fs::write(Path::new(BINFMT_MISC).join("register"), line).unwrap();
        Some(registered)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let _ = fs::write(Path::new(BINFMT_MISC).join(&self.name), "-1");
        if self.has_mounted {
            let _ = Command::new("umount").arg(BINFMT_MISC).status();
        }
    }
}

#[test]
fn emulators_run_what_the_processor_does_not() {
    if !is_root() {
        return skip("only root registers emulators");
    }
    // A stand-in: it shows the program that it is to run.
    let directory = tempfile::tempdir().unwrap();
    let emulator = directory.path().join("cat");
    fs::copy("/usr/bin/busybox", &emulator).expect("busybox-static is installed");
    let world = world();
    let image = world.path("repo/program");
    fs::write(&image, arm64_program()).unwrap();
    fs::set_permissions(&image, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    world.file("Dockerfile", "FROM scratch\nCOPY program /program\nRUN [\"/program\"]\n");
    for flags in ["F", ""] {
        let Some(_registered) = Registered::new(&emulator, flags) else { return };
        let args = ["build", "--progress=plain", "--platform=linux/arm64", "--no-cache", "-t", "emulated:1"];
        world.seatrial(args).run().exits(0).stderr_has("ELF");
        world.seatrial(["doctor"]).run().stdout_has("linux/arm64");
        // The emulator is not in the image.
        world.seatrial(["build", "--progress=none", "--platform=linux/arm64", "-o", "files"]).run().exits(0);
        let names: Vec<_> =
            fs::read_dir(world.repo().join("files")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["program"], "with flags `{flags}`");
        fs::remove_dir_all(world.repo().join("files")).unwrap();
    }
}

const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// What an index and the manifests in it say, by architecture; `read` gives a document by its digest.
fn check_forms(index: &Value, read: &dyn Fn(&str) -> Value) {
    assert_eq!(index["annotations"], serde_json::json!({"org.example.flag": "1", "org.example.output": "2"}));
    for of in index["manifests"].as_array().unwrap() {
        let manifest = read(of["digest"].as_str().unwrap());
        assert_eq!(manifest["layers"][0]["mediaType"], ZSTD);
        let is_s390x = of["platform"]["architecture"] == "s390x";
        let mut expected = serde_json::json!({"org.example.all": "3"});
        if is_s390x {
            expected["org.example.one"] = "4".into();
        }
        assert_eq!(manifest["annotations"], expected);
        assert_eq!(
            of["annotations"],
            if is_s390x { serde_json::json!({"org.example.beside": "5"}) } else { Value::Null }
        );
    }
}

#[test]
fn annotations_and_compression_reach_index_and_manifests() {
    let world = world_of_two();
    let form = "compression=zstd,force-compression=true,annotation-index.org.example.output=2,\
                annotation-manifest-descriptor[linux/s390x].org.example.beside=5";
    let build = |output: &str| {
        let output = format!("{output},{form}");
        let args = ["build", "--progress=none", "--platform=linux/amd64,linux/s390x", "--output", &output];
        let annotations = ["index:org.example.flag=1", "org.example.all=3", "manifest[linux/s390x]:org.example.one=4"];
        let annotations = annotations.iter().flat_map(|annotation| ["--annotation", annotation]);
        let session = world.seatrial(args.into_iter().chain(annotations).chain(["--format={{.Digest}}"]));
        // The outputs lie in the context, which would otherwise date the later images by them.
        let built = session.env("SOURCE_DATE_EPOCH", "1700000000").run();
        built.exits(0).stdout().trim().to_owned()
    };

    let digest = build("type=oci,tar=false,dest=layout");
    let blob = |digest: &str| {
        let path = world.repo().join("layout/blobs").join(digest.replace(':', "/"));
        json(&fs::read_to_string(path).unwrap())
    };
    let top = json(&fs::read_to_string(world.repo().join("layout/index.json")).unwrap());
    assert_eq!(top["manifests"][0]["digest"], digest.as_str());
    assert_eq!(top["manifests"].as_array().unwrap().len(), 1);
    check_forms(&blob(&digest), &blob);
    // Also without a name it is loaded whole.
    build("type=oci,dest=layout.tar");
    let loaded = world.seatrial(["load", "layout.tar"]).run().exits(0).stdout();
    assert_eq!(loaded.lines().count(), 2, "{loaded}");

    let name = format!("{}/forms", world.registry());
    assert_eq!(build(&format!("type=registry,name={name}:1")), digest);
    let raw =
        |digest: &str| json(&skopeo(&["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}@{digest}")]));
    check_forms(&raw(&digest), &raw);
}

#[test]
fn a_shared_cache_has_the_steps_of_all_platforms() {
    for mode in ["min", "max"] {
        let world = world_of_two();
        let args = ["build", "--progress=none", "--platform=linux/s390x,linux/amd64", "--format={{.StepsCached}}"];
        let to = format!("--cache-to=type=local,mode={mode},dest={}", world.path("cache").display());
        world.seatrial(args.iter().copied().chain([to.as_str()])).run().exits(0).stdout_has("0");
        let other = world_of_two();
        let from = format!("--cache-from=type=local,src={}", world.path("cache").display());
        let built = other.seatrial(args.iter().copied().chain([from.as_str()])).run().exits(0);
        assert_eq!(built.stdout().trim(), "2", "{mode}");
    }
}
