//! Loading the workspace at start and following its changes.

use std::path::Path;
use std::time::Duration;

use super::{Control, ControlError, Workspace, cache, file, remote};
use crate::clock::{Clock, SystemClock};
use crate::config::WorkspaceConfig;
use crate::shutdown::Shutdown;

/// Loads the workspace once: from the file, else the URL, else (when that is away) the last good copy.
///
/// # Errors
/// When none of them gives a workspace.
pub async fn load_once(
    config: &WorkspaceConfig,
    http: &reqwest::Client,
) -> Result<Workspace, ControlError> {
    let error = match fetch(config, http).await {
        Ok((workspace, text)) => {
            if let Some(path) = &config.cache {
                cache::keep(path, &text);
            }
            return Ok(workspace);
        }
        Err(error) => error,
    };
    match &config.cache {
        Some(path) if path.exists() => {
            tracing::warn!(%error, path = %path.display(), "workspace source is away; starting with the last good one");
            file::read(path, SystemClock.now_ms()).map(|(workspace, _)| workspace)
        }
        _ => Err(error),
    }
}

async fn fetch(
    config: &WorkspaceConfig,
    http: &reqwest::Client,
) -> Result<(Workspace, String), ControlError> {
    let revision = SystemClock.now_ms();
    match (&config.file, &config.url) {
        (Some(path), _) => read_file(path, revision),
        (None, Some(url)) => remote::fetch(http, url, config.token.as_ref(), revision).await,
        (None, None) => Err(ControlError::Nowhere),
    }
}

fn read_file(path: &Path, revision: i64) -> Result<(Workspace, String), ControlError> {
    file::read(path, revision)
}

/// Loads the workspace and keeps following its source until shutdown.
///
/// # Errors
/// As [`load_once`]. Once started, a source that is away or wrong is logged and the last good workspace stays.
pub async fn start(
    config: WorkspaceConfig,
    http: reqwest::Client,
    shutdown: &Shutdown,
) -> Result<Control, ControlError> {
    let control = Control::new(load_once(&config, &http).await?);
    let follower = control.clone();
    let stop = shutdown.clone();
    shutdown.spawn("workspace", async move {
        let every = Duration::from_millis(config.poll_ms.max(100));
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = stop.begun() => return,
            }
            match fetch(&config, &http).await {
                Ok((workspace, text)) => {
                    if !workspace.same_content(&follower.snapshot()) {
                        tracing::info!(revision = workspace.revision, "workspace changed");
                        if let Some(path) = &config.cache {
                            cache::keep(path, &text);
                        }
                        follower.publish(workspace);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "workspace not refreshed; the last good one stays")
                }
            }
        }
    });
    Ok(control)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "sources: [{id: web, write_key: K1}]";

    async fn until(what: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !what() {
            assert!(std::time::Instant::now() < deadline, "condition never came");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_followed_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("workspace.yaml");
        std::fs::write(&path, TEXT).unwrap();
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let config = WorkspaceConfig {
            file: Some(path.clone()),
            poll_ms: 100,
            ..Default::default()
        };
        crate::tls::install();
        let control = start(config, reqwest::Client::new(), &shutdown)
            .await
            .unwrap();
        assert!(control.snapshot().source_by_write_key("K1").is_some());
        std::fs::write(&path, "sources: {").unwrap();
        std::fs::write(&path, TEXT.replace("K1", "K2")).unwrap();
        until(|| control.snapshot().source_by_write_key("K2").is_some()).await;
        shutdown.begin();
    }

    #[tokio::test]
    async fn a_role_starts_on_the_last_good_copy_while_the_source_is_away() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("w.yaml"), dir.path().join("last.yaml"));
        std::fs::write(&path, TEXT).unwrap();
        let config = WorkspaceConfig {
            file: Some(path.clone()),
            cache: Some(copy),
            ..Default::default()
        };
        crate::tls::install();
        let http = reqwest::Client::new();
        load_once(&config, &http).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(
            load_once(&config, &http)
                .await
                .unwrap()
                .source_by_write_key("K1")
                .is_some()
        );
    }
}
