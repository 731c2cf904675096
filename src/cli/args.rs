//! The command tree.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::config::ConfigCommand;
use super::dev::{self, DevArgs};
use super::exit::TABLE;
use super::topics::TopicsCommand;
use crate::config::{Config, ConfigError, LogConfig};

/// A customer-data pipeline on Kafka: takes events as RudderStack's servers do, delivers them to destinations in order per
/// user, and loads them into warehouse tables.
#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version,
    max_term_width = 110,
    after_help = TABLE,
    after_long_help = TABLE
)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Settings file (YAML), also from SLUICE_CONFIG. SLUICE__SECTION__KEY variables win over it.
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "SLUICE_CONFIG",
        hide_env = true
    )]
    pub config: Option<PathBuf>,
    /// How results are written to standard output: table or json.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT", hide_possible_values = true)]
    pub output: Format,
    /// Kafka brokers to ask first; wins over `kafka.bootstrap`.
    #[arg(long, global = true, value_name = "HOST:PORT,...")]
    pub bootstrap_server: Option<String>,
    /// No colours on the terminal (also NO_COLOR=1).
    #[arg(long, global = true)]
    pub no_color: bool,
    /// More to read on standard error; twice for still more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Only failures on standard error.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// Shape of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON object with a `version`; keys are only ever added within a version.
    Json,
}

impl Global {
    /// The settings: defaults, then the file, then the environment, then flags.
    ///
    /// # Errors
    /// When they cannot be read or are wrong.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut config = crate::config::load(self.config.as_deref())?;
        if let Some(bootstrap) = &self.bootstrap_server {
            config.kafka.bootstrap.clone_from(bootstrap);
        }
        match (self.quiet, self.verbose) {
            (true, _) => "warn".clone_into(&mut config.log.level),
            (false, 0) => {}
            (false, 1) => "debug".clone_into(&mut config.log.level),
            (false, _) => "trace".clone_into(&mut config.log.level),
        }
        Ok(config)
    }

    /// Logging for a command that people wait for: only what they should know.
    pub(super) fn log_of_a_command(&self) -> LogConfig {
        let level = match (self.quiet, self.verbose) {
            (true, _) => "error",
            (false, 0) => "warn",
            (false, 1) => "debug",
            (false, _) => "trace",
        };
        LogConfig {
            level: level.to_owned(),
            ..LogConfig::default()
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take events over HTTP; a 200 means that Kafka has them.
    #[command(after_help = ROLE_HELP)]
    Gateway,
    /// Filter, transform and address events to destinations, in one Kafka transaction.
    #[command(after_help = ROLE_HELP)]
    Processor,
    /// Deliver events to destinations, in order per user.
    #[command(after_help = ROLE_HELP)]
    Router,
    /// Write events as Parquet and load them into tables.
    #[command(after_help = ROLE_HELP)]
    Warehouse,
    /// Run all roles in one process.
    #[command(after_help = ROLE_HELP)]
    All,
    /// Run all roles in one process with a local Kafka, a webhook and a warehouse to look at.
    #[command(after_help = dev::HELP)]
    Dev(DevArgs),
    /// Compare the cluster's topics with what is declared, and bring them there.
    Topics {
        /// What to do with them.
        #[command(subcommand)]
        command: TopicsCommand,
    },
    /// Look at the settings; connects to nothing.
    Config {
        /// What to do with them.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the version.
    #[command(after_help = "Examples:\n  sluice version\n  sluice version -o json")]
    Version,
    /// Print a completion script for a shell.
    #[command(
        after_help = "Examples:\n  sluice completion bash > /etc/bash_completion.d/sluice\n  sluice completion zsh > ~/.zfunc/_sluice"
    )]
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

const ROLE_HELP: &str = "\
Serves /health/live, /health/ready and /metrics on `admin.listen`. SIGTERM or Ctrl-C drains within `drain_ms` and exits with 0;
a second one exits at once with 130. Starts only on topics of a safe shape: see `sluice topics check`.

Examples:
  sluice gateway --config sluice.yaml
  SLUICE__KAFKA__BOOTSTRAP=kafka-1:9092 sluice all --config sluice.yaml";
