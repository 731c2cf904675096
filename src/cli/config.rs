//! `sluice config`: the settings, without connecting anywhere.

use clap::Subcommand;
use serde_json::json;

use super::args::Global;
use super::check;
use super::exit::{Exit, Failure};
use super::output::{Output, table};
use crate::app::RoleName;
use crate::config::{Config, reference};
use crate::topics::{self, Spec};

/// What to do with the settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read settings, topics file and workspace file and say what is wrong with them; connects to nothing.
    #[command(
        after_help = "Examples:\n  sluice config check --config sluice.yaml\n  SLUICE__GATEWAY__NOPE=1 sluice config check   # an unknown key is an error, code 3"
    )]
    Check,
    /// Print the settings in force: defaults, then the file, then SLUICE__ variables. Secrets print as ***.
    #[command(
        after_help = "Examples:\n  sluice config show --config sluice.yaml\n  sluice config show -o json | jq .settings.topics"
    )]
    Show,
    /// Print the schemas of records, as a schema registry gets them; connects to nothing.
    #[command(
        after_help = "Examples:\n  sluice config schemas\n  sluice config schemas -o json | jq -c '.schemas[] | {schema: .schema}'   # bodies for POST /subjects/<subject>/versions"
    )]
    Schemas,
    /// Print every setting with its type, default and meaning.
    #[command(
        after_help = "Examples:\n  sluice config reference | less -S\n  sluice config reference --markdown > docs/configuration.md"
    )]
    Reference {
        /// As a Markdown table.
        #[arg(long)]
        markdown: bool,
    },
}

pub(super) fn run(
    global: &Global,
    command: ConfigCommand,
    output: &Output,
) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check => {
            let config = global.load()?;
            let spec = Spec::load(config.topics.file.as_deref())?;
            topics::fit(&spec, &config)?;
            check::workspace(&config)?;
            let topics = spec.names().count();
            let from = global
                .config
                .as_ref()
                .map_or_else(|| "defaults".to_owned(), |path| path.display().to_string());
            output.data(
                &json!({
                    "version": 1,
                    "ok": true,
                    "config": from,
                    "topics": topics,
                    "workspace": config.workspace.file,
                }),
                || format!("{from}: ok"),
            )
        }
        ConfigCommand::Show => show(&global.load()?, output),
        ConfigCommand::Schemas => schemas(output),
        ConfigCommand::Reference { markdown: true } => output.raw(reference::markdown().as_bytes()),
        ConfigCommand::Reference { markdown: false } => list(output),
    }
}

fn show(config: &Config, output: &Output) -> Result<Exit, Failure> {
    let settings = serde_json::to_value(config).map_err(anyhow::Error::from)?;
    let yaml = serde_yaml_ng::to_string(&settings).map_err(anyhow::Error::from)?;
    output.data(&json!({"version": 1, "settings": settings}), || yaml)
}

fn schemas(output: &Output) -> Result<Exit, Failure> {
    let all: Vec<serde_json::Value> = RoleName::schemas_of(&RoleName::ALL)
        .map(|name| json!({"subject": name.full_name(), "schema": name.json()}))
        .collect();
    output.data(&json!({"version": 1, "schemas": all}), || {
        RoleName::schemas_of(&RoleName::ALL)
            .map(|name| name.json())
            .collect::<Vec<_>>()
            .join("\n")
    })
}

fn list(output: &Output) -> Result<Exit, Failure> {
    let settings = reference::settings();
    let rows: Vec<Vec<String>> = settings
        .iter()
        .map(|s| {
            let default = if s.default.is_null() {
                String::new()
            } else {
                s.default.to_string()
            };
            vec![
                s.key.clone(),
                s.kind.clone(),
                default,
                s.doc.replace('\n', " "),
            ]
        })
        .collect();
    let json: Vec<serde_json::Value> = settings
        .iter()
        .map(|s| json!({"key": s.key, "type": s.kind, "default": s.default, "meaning": s.doc}))
        .collect();
    output.data(&json!({"version": 1, "settings": json}), || {
        table(&["KEY", "TYPE", "DEFAULT", "MEANING"], &rows)
    })
}
