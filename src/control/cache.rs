//! The last good configuration on disk, so that a role starts while its source is away.

use std::path::Path;

/// Keeps `text` at `path`: written beside it and renamed, so that a reader never sees half of it. Failing to keep a copy
/// must not stop the role; it is logged.
pub(super) fn keep(path: &Path, text: &str) {
    let beside = path.with_extension("tmp");
    if let Err(error) = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path))
    {
        tracing::warn!(%error, path = %path.display(), "could not keep the last good workspace");
    }
}
