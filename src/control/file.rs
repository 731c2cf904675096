//! A workspace from a file.

use std::path::Path;

use super::{ControlError, Workspace, parse_workspace};

/// Reads and parses `path`.
///
/// # Errors
/// When it cannot be read or is not a workspace.
pub(super) fn read(path: &Path, revision: i64) -> Result<(Workspace, String), ControlError> {
    let text = std::fs::read_to_string(path).map_err(|source| ControlError::Read {
        path: path.to_owned(),
        source,
    })?;
    let workspace = parse_workspace(&path.display().to_string(), &text, revision)?;
    Ok((workspace, text))
}
