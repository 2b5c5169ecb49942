//! What RUN sees beyond the image: secrets, key agents, rights, bounds.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use engine::{BuildRequest, NetworkMode, Secret, SshSource, Ulimit};
use runtime::Privilege;

use crate::world::{Outcome, World, explain, has_owners, privilege};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("secrets_are_files_and_variables", secrets_are_files_and_variables),
    ("secrets_leave_no_trace", secrets_leave_no_trace),
    ("secrets_that_are_missing", secrets_that_are_missing),
    ("secrets_are_no_part_of_the_key", secrets_are_no_part_of_the_key),
    ("secrets_are_masked_in_what_is_told", secrets_are_masked_in_what_is_told),
    ("agents_answer_through_the_socket", agents_answer_through_the_socket),
    ("agents_of_the_host_keep_their_keys", agents_of_the_host_keep_their_keys),
    ("agents_that_are_missing", agents_that_are_missing),
    ("rights_have_to_be_allowed", rights_have_to_be_allowed),
    ("bounds_hold", bounds_hold),
    ("mounts_nest_and_leave_no_places", mounts_nest_and_leave_no_places),
    ("caches_differ_by_how_they_begin", caches_differ_by_how_they_begin),
];

const SECRET: &str = "correct-horse-battery";

fn with_secret(world: &World, dockerfile: &str) -> BuildRequest {
    let mut request = world.request(dockerfile);
    request.run.secrets.insert("token".into(), Secret::new(format!("{SECRET}\n").into_bytes()));
    request
}

fn secrets_are_files_and_variables() {
    let world = World::new();
    let outcome = world.run(&with_secret(
        &world,
        "FROM base\n\
         RUN --mount=type=secret,id=token stat -c '%a %u:%g %F %n' /run/secrets/token; test \"$(cat /run/secrets/token)\" = correct-\"horse\"-battery && echo same\n\
         RUN --mount=type=secret,target=/opt/token,mode=0440 stat -c '%a %n' /opt/token\n\
         RUN --mount=type=secret,id=token,env=TOKEN test \"$(echo $TOKEN)\" = correct-\"horse\"-battery && echo variable; ls /run/secrets 2>/dev/null || echo no file\n\
         WORKDIR /w\n\
         RUN --mount=type=secret,id=token,env=TOKEN,target=near stat -c %n near /w/near; test -n \"$TOKEN\" && echo both\n",
    ));
    outcome.built();
    assert_eq!(
        outcome.logs(),
        [
            "400 0:0 regular file /run/secrets/token",
            "same",
            "440 /opt/token",
            "variable",
            "no file",
            "near",
            "/w/near",
            "both"
        ]
    );
    if has_owners() {
        let outcome = world.run(&with_secret(
            &world,
            "FROM base\nUSER app\n\
             RUN --mount=type=secret,id=token,uid=1000,gid=1001 stat -c '%u:%g' /run/secrets/token; cat /run/secrets/token > /tmp/x\n\
             RUN --mount=type=secret,id=token cat /run/secrets/token 2>/dev/null || echo refused\n",
        ));
        outcome.built();
        assert_eq!(outcome.logs(), ["1000:1001", "refused"]);
    }
}

fn secrets_leave_no_trace() {
    let world = World::new();
    let outcome = world.run(&with_secret(
        &world,
        "FROM base\nRUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN true\n",
    ));
    let built = outcome.built();
    assert_eq!(world.show(built), "layer\n");
    assert!(!format!("{:?}", built.root.config).contains(SECRET));
    world.seal(built);
    assert!(!format!("{:?}", with_secret(&world, "")).contains(SECRET));

    // Nor does a failure that is kept.
    let mut request = with_secret(
        &world,
        "FROM base\nRUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN false\n",
    );
    request.keep_failed = Duration::from_secs(3600);
    let outcome = world.run(&request);
    let engine::BuildError::Step(step) = outcome.failed() else { panic!("the step fails") };
    let kept = step.kept.as_ref().unwrap();
    assert!(kept.env.iter().all(|(name, _)| name != "TOKEN"), "{:?}", kept.env);
    assert_no_trace(world.path());
}

/// No file below holds the secret.
fn assert_no_trace(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let data = fs::symlink_metadata(&path).unwrap();
        if data.is_dir() {
            assert_no_trace(&path);
        } else if data.is_file() {
            let content = fs::read(&path).unwrap();
            let found = content.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            assert!(!found, "{} holds the secret", path.display());
        }
    }
}

fn secrets_that_are_missing() {
    let world = World::new();
    let outcome = world.build("FROM base\nRUN --mount=type=secret,id=other ls /run/secrets 2>/dev/null || echo none\n");
    outcome.built();
    assert_eq!(outcome.logs(), ["none"]);
    let outcome = world.build("FROM base\nRUN --mount=type=secret,id=other,required true\n");
    let told = explain(outcome.failed());
    assert!(told.contains("secret `other` is required") && told.contains("--secret id=other"), "{told}");
    assert!(told.contains("at \"--mount=type=secret,id=other,required\""), "{told}");
    assert_eq!(world.containers(), 1);

    let mut request = world.request("FROM base\nRUN --mount=type=secret,id=raw,env=RAW true\n");
    request.run.secrets.insert("raw".into(), Secret::new(vec![0xff, 0]));
    let told = explain(world.run(&request).failed());
    assert!(told.contains("secret `raw` is no text"), "{told}");
}

fn secrets_are_no_part_of_the_key() {
    let world = World::new();
    let dockerfile = "FROM base\nRUN --mount=type=secret,id=token cat /run/secrets/token > /dev/null\n";
    world.run(&with_secret(&world, dockerfile)).built();
    let mut request = world.request(dockerfile);
    request.run.secrets.insert("token".into(), Secret::new(b"another".to_vec()));
    assert_eq!(world.run(&request).made(), [""; 0]);
    let renamed = dockerfile.replace("id=token", "id=token,target=/run/secrets/token2");
    assert_eq!(world.run(&with_secret(&world, &renamed)).made().len(), 1);
}

fn secrets_are_masked_in_what_is_told() {
    let world = World::new();
    let outcome = world.run(&with_secret(
        &world,
        "FROM base\n\
         RUN --mount=type=secret,id=token,env=TOKEN,target=/t cat /t; echo -n correct-; sleep 0.2; echo horse-battery; echo \"[$TOKEN]\"; \
         echo Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5; echo correct-horse; false\n",
    ));
    let told = explain(outcome.failed());
    assert!(!told.contains(SECRET) && told.contains("***"), "{told}");
    assert_eq!(outcome.logs(), ["***", "***", "[***", "]", "***", "correct-horse"]);
    // Also in the output of a RUN that was not given it.
    let outcome = world.run(&with_secret(&world, &format!("FROM base\nRUN echo {}-battery\n", "correct-horse")));
    outcome.built();
    assert_eq!(outcome.logs(), ["***"]);
}

/// An image with the tools of ssh.
fn ssh_world() -> World {
    let world = World::new();
    world.add_tools("with-ssh", &["ssh-add", "ssh-keygen"]);
    world
}

/// A new key without passphrase; its public part as ssh-add lists it.
fn new_key(path: &Path, passphrase: &str) -> String {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-C", "a-comment", "-N", passphrase, "-f"])
        .arg(path)
        .status()
        .expect("openssh-client is installed");
    assert!(made.success());
    fs::read_to_string(path.with_extension("pub")).unwrap().trim().to_owned()
}

const ASK: &str = "RUN --mount=type=ssh ssh-add -L; stat -c '%a %u:%g %F' $SSH_AUTH_SOCK; echo $SSH_AUTH_SOCK\n";

fn agents_answer_through_the_socket() {
    let world = ssh_world();
    let key = world.path().join("key");
    let public = new_key(&key, "");
    let mut request = world.request(&format!(
        "FROM with-ssh\n{ASK}\
         RUN --mount=type=ssh,id=default,target=/tmp/sock,mode=0666 ssh-add -D 2>&1; ssh-add -L > /dev/null && echo still\n\
         RUN ls /run /tmp; test -z \"$SSH_AUTH_SOCK\" && echo gone\n"
    ));
    request.run.ssh.insert("default".into(), SshSource::Keys(vec![key.clone()]));
    let outcome = world.run(&request);
    outcome.built();
    assert_eq!(outcome.logs()[..3], [public.as_str(), "600 0:0 socket", "/run/buildkit/ssh_agent.0"]);
    let rest = outcome.logs()[3..].join("\n");
    assert!(rest.contains("still") && rest.ends_with("gone"), "{rest}");
    for layer in &outcome.built().layers[1..] {
        assert_eq!(fs::read_dir(world.store.snapshot_fs(layer)).unwrap().count(), 0, "a socket leaves nothing behind");
    }

    if has_owners() {
        let mut request =
            world.request(&format!("FROM with-ssh\nUSER app\n{}", ASK.replace("=ssh", "=ssh,uid=1000,gid=1001")));
        request.run.ssh.insert("default".into(), SshSource::Keys(vec![key.clone()]));
        let outcome = world.run(&request);
        outcome.built();
        assert_eq!(outcome.logs()[..2], [public.as_str(), "600 1000:1001 socket"]);
    }

    let locked = world.path().join("locked");
    new_key(&locked, "a passphrase");
    let mut request = world.request(&format!("FROM with-ssh\n{ASK}"));
    request.no_cache = true;
    request.run.ssh.insert("default".into(), SshSource::Keys(vec![locked]));
    let told = explain(world.run(&request).failed());
    assert!(told.contains("a key with a passphrase has to be in an agent"), "{told}");
}

fn agents_of_the_host_keep_their_keys() {
    let world = ssh_world();
    let key = world.path().join("key");
    let public = new_key(&key, "");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    // It ends with its command, which ends with our pipe.
    let socket = world.path().join("a");
    let mut agent = Command::new("ssh-agent")
        .args(["-a", "a", "sh", "-c", "ssh-add -q key && echo ready; exec cat"])
        .current_dir(world.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(agent.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "ready\n");

    let mut request = world.request(&format!(
        "FROM with-ssh\n{ASK}RUN --mount=type=ssh,id=default ssh-add -D 2>&1; ssh-add -l > /dev/null && echo still\n"
    ));
    request.run.ssh.insert("default".into(), SshSource::Agent(socket));
    let outcome = world.run(&request);
    drop(agent.stdin.take());
    agent.wait().unwrap();
    outcome.built();
    assert_eq!(outcome.logs()[0], public);
    assert_eq!(outcome.logs().last().map(String::as_str), Some("still"));
}

fn agents_that_are_missing() {
    let world = World::new();
    let outcome =
        world.build("FROM base\nRUN --mount=type=ssh echo \"[$SSH_AUTH_SOCK]\"; ls /run 2>/dev/null || echo none\n");
    outcome.built();
    assert_eq!(outcome.logs().last().map(String::as_str), Some("none"));
    let told = explain(world.build("FROM base\nRUN --mount=type=ssh,id=git,required=1 true\n").failed());
    assert!(told.contains("key agent `git` is required") && told.contains("--ssh git=KEYFILE"), "{told}");
}

fn rights_have_to_be_allowed() {
    let world = World::new();
    let refused = |dockerfile: &str| {
        let outcome = world.build(dockerfile);
        assert_eq!(outcome.made(), [""; 0]);
        explain(outcome.failed())
    };
    // The tests' default is no network at all.
    let told = refused("FROM base\nRUN --network=host true\n");
    assert!(told.contains("--allow network.host") && told.contains("at \"host\""), "{told}");
    let told = refused("FROM base\nRUN --security=insecure true\n");
    assert!(told.contains("--allow security.insecure"), "{told}");
    let told = refused("FROM base\nRUN --device=vendor.com/gpu true\n");
    assert!(told.contains("see no devices of the host"), "{told}");

    let links = "FROM base\nRUN --network=MODE ls /sys/class/net\n";
    let logs = |mode: &str, change: &dyn Fn(&mut BuildRequest)| -> Vec<String> {
        let mut request = world.request(&links.replace("MODE", mode));
        request.no_cache = true;
        change(&mut request);
        let outcome: Outcome = world.run(&request);
        outcome.built();
        outcome.logs()
    };
    assert_eq!(logs("none", &|request| request.network = NetworkMode::Host), ["lo"]);
    let host: Vec<String> = {
        let mut names: Vec<String> = fs::read_dir("/sys/class/net")
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(logs("host", &|request| request.run.allow.network_host = true)), host);
    assert_eq!(sorted(logs("host", &|request| request.network = NetworkMode::Host)), host);

    let mut request = world.request(
        "FROM base\nRUN --security=insecure cat /proc/self/status > /s; echo x > /sys/kernel/mm/nonsense 2>&1 || true\nRUN cat /proc/self/status > /t\n",
    );
    request.run.allow.security_insecure = true;
    let outcome = world.run(&request);
    let field = |file: &str, name: &str| {
        let text = world.read(outcome.built(), file);
        text.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned())).unwrap()
    };
    assert_eq!((field("/s", "Seccomp:"), field("/t", "Seccomp:")), ("0".into(), "2".into()));
    let caps = |file| u64::from_str_radix(&field(file, "CapEff:"), 16).unwrap();
    assert!(caps("/s") & (1 << 21) != 0, "no CAP_SYS_ADMIN: {:x}", caps("/s"));
    assert!(caps("/t") & (1 << 21) == 0);
}

fn bounds_hold() {
    let world = World::new();
    let mut request = world.request("FROM base\nRUN ulimit -n; ulimit -c; stat -f -c '%b %S' /dev/shm > /shm\n");
    request.run.ulimits =
        vec![Ulimit { name: "nofile".into(), soft: 77, hard: 99 }, Ulimit { name: "core".into(), soft: 0, hard: 0 }];
    request.run.shm_size_bytes = Some(1 << 20);
    let outcome = world.run(&request);
    outcome.built();
    assert_eq!(outcome.logs(), ["77", "0"]);
    let shm = world.read(outcome.built(), "/shm");
    let product: u64 = shm.split_whitespace().map(|number| number.parse::<u64>().unwrap()).product();
    assert_eq!(product, 1 << 20);

    // What an ordinary user may not have is said.
    if !matches!(privilege(), Privilege::Root { .. }) {
        let mut request = world.request("FROM base\nRUN true\n");
        request.run.ulimits = vec![Ulimit { name: "nofile".into(), soft: 1 << 30, hard: 1 << 30 }];
        let outcome = world.run(&request);
        outcome.built();
        assert!(
            outcome.warnings().iter().any(|line| line.contains("the limit nofile stays at")),
            "{:?}",
            outcome.warnings()
        );
    }
}

fn mounts_nest_and_leave_no_places() {
    let world = World::new();
    world.file("dir/in", "inner\n");
    // The inner mount is written first; targets are relative to the working directory; flags are Go's booleans.
    let outcome = world.build(
        "FROM base\nWORKDIR /w\n\
         RUN --mount=source=dir,target=outer/inner --mount=type=tmpfs,target=outer,size=1m \
         cat outer/inner/in; touch outer/x; (echo x > outer/inner/in) 2>/dev/null || echo read-only\n\
         RUN --mount=source=dir,target=/far/away,readonly=F echo changed > /far/away/in; cat /far/away/in\n\
         RUN --mount=source=dir,target=/far/away,rw cat /far/away/in; rm /far/away/in; ls / | tr '\\n' ' '; ls /w\n",
    );
    let built = outcome.built();
    let logs = outcome.logs();
    assert_eq!(logs[..4], ["inner", "read-only", "changed", "inner"], "{logs:?}");
    // Nothing of the places is left, in any of the layers.
    assert_eq!(world.show(built), "layer\n  d755 w/\nlayer\nlayer\nlayer\nWorkingDir: \"/w\"\n");
    let told = explain(world.build("FROM base\nRUN --mount=source=nowhere,target=/x true\n").failed());
    assert!(told.contains("`nowhere` is not in the build context") && told.contains("at \"--mount"), "{told}");
    let told = explain(world.build("FROM base\nARG MODE=x\nRUN --mount=type=cache,target=/x,ro=$MODE true\n").failed());
    assert!(told.contains("`x` is neither `true` nor `false`"), "{told}");
}

fn caches_differ_by_how_they_begin() {
    let world = World::new();
    let mut request = world.request(
        "FROM base AS other\nRUN mkdir /seed && echo seed > /seed/s\n\
         FROM base\n\
         RUN --mount=type=cache,id=c,target=/a echo one > /a/f\n\
         RUN --mount=type=cache,id=c,target=/b cat /b/f; stat -c %a /b\n\
         RUN --mount=type=cache,id=c,target=/c,mode=0700 stat -c %a /c; ls /c\n\
         RUN --mount=type=cache,id=c,from=other,source=/seed,target=/d cat /d/s; ls /d\n\
         RUN --mount=type=cache,target=/a ls /a; echo end\n",
    );
    request.no_cache = true;
    let outcome = world.run(&request);
    outcome.built();
    assert_eq!(outcome.logs(), ["one", "755", "700", "seed", "s", "end"]);
}
