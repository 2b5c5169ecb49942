//! One module per command; each reads as its story.

pub(crate) mod base;
pub(crate) mod build;
pub(crate) mod cache;
pub(crate) mod capsule;
pub(crate) mod check;
pub(crate) mod clean;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod copy;
pub(crate) mod demo;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod environments;
pub(crate) mod evidence;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod images;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod keys;
pub(crate) mod layers;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod logs;
pub(crate) mod man;
mod named;
mod obtain;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
mod record;
pub(crate) mod registry;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod save;
pub(crate) mod sbom;
pub(crate) mod schema;
pub(crate) mod shell;
pub(crate) mod sign;
mod solution;
pub(crate) mod tag;
mod transfer;
pub(crate) mod trust;
pub(crate) mod up;
pub(crate) mod verify;
mod watch;

pub(crate) use init::environment;
pub(crate) use record::record_of_up;
pub(crate) use run::{HOST_COMMANDS, SECRET_COMMANDS, prepare_failure};

use crate::{cli::Command, context::Context, exit::Exit};

/// Runs a command.
pub(crate) fn dispatch(command: Command, context: &Context) -> anyhow::Result<Exit> {
    match command {
        Command::Run(args) => run::run(&args, context),
        Command::Build(args) => build::run(&args, context),
        Command::Test(args) => run::test(&args, context),
        Command::Health(args) => run::health(&args, context),
        Command::Publish(args) => run::publish(&args, context),
        Command::Clean(args) => clean::run(&args, context),
        Command::Up(args) => up::run(&args, context),
        Command::Down(args) => down::run(&args, context),
        Command::Ps(args) => ps::run(&args, context),
        Command::Exec(args) => exec::run(&args, context),
        Command::Start(args) => down::start(&args, context),
        Command::Stop(args) => down::stop(&args, context),
        Command::Restart(args) => down::restart(&args, context),
        Command::SolutionOwner(args) => crate::solution::owner::run(&args, context),
        Command::Logs(args) => logs::run(&args, context),
        Command::Capsule(args) => capsule::run(&args, context),
        Command::Replay(args) => capsule::replay(&args, context),
        Command::Shell(args) => shell::run(&args, context),
        Command::Images(args) => images::run(&args, context),
        Command::Inspect(args) => inspect::run(&args, context),
        Command::Layers(args) => layers::run(&args, context),
        Command::Diff(args) => diff::run(&args, context),
        Command::Sbom(args) => sbom::run(&args, context),
        Command::Tag(args) => tag::run(&args, context),
        Command::Push(args) => push::run(&args, context),
        Command::Pull(args) => pull::run(&args, context),
        Command::Copy(args) => copy::run(&args, context),
        Command::Save(args) => save::run(&args, context),
        Command::Load(args) => load::run(&args, context),
        Command::Rmi(args) => rmi::run(&args, context),
        Command::Evidence(args) => evidence::run(&args, context),
        Command::Verify(args) => verify::run(&args, context),
        Command::Sign(args) => sign::run(&args, context),
        Command::Keys(args) => keys::run(&args, context),
        Command::Promote(args) => environments::promote(&args, context),
        Command::Approve(args) => environments::approve(&args, context),
        Command::Rollback(args) => environments::rollback(&args, context),
        Command::History(args) => environments::history(&args, context),
        Command::Where(args) => environments::find(&args, context),
        Command::Login(args) => login::run(&args, context),
        Command::Logout(args) => logout::run(&args, context),
        Command::Base(args) => base::run(&args, context),
        Command::Registry(args) => registry::run(&args, context),
        Command::Init(args) => init::run(&args, context),
        Command::Check(args) => check::run(&args, context),
        Command::Config(args) => config::run(&args, context),
        Command::Explain(args) => explain::run(&args, context),
        Command::Doctor(args) => doctor::run(&args, context),
        Command::Schema(args) => schema::run(&args, context),
        Command::Completions(args) => completions::run(&args, context),
        Command::Man(args) => man::run(&args, context),
        Command::Demo(args) => demo::run(&args, context),
    }
}
