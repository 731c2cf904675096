//! A workspace from a server that answers as RudderStack's control plane does:
//! `GET {url}/workspaceConfig?fetchAll=true`, Basic authentication with the token as user name.

use std::time::Duration;

use super::{ControlError, Workspace, parse_workspace};
use crate::config::Secret;

/// Longest wait for an answer, as RudderStack's.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The HTTP client for configuration servers.
///
/// # Errors
/// When the system gives it no TLS roots or resolver.
pub fn client() -> Result<reqwest::Client, ControlError> {
    crate::tls::install();
    reqwest::Client::builder()
        .build()
        .map_err(ControlError::Client)
}

/// Fetches and parses the configuration.
///
/// # Errors
/// When the server is away, refuses, or answers something else.
pub(super) async fn fetch(
    http: &reqwest::Client,
    url: &str,
    token: Option<&Secret>,
    revision: i64,
) -> Result<(Workspace, String), ControlError> {
    let address = format!(
        "{}/workspaceConfig?fetchAll=true",
        url.trim_end_matches('/')
    );
    let mut request = http.get(&address).timeout(TIMEOUT);
    if let Some(token) = token {
        request = request.basic_auth(token.expose(), Some(""));
    }
    let unreachable = |source| ControlError::Unreachable {
        url: address.clone(),
        source,
    };
    let response = request.send().await.map_err(unreachable)?;
    if !response.status().is_success() {
        return Err(ControlError::Status {
            url: address.clone(),
            status: response.status().as_u16(),
        });
    }
    let text = response.text().await.map_err(unreachable)?;
    let workspace = parse_workspace(&address, &text, revision)?;
    Ok((workspace, text))
}
