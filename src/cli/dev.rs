//! `sluice dev`: everything in one process, to try.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::args::Global;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::roles;
use crate::app::RoleName;
use crate::dev::kafka::LocalKafkaError;
use crate::dev::{self, DevError, DevOptions, Ready};
use crate::telemetry;

/// How long the runtime may take to let go of blocking calls at the end; a download may be among them.
const LINGER: Duration = Duration::from_secs(1);

/// What dev mode can be told.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Folder for all that is written: Kafka's data, the webhook's log, the warehouse. Used again by the next start.
    #[arg(long, value_name = "DIR", default_value = ".dev")]
    data_dir: PathBuf,
    /// Sources and destinations, in the shape of RudderStack's workspaceConfig.json or ours (YAML); followed when it
    /// changes. Without it a sample: an HTTP source, the built-in webhook and a SQLite file.
    #[arg(long, value_name = "FILE")]
    workspace: Option<PathBuf>,
    /// Port of the gateway; without it 8080, or any free one if that is taken.
    #[arg(long, value_name = "N")]
    gateway_port: Option<u16>,
    /// Port of the built-in webhook, for a workspace that names it; without it any free one.
    #[arg(long, value_name = "N")]
    webhook_port: Option<u16>,
    /// What to run: gateway, processor, router, warehouse, with commas between. Without it all.
    #[arg(long, value_name = "LIST", value_parser = role_list)]
    roles: Option<Roles>,
}

/// A list of roles; a type of its own, because clap takes an option of type `Vec` for one that is repeated.
#[derive(Debug, Clone)]
struct Roles(Vec<RoleName>);

fn role_list(text: &str) -> Result<Roles, String> {
    RoleName::list(text).map(Roles)
}

pub(super) const HELP: &str = "\
Uses the Kafka that SLUICE_BOOTSTRAP or --bootstrap-server names; else starts one: the distribution in KAFKA_HOME, or jars that
Maven fetches once. Prints where everything is when all is ready, with --output json as one line. SIGTERM or Ctrl-C drains and
stops Kafka too; a second one ends it at once. Nothing that was accepted is lost by a kill; the next start goes on with it.

Examples:
  sluice dev
  sluice dev --data-dir /tmp/sluice --workspace workspaceConfig.json
  sluice dev --roles gateway --output json | jq -r .gateway";

pub(super) fn run(global: &Global, args: DevArgs, output: &Output) -> Result<Exit, Failure> {
    let config = global.load()?;
    telemetry::init(&global.log_of_a_command());
    let say = output.clone();
    let options = DevOptions {
        data_dir: args.data_dir,
        workspace: args.workspace,
        gateway_port: args.gateway_port,
        webhook_port: args.webhook_port,
        bootstrap: global.bootstrap_server.clone(),
        roles: args
            .roles
            .map_or(RoleName::ALL.to_vec(), |Roles(roles)| roles),
        config,
        progress: Arc::new(move |line| say.say(line)),
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let mut printed = Ok(Exit::Ok);
    let ended = runtime.block_on(dev::run(options, |ready| printed = print(ready, output)));
    runtime.shutdown_timeout(LINGER);
    ended.map_err(failure)?;
    printed
}

fn print(ready: &Ready, output: &Output) -> Result<Exit, Failure> {
    let json = serde_json::to_value(ready).map_err(anyhow::Error::from)?;
    output.data(&json, || ready.page(is_installed))
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| Path::new(&dir).join(program).is_file())
}

fn failure(error: DevError) -> Failure {
    match error {
        DevError::App(error) => roles::failure(error),
        DevError::Config(error) => error.into(),
        DevError::Workspace(_) | DevError::NoSource { .. } => Failure::new(Exit::Config, error),
        DevError::Interrupted => Failure::new(Exit::Interrupted, error),
        DevError::Kafka(LocalKafkaError::Unreachable { .. }) => Failure::new(Exit::Connect, error),
        DevError::Kafka(_)
        | DevError::Lock(_)
        | DevError::NotReady { .. }
        | DevError::Io { .. } => Failure::new(Exit::Failed, error),
    }
}
