//! What `sluice config check` finds in a workspace, and in the settings that name its parts. Connects to nothing.

use std::path::Path;

use crate::config::{Config, RouterConfig};
use crate::control::{ControlError, Destination, Workspace, parse_workspace};
use crate::destinations::{self, DESTINATIONS, HttpClient, HttpOptions};
use crate::warehouse::loaders;

use super::exit::{Exit, Failure};

/// Reads the workspace that the settings name as a file, and says what is wrong with it; that of a server is not asked for.
pub(super) fn workspace(config: &Config) -> Result<(), Failure> {
    let Some(path) = &config.workspace.file else {
        return Ok(());
    };
    let workspace = read(path).map_err(|error| Failure::new(Exit::Config, error))?;
    crate::tls::install();
    let http = HttpClient::new(&HttpOptions::default()).map_err(anyhow::Error::from)?;
    let mut problems = settings_of_destinations(&workspace, &http);
    problems.extend(unknown_exceptions(&config.router, &workspace));
    if problems.is_empty() {
        return Ok(());
    }
    let said: Vec<String> = problems
        .into_iter()
        .map(|problem| format!("{}: {problem}", path.display()))
        .collect();
    Err(Failure::say(Exit::Config, said.join("\n")))
}

fn read(path: &Path) -> Result<Workspace, ControlError> {
    let text = std::fs::read_to_string(path).map_err(|source| ControlError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse_workspace(&path.display().to_string(), &text, 1)
}

/// What is wrong with destinations that are enabled and of a type that this binary serves.
fn settings_of_destinations(workspace: &Workspace, http: &HttpClient) -> Vec<String> {
    let mut enabled: Vec<_> = workspace.destinations().filter(|d| d.enabled).collect();
    enabled.sort_by(|a, b| a.id.cmp(&b.id));
    let problem = |destination: &Destination| {
        let why = if let Some(kind) = destinations::find(&destination.kind) {
            (kind.build)(&destination.config, http)
                .err()
                .map(|error| error.to_string())
        } else {
            let kind = loaders::kind_of(&destination.kind)?;
            (kind.open)(&destination.config)
                .err()
                .map(|error| error.to_string())
        };
        why.map(|why| {
            format!(
                "destination {} ({}): {why}",
                destination.id, destination.kind
            )
        })
    };
    enabled
        .into_iter()
        .filter_map(|destination| problem(destination))
        .collect()
}

/// Exceptions that no destination would ever find. Pure.
fn unknown_exceptions(router: &RouterConfig, workspace: &Workspace) -> Vec<String> {
    let is_known = |name: &str| {
        destinations::find(name).is_some()
            || workspace
                .destinations()
                .any(|d| d.id == name || d.kind == name)
    };
    let kinds: Vec<&str> = DESTINATIONS.iter().map(|kind| kind.name).collect();
    router
        .destinations
        .keys()
        .filter(|name| !is_known(name))
        .map(|name| {
            format!(
                "no destination has the id or type that router.destinations.{name} names; types are {}, in capitals",
                kinds.join(", ")
            )
        })
        .collect()
}
