//! Flags of `build` for what RUN instructions see and may use: secrets, key agents, rights, bounds.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::Read as _,
    os::unix::{ffi::OsStringExt as _, fs::FileTypeExt as _},
    path::{Path, PathBuf},
};

use compose::ULIMITS;
use engine::{Allow, RunSettings, Secret, SshSource, Ulimit};

use crate::{
    context::Context,
    failure::Failure,
    settings::{self, NETWORK_HOST},
    terminal,
};

/// BuildKit refuses longer ones (`session/secrets`, `MaxSecretSize`).
const SECRET_BYTES_MAX: u64 = 500 * 1024;
/// The kernel's default, in microseconds, which `--cpu-quota` refers to without `--cpu-period`.
const CPU_PERIOD_US: u64 = 100_000;
const SECURITY_INSECURE: &str = "security.insecure";

/// Flags about RUN.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct RunArgs {
    /// Secret for `RUN --mount=type=secret`: id=NAME[,src=FILE or ,env=VARIABLE]
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Key agent for `RUN --mount=type=ssh`: `default` (that of SSH_AUTH_SOCK), or ID=SOCKET, or `ID=KEYFILE[,KEYFILE]`
    #[arg(long, value_name = "SSH")]
    ssh: Vec<String>,
    /// What RUN may ask for: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    allow: Vec<String>,
    /// Size of /dev/shm, such as 128m
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Resource limit of processes: `NAME=SOFT[:HARD]`
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<String>,
    /// Parent of the containers' control groups
    #[arg(long, value_name = "GROUP")]
    cgroup_parent: Option<String>,
    /// Most memory of each RUN, such as 2g
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Microseconds of processor time of each RUN in every --cpu-period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_quota: Option<u64>,
    /// Microseconds that --cpu-quota refers to [default: 100000]
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,

    // Taken for the sake of scripts; the note says what becomes of them.
    #[arg(long, hide = true)]
    memory_swap: Option<String>,
    #[arg(short, long, hide = true)]
    cpu_shares: Option<String>,
    #[arg(long, hide = true)]
    cpuset_cpus: Option<String>,
    #[arg(long, hide = true)]
    cpuset_mems: Option<String>,
    #[arg(long, hide = true)]
    isolation: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    squash: Option<String>,
}

impl RunArgs {
    /// The settings, with secrets read and agents looked for.
    pub(super) fn settings(&self, context: &Context) -> Result<RunSettings, Failure> {
        self.refuse_what_has_no_meaning()?;
        let cwd = &context.settings.cwd;
        let env = |name: &str| std::env::var_os(name);
        let mut settings = RunSettings {
            allow: allow(&self.allow, &settings::locally_allowed(&env))?,
            shm_size_bytes: self.shm_size.as_deref().map(|text| ram_bytes("--shm-size", text)).transpose()?,
            ulimits: self.ulimit.iter().map(|given| ulimit(given)).collect::<Result<Vec<_>, Failure>>()?,
            cgroup_parent: self.cgroup_parent.clone(),
            memory_bytes: self.memory.as_deref().map(|text| ram_bytes("--memory", text)).transpose()?,
            cpus: cpus(self.cpu_quota, self.cpu_period)?,
            ..RunSettings::default()
        };
        for given in &self.secret {
            settings.secrets.extend(secret(given, cwd, &env)?);
        }
        for given in &self.ssh {
            let (id, source) = ssh(given, cwd, &env)?;
            settings.ssh.insert(id, source);
        }
        Ok(settings)
    }

    fn refuse_what_has_no_meaning(&self) -> Result<(), Failure> {
        if self.squash.as_deref().is_some_and(|squash| squash != "false") {
            return Err(Failure::usage(
                "`--squash` is not supported: it loses the layers that registries and caches share",
            )
            .hint("write a last stage that takes what is needed: `FROM scratch` and `COPY --from=build / /`"));
        }
        if let Some(isolation) = self.isolation.as_deref().filter(|isolation| !matches!(*isolation, "" | "default")) {
            return Err(Failure::usage(format!("`--isolation {isolation}` is for Windows containers"))
                .hint("build without `--isolation`"));
        }
        let ignored = [
            ("--memory-swap", &self.memory_swap, "RUN has no swap beyond --memory"),
            ("--cpu-shares", &self.cpu_shares, "use --cpu-quota"),
            ("--cpuset-cpus", &self.cpuset_cpus, "use taskset around the build"),
            ("--cpuset-mems", &self.cpuset_mems, "use numactl around the build"),
        ];
        for (flag, _, instead) in ignored.iter().filter(|(_, value, _)| value.is_some()) {
            terminal::warning(&format!("`{flag}` has no effect here: {instead}"));
        }
        Ok(())
    }
}

/// `id=NAME[,src=FILE|,env=VARIABLE][,type=file|env]`; a bare id is a variable of that name, else a file. `None`: a variable
/// that is not set, which only a RUN that requires it minds.
fn secret(
    given: &str,
    cwd: &Path,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<(String, Secret)>, Failure> {
    // The value may hold the secret's name, never the secret: it is safe to repeat.
    let wrong = |message: String| {
        Failure::usage(format!("`--secret {given}`: {message}"))
            .hint("a secret is given as `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`")
    };
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    for field in given.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| wrong(format!("`{field}` is not KEY=VALUE")))?;
        let key = match key.to_ascii_lowercase().as_str() {
            "id" => "id",
            "source" | "src" => "src",
            "env" => "env",
            "type" => "type",
            other => return Err(wrong(format!("there is no key `{other}`"))),
        };
        fields.insert(key, value);
    }
    let field = |key: &str| fields.get(key).copied().filter(|value| !value.is_empty());
    let id = field("id").ok_or_else(|| wrong("it has no id".into()))?;
    let (mut file, mut variable) = (field("src"), field("env"));
    match field("type") {
        None | Some("file") => {}
        Some("env") if variable.is_none() => (file, variable) = (None, file),
        Some("env") => {}
        Some(other) => return Err(wrong(format!("there is no type `{other}`"))),
    }
    if file.is_none() && variable.is_none() {
        if env(id).is_some() && field("type") != Some("file") { variable = Some(id) } else { file = Some(id) }
    }
    let content = match (variable, file) {
        (Some(name), _) => match env(name) {
            Some(value) => value.into_vec(),
            None => return Ok(None),
        },
        (None, Some(file)) => read_secret(&cwd.join(file))
            .map_err(|error| Failure::usage(format!("the file of secret `{id}` cannot be read")).because(&error))?,
        (None, None) => unreachable!("one of them was set above"),
    };
    if content.len() as u64 > SECRET_BYTES_MAX {
        return Err(wrong("it is larger than 500 KiB".into()));
    }
    Ok(Some((id.to_owned(), Secret::new(content))))
}

fn read_secret(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs_err::File::open(path)?.take(SECRET_BYTES_MAX + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// `ID[=SOCKET|KEYFILE[,KEYFILE…]]`.
fn ssh(given: &str, cwd: &Path, env: &dyn Fn(&str) -> Option<OsString>) -> Result<(String, SshSource), Failure> {
    let (id, paths) = given.split_once('=').unwrap_or((given, ""));
    let paths: Vec<PathBuf> = paths.split(',').filter(|path| !path.is_empty()).map(|path| cwd.join(path)).collect();
    if paths.is_empty() {
        let socket = env("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).ok_or_else(|| {
            Failure::usage(format!("`--ssh {given}`: no key agent runs (SSH_AUTH_SOCK is not set)"))
                .hint(format!("start one with `eval $(ssh-agent)` and `ssh-add`, or give a key: `--ssh {id}=KEYFILE`"))
        })?;
        return Ok((id.to_owned(), SshSource::Agent(cwd.join(socket))));
    }
    let mut sockets = 0;
    for path in &paths {
        let data = fs_err::metadata(path)
            .map_err(|error| Failure::usage(format!("`--ssh {given}` cannot be used")).because(&error))?;
        sockets += usize::from(data.file_type().is_socket());
    }
    match (sockets, &paths[..]) {
        (0, _) => Ok((id.to_owned(), SshSource::Keys(paths))),
        (1, [socket]) => Ok((id.to_owned(), SshSource::Agent(socket.clone()))),
        _ => Err(Failure::usage(format!("`--ssh {given}`: one socket, or files of keys, not both"))),
    }
}

fn allow(given: &[String], local: &[String]) -> Result<Allow, Failure> {
    let mut allow = Allow::default();
    for name in given {
        match name.as_str() {
            NETWORK_HOST => allow.network_host = true,
            SECURITY_INSECURE if local.iter().any(|known| known == name) => allow.security_insecure = true,
            SECURITY_INSECURE => {
                return Err(Failure::usage(format!("`--allow {name}` is not permitted on this machine")).hint(
                    format!(
                        "write `{name}` into {}, if every build that is started here may have all rights",
                        settings::allow_file(&|name| std::env::var_os(name)).display()
                    ),
                ));
            }
            other => {
                return Err(Failure::usage(format!("there is no entitlement `{other}`"))
                    .hint(format!("known are {NETWORK_HOST} and {SECURITY_INSECURE}")));
            }
        }
    }
    Ok(allow)
}

/// `NAME=SOFT[:HARD]`; -1 is unlimited.
fn ulimit(given: &str) -> Result<Ulimit, Failure> {
    let wrong = |message: &str| {
        Failure::usage(format!("`--ulimit {given}`: {message}")).hint("a limit is given as `nofile=1024:4096`")
    };
    let (name, values) = given.split_once('=').ok_or_else(|| wrong("it is not NAME=SOFT[:HARD]"))?;
    if !ULIMITS.contains(&name) {
        let near = dockerfile::nearest(name, ULIMITS);
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return Err(wrong(&format!("there is no limit `{name}`{near}")));
    }
    let number = |text: &str| match text {
        "-1" => Ok(u64::MAX),
        text => text.parse::<u64>().map_err(|_| wrong(&format!("`{text}` is not a number"))),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err(wrong("the soft limit is above the hard one"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

fn cpus(quota: Option<u64>, period: Option<u64>) -> Result<Option<f64>, Failure> {
    let period = period.unwrap_or(CPU_PERIOD_US);
    match quota.filter(|quota| *quota > 0) {
        Some(_) if period == 0 => Err(Failure::usage("`--cpu-period` is 0")),
        Some(quota) => Ok(Some(quota as f64 / period as f64)),
        None => Ok(None),
    }
}

/// Sizes of memory are counted in 1024s whatever the unit is called, as docker does (go-units, `RAMInBytes`).
fn ram_bytes(flag: &str, text: &str) -> Result<u64, Failure> {
    let wrong = || Failure::usage(format!("`{flag} {text}` is not a size such as 512m or 2g"));
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let power = match unit.trim().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Ok((number * 1024_f64.powi(power)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(*value))
    }

    #[test]
    fn secrets_come_from_files_and_variables() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("file"), "of the file").unwrap();
        fs_err::write(dir.path().join("name"), "of the id").unwrap();
        let env = environment(&[("TOKEN", "of the variable"), ("both", "variable first")]);
        let read = |given: &str| match secret(given, dir.path(), &env) {
            Ok(Some((id, secret))) => format!("{id}: {}", String::from_utf8_lossy(secret.expose())),
            Ok(None) => "not given".into(),
            Err(failure) => failure.message,
        };
        assert_eq!(read("id=a,src=file"), "a: of the file");
        assert_eq!(read("source=file,id=a"), "a: of the file");
        assert_eq!(read("id=a,env=TOKEN"), "a: of the variable");
        assert_eq!(read("id=a,type=env,src=TOKEN"), "a: of the variable");
        assert_eq!(read("type=env,id=TOKEN"), "TOKEN: of the variable");
        assert_eq!(read("id=TOKEN"), "TOKEN: of the variable");
        assert_eq!(read("id=name"), "name: of the id");
        assert_eq!(read("id=both"), "both: variable first");
        assert_eq!(read("id=a,env=MISSING"), "not given");
        assert_eq!(read("id=a,src=missing"), "the file of secret `a` cannot be read");
        assert_eq!(read("src=file"), "`--secret src=file`: it has no id");
        assert_eq!(read("id=a,kind=x"), "`--secret id=a,kind=x`: there is no key `kind`");
        assert_eq!(read("id=a,type=vault"), "`--secret id=a,type=vault`: there is no type `vault`");
        assert_eq!(read("a"), "`--secret a`: `a` is not KEY=VALUE");
    }

    #[test]
    fn agents_are_sockets_or_keys() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("key"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("sock")).unwrap();
        let env = environment(&[("SSH_AUTH_SOCK", "/run/agent")]);
        let read = |given: &str| ssh(given, dir.path(), &env).map_err(|failure| failure.message);
        assert_eq!(read("default"), Ok(("default".into(), SshSource::Agent("/run/agent".into()))));
        assert_eq!(read("a=sock"), Ok(("a".into(), SshSource::Agent(dir.path().join("sock")))));
        let keys = SshSource::Keys(vec![dir.path().join("key"), dir.path().join("key")]);
        assert_eq!(read("a=key,key"), Ok(("a".into(), keys)));
        assert_eq!(read("a=key,sock"), Err("`--ssh a=key,sock`: one socket, or files of keys, not both".into()));
        assert_eq!(read("a=none"), Err("`--ssh a=none` cannot be used".into()));
        let none = ssh("default", dir.path(), &environment(&[])).map_err(|failure| failure.message);
        assert_eq!(none, Err("`--ssh default`: no key agent runs (SSH_AUTH_SOCK is not set)".into()));
    }

    #[test]
    fn limits_and_sizes_are_dockers() {
        let limit = |soft, hard| Ok(Ulimit { name: "nofile".into(), soft, hard });
        let read = |given: &str| ulimit(given).map_err(|failure| failure.message);
        assert_eq!(read("nofile=10:20"), limit(10, 20));
        assert_eq!(read("nofile=10"), limit(10, 10));
        assert_eq!(read("nofile=10:-1"), limit(10, u64::MAX));
        assert_eq!(read("nofile=20:10"), Err("`--ulimit nofile=20:10`: the soft limit is above the hard one".into()));
        assert_eq!(
            read("nofiles=1"),
            Err("`--ulimit nofiles=1`: there is no limit `nofiles`; did you mean `nofile`?".into())
        );
        for (text, bytes) in [("64", 64), ("1k", 1024), ("1.5g", 1_610_612_736), ("2MB", 2 << 20), ("1 GiB", 1 << 30)] {
            assert_eq!(ram_bytes("-m", text).ok(), Some(bytes), "{text}");
        }
        assert!(ram_bytes("-m", "1x").is_err() && ram_bytes("-m", "").is_err());
        assert_eq!(cpus(Some(50_000), None).ok(), Some(Some(0.5)));
        assert_eq!(cpus(Some(50_000), Some(25_000)).ok(), Some(Some(2.0)));
    }

    #[test]
    fn all_rights_need_a_word_of_the_machine() {
        let read = |local: &[String]| allow(&["network.host".into(), "security.insecure".into()], local);
        assert!(read(&[]).is_err_and(|failure| failure.message.contains("not permitted on this machine")));
        assert_eq!(
            read(&["security.insecure".into()]).ok(),
            Some(Allow { network_host: true, security_insecure: true })
        );
        assert!(allow(&["device".into()], &[]).is_err());
    }
}
