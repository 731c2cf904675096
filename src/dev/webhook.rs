//! The webhook that dev mode serves itself: every request becomes one JSON line in a file, written before the answer.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::DevError;
use crate::clock::{Clock, SystemClock, rfc3339_ms};

/// Largest body that is taken; more is answered with 413.
const BODY_BYTES_MAX: usize = 16 << 20;
/// At this size the log is renamed to `….1`, replacing an older one, and begun anew.
const LOG_BYTES_MAX: u64 = 2 << 30;

/// A webhook that is being served. It ends with the runtime.
#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) address: SocketAddr,
    pub(super) log: PathBuf,
}

impl Webhook {
    /// Listens on the loopback address: on `port`, or on any free one.
    pub(super) async fn serve(port: Option<u16>, log: PathBuf) -> Result<Self, DevError> {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(0)));
        let listener = TcpListener::bind(wanted)
            .await
            .map_err(DevError::io(format!("listen on {wanted} for the webhook")))?;
        let address = listener
            .local_addr()
            .map_err(DevError::io("read the address of the webhook"))?;
        let lines = Log::open(&log).map_err(DevError::io(format!("open {}", log.display())))?;
        let routes = Router::new()
            .fallback(take)
            .with_state(Arc::new(Mutex::new(lines)));
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "the built-in webhook ended");
            }
        });
        Ok(Self { address, log })
    }
}

async fn take(State(log): State<Arc<Mutex<Log>>>, request: Request) -> StatusCode {
    let received_at = rfc3339_ms(SystemClock.now_ms());
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(Body::new(body), BODY_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE;
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let line = line(
        &received_at,
        head.method.as_str(),
        path,
        &head.headers,
        &body,
    );
    match log.lock().append(&line) {
        Ok(()) => StatusCode::OK,
        Err(error) => {
            tracing::error!(%error, "could not write to the webhook log");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

/// One request as one line. Pure.
fn line(received_at: &str, method: &str, path: &str, headers: &HeaderMap, body: &[u8]) -> String {
    let mut names = Map::new();
    for name in headers.keys() {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        names.insert(name.as_str().to_owned(), values.join(", ").into());
    }
    let mut line = json!({
        "received_at": received_at,
        "method": method,
        "path": path,
        "headers": names,
    });
    match (
        serde_json::from_slice::<Value>(body),
        std::str::from_utf8(body),
    ) {
        (Ok(value), _) => line["body"] = value,
        (Err(_), Ok(text)) => line["body"] = text.into(),
        (Err(_), Err(_)) => line["body_base64"] = BASE64.encode(body).into(),
    }
    let mut line = line.to_string();
    line.push('\n');
    line
}

/// A file of lines that is begun anew when it is full.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Log {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
            bytes_max: LOG_BYTES_MAX,
        })
    }

    /// One write for the whole line: a reader that follows the file never sees half of it for long, and a kill leaves none.
    fn append(&mut self, line: &str) -> std::io::Result<()> {
        if self.bytes >= self.bytes_max {
            let mut full = self.path.clone().into_os_string();
            full.push(".1");
            fs::rename(&self.path, full)?;
            *self = Self {
                bytes_max: self.bytes_max,
                ..Self::open(&self.path)?
            };
        }
        self.file.write_all(line.as_bytes())?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &[u8]) -> Value {
        let mut headers = HeaderMap::new();
        headers.append("x-twice", "a".parse().unwrap());
        headers.append("x-twice", "b".parse().unwrap());
        let line = line(
            "2026-01-02T03:04:05.678Z",
            "POST",
            "/hook?x=1",
            &headers,
            body,
        );
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_request_is_one_line_with_its_body_as_json_or_text_or_base64() {
        let line = parsed(br#"{"event": "Order\nCompleted"}"#);
        assert_eq!(line["body"]["event"], "Order\nCompleted");
        assert_eq!(line["path"], "/hook?x=1");
        assert_eq!(line["headers"]["x-twice"], "a, b");
        assert_eq!(parsed(b"two\nlines")["body"], "two\nlines");
        assert_eq!(parsed(b"")["body"], "");
        assert_eq!(parsed(b"\xff")["body_base64"], "/w==");
    }

    #[test]
    fn a_full_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("webhook.jsonl");
        let mut log = Log {
            bytes_max: 3,
            ..Log::open(&path).unwrap()
        };
        for line in ["a\n", "b\n", "c\n"] {
            log.append(line).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "c\n");
        assert_eq!(
            fs::read_to_string(dir.path().join("webhook.jsonl.1")).unwrap(),
            "a\nb\n"
        );
    }
}
