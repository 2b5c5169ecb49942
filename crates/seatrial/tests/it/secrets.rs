//! Secrets, key agents and rights, as the command line takes them.

use crate::world_with_image;

const SECRET: &str = "correct-horse-battery";

/// Whether a file below holds the secret.
fn traces(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        let data = std::fs::symlink_metadata(&path).unwrap();
        if data.is_dir() {
            found.extend(traces(&path));
        } else if data.is_file() {
            let content = std::fs::read(&path).unwrap_or_default();
            found.extend(content.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()).then_some(path));
        }
    }
    found
}

#[test]
fn secrets_reach_the_command_and_no_view_or_log() {
    let world = world_with_image();
    world.file(
        "Dockerfile",
        "FROM tiny:1\n\
         RUN --mount=type=secret,id=token,required --mount=type=secret,id=word,env=WORD,required \
         cat /run/secrets/token; echo \"<$WORD>\"; test \"$(cat /run/secrets/token)\" = \"$WORD\" && echo equal; exit 3\n",
    );
    // Not in the repository, whose directory is looked through below.
    let file = world.path("token");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let given = format!("id=token,src={}", file.display());
    for progress in ["plain", "json", "tty", "quiet"] {
        let session =
            world.seatrial(["build", "--progress", progress, "--secret", &given, "--secret", "id=word,env=WORD"]);
        let finished = session.env("WORD", SECRET).run().exits(1);
        let shown = format!("{}{}", finished.stdout(), finished.stderr());
        assert!(!shown.contains(SECRET), "{progress}: {shown}");
        assert!(progress == "quiet" || shown.contains("<***>"), "{progress}: {shown}");
    }
    world.seatrial(["logs", "1", "build"]).run().exits(0).stdout_has("***\n<***>\nequal");
    assert_eq!(traces(&world.path("home")), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn what_is_required_and_missing_is_pointed_at() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nRUN --mount=type=secret,id=token,required true\n");
    let finished = world.seatrial(["build", "--progress=none"]).run().exits(2);
    finished
        .stderr_has("error[ST140]: secret `token` is required and was not given")
        .stderr_has(" --> Dockerfile:2:5\n");
    world
        .seatrial(["build", "--secret", "id=token,src=nowhere"])
        .run()
        .exits(2)
        .stderr_has("secret `token` cannot be read");
    world.seatrial(["build", "--squash"]).run().exits(2).stderr_has("COPY --from=build / /");
    world.seatrial(["build", "--allow", "device"]).run().exits(2).stderr_has("there is no entitlement `device`");
}

#[test]
fn all_rights_need_flag_and_file() {
    let world = world_with_image();
    world.file("Dockerfile", "FROM tiny:1\nRUN --security=insecure echo fine\n");
    let build = |args: &[&str]| {
        world.seatrial(["build", "--progress=plain"].iter().chain(args)).env("XDG_CONFIG_HOME", world.path("config"))
    };
    build(&[]).run().exits(2).stderr_has("--allow security.insecure");
    build(&["--allow", "security.insecure"]).run().exits(2).stderr_has("not permitted on this machine");
    std::fs::create_dir_all(world.path("config/seatrial")).unwrap();
    std::fs::write(world.path("config/seatrial/allow"), "security.insecure\n").unwrap();
    build(&["--allow", "security.insecure"]).run().exits(0).stderr_has("fine");
}
