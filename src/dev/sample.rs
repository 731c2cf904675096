//! The workspace that dev mode uses when it is given none, and what it reads out of the one it uses. Pure.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::DevError;
use crate::control::Workspace;

/// The sample source's write key. Not a secret: it opens a gateway on the loopback address.
const WRITE_KEY: &str = "sluice-dev";

const HEAD: &str = "\
# The sample workspace of `sluice dev`, written anew at every start.
# To change it, copy it and start with --workspace COPY; changes of the copy are taken over while Sluice runs.
";

/// The sample: an HTTP source, the built-in webhook, and a SQLite file as warehouse.
pub(super) fn workspace(webhook: &str, warehouse: &Path) -> Result<String, DevError> {
    let sample = json!({
        "workspace": "sample",
        "sources": [{
            "id": "sample-source",
            "name": "Sample HTTP source",
            "type": "HTTP",
            "write_key": WRITE_KEY,
        }],
        "destinations": [{
            "id": "sample-webhook",
            "name": "Webhook of dev mode",
            "type": "WEBHOOK",
            "config": {"webhookUrl": webhook, "webhookMethod": "POST"},
        }, {
            "id": "sample-warehouse",
            "name": "SQLite file",
            "type": "SQLITE",
            "config": {"path": warehouse},
        }],
        "connections": [
            {"source": "sample-source", "destination": "sample-webhook"},
            {"source": "sample-source", "destination": "sample-warehouse"},
        ],
    });
    let body = serde_yaml_ng::to_string(&sample).map_err(|error| DevError::Io {
        what: "write the sample workspace".to_owned(),
        source: std::io::Error::other(error),
    })?;
    Ok(format!("{HEAD}{body}"))
}

/// The write key of an enabled source; of several, that of the first by id.
pub(super) fn write_key(workspace: &Workspace) -> Option<String> {
    let enabled = workspace.sources().filter(|source| source.enabled);
    enabled
        .min_by_key(|source| source.id.clone())
        .map(|source| source.write_key.clone())
}

/// The file of a SQLite warehouse, if there is one; of several, that of the first by id.
pub(super) fn sqlite_file(workspace: &Workspace) -> Option<PathBuf> {
    let files = workspace
        .destinations()
        .filter(|destination| destination.kind == "SQLITE");
    let first = files.min_by_key(|destination| destination.id.clone())?;
    first.config.get("path")?.as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::parse_workspace;

    #[test]
    fn the_sample_is_a_workspace_whose_source_reaches_both_destinations() {
        let text = workspace("http://127.0.0.1:9/", Path::new("/d: #1/w.db")).unwrap();
        let sample = parse_workspace("sample", &text, 1).unwrap();
        let source = sample.source_by_write_key(WRITE_KEY).unwrap();
        assert_eq!(sample.connected(source).count(), 2);
        assert_eq!(write_key(&sample).as_deref(), Some(WRITE_KEY));
        assert_eq!(sqlite_file(&sample), Some("/d: #1/w.db".into()));
    }

    #[test]
    fn a_disabled_source_lends_no_write_key_and_no_sqlite_means_no_file() {
        let text = "sources: [{id: a, write_key: A, enabled: false}, {id: c, write_key: C}, {id: b, write_key: B}]";
        let workspace = parse_workspace("test", text, 1).unwrap();
        assert_eq!(write_key(&workspace).as_deref(), Some("B"));
        assert_eq!(sqlite_file(&workspace), None);
    }
}
