//! The command line: what people and scripts meet.
//!
//! Rules that hold for every command: standard output carries data only and standard error everything that is said about it;
//! `--output json` is a contract with a `version`; whatever writes shows its plan and asks first; exit codes are in [`Exit`].

mod args;
mod check;
mod config;
mod dev;
mod exit;
mod output;
mod roles;
mod topics;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

pub use args::{Cli, Command};
pub use exit::{Exit, Failure};
use output::Output;

use crate::app::RoleName;

/// Reads the command line, runs the command and says how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data: clap prints them on standard output with code 0, its errors on standard error.
            let printed = error.print();
            return match printed {
                Ok(()) => u8::try_from(error.exit_code()).unwrap_or(1).into(),
                Err(_) => Exit::Failed.into(),
            };
        }
    };
    let output = Output::new(&cli.global);
    match run(cli, &output) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.exit.into()
        }
    }
}

fn run(cli: Cli, output: &Output) -> Result<Exit, Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Gateway => roles::run(global, &[RoleName::Gateway]),
        Command::Processor => roles::run(global, &[RoleName::Processor]),
        Command::Router => roles::run(global, &[RoleName::Router]),
        Command::Warehouse => roles::run(global, &[RoleName::Warehouse]),
        Command::All => roles::run(global, &RoleName::ALL),
        Command::Dev(args) => dev::run(global, args, output),
        Command::Topics { command } => topics::run(global, command, output),
        Command::Config { command } => config::run(global, command, output),
        Command::Version => version(output),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut script);
            output.raw(&script)
        }
    }
}

fn version(output: &Output) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    output.data(
        &serde_json::json!({"version": 1, "sluice": version}),
        || format!("sluice {version}"),
    )
}

#[cfg(test)]
mod tests;
