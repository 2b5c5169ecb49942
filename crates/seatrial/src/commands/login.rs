//! `seatrial login`: checked against the registry, kept where docker keeps it.

use std::io::{BufRead as _, IsTerminal as _};

use registry::{Credentials, LoginPlace};

use crate::{cli::EngineArgs, context::Context, exit::Exit, failure::Failure, terminal};

/// Docker's own name for its registry's logins.
pub(crate) const DEFAULT_HOST: &str = "docker.io";

/// Flags of `seatrial login`.
#[derive(Debug, clap::Args)]
pub(crate) struct LoginArgs {
    /// Host of the registry
    #[arg(default_value = DEFAULT_HOST)]
    host: String,
    /// User
    #[arg(short, long)]
    username: Option<String>,
    /// Password or token (better: --password-stdin)
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password or token from stdin
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Checks a login and keeps it.
pub(crate) fn run(args: &LoginArgs, context: &Context) -> anyhow::Result<Exit> {
    let host = host_of(&args.host);
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ask("Username: ", false)?,
    };
    let password = match (&args.password, args.password_stdin) {
        (Some(password), _) => password.clone(),
        (None, true) => read_line()?,
        (None, false) => ask("Password: ", true)?,
    };
    if user.is_empty() || password.is_empty() {
        return Err(Failure::usage("a login needs a user and a password").into());
    }
    let client = context.client(&args.engine.insecure_registry);
    let place = context.block_on_cancellable(async {
        client.check_login(&host, &user, &password).await?;
        let credentials = Credentials::from_environment(|name| std::env::var_os(name));
        credentials.store(&host, &user, &password).await.map_err(|error| {
            anyhow::Error::new(Failure::surroundings("the login is right, but it cannot be kept").because(&error))
        })
    })?;
    if let LoginPlace::File(file) = &place {
        terminal::warning(&format!(
            "the password is kept unencrypted in {}; a credential helper would be safer",
            file.display()
        ));
    }
    terminal::message_line(&format!("logged in to {host}"));
    Ok(Exit::Passed)
}

/// `https://host/v1/` is what docker's users paste.
pub(crate) fn host_of(text: &str) -> String {
    let host = text.trim_start_matches("https://").trim_start_matches("http://");
    match host.split('/').next().unwrap_or(host) {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_HOST.to_owned(),
        host => host.to_owned(),
    }
}

fn ask(prompt: &str, is_secret: bool) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::usage("there is no terminal to ask for a login")
            .hint("`echo TOKEN | seatrial login --username USER --password-stdin HOST`"));
    }
    terminal::message(prompt);
    if !is_secret {
        return read_line();
    }
    console::Term::stderr()
        .read_secure_line()
        .map_err(|error| Failure::surroundings("cannot read the password").because(&error))
}

fn read_line() -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::usage("cannot read stdin").because(&error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
