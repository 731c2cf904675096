//! The contract that every destination keeps, run against a server that answers, refuses, stalls and hangs up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::response::BODY_KEPT_BYTES_MAX;
use super::{Accepted, Attempt, DeliveryError, Destination, HttpClient, HttpOptions, Kind};
use crate::event::{Delivery, Envelope};
use crate::fault::{Classify, Fault};

/// A credential that settings under test carry; it must not come back in any error.
pub const SECRET: &str = "Bearer very-secret-token";

/// An envelope around `json`.
pub fn envelope(json: &str) -> Envelope<'_> {
    Envelope {
        message_id: "message-1".into(),
        source_id: "source-1".into(),
        event_type: "track".into(),
        user_id: "user-1".into(),
        received_at: 1_700_000_010_000,
        request_ip: "203.0.113.9".into(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        event: json.as_bytes().into(),
        ..Envelope::default()
    }
}

/// What the server does with the next request.
#[derive(Debug, Clone)]
enum Script {
    Answer(&'static str, String),
    Stall,
    HangUp,
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            script: Arc::new(Mutex::new(Script::HangUp)),
            heads: Arc::default(),
        };
        let (script, heads) = (Arc::clone(&server.script), Arc::clone(&server.heads));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (script, heads) = (Arc::clone(&script), Arc::clone(&heads));
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    let mut chunk = [0; 4096];
                    while !seen.windows(4).any(|w| w == b"\r\n\r\n") {
                        match socket.read(&mut chunk).await {
                            Ok(n) if n > 0 => seen.extend_from_slice(&chunk[..n]),
                            _ => return,
                        }
                    }
                    heads
                        .lock()
                        .push(String::from_utf8_lossy(&seen).into_owned());
                    let now = script.lock().clone();
                    match now {
                        Script::Answer(head, body) => {
                            let answer = format!(
                                "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                                body.len()
                            );
                            socket.write_all(answer.as_bytes()).await.ok();
                            socket.shutdown().await.ok();
                            // Reading on keeps the kernel from resetting what was answered.
                            while matches!(socket.read(&mut chunk).await, Ok(n) if n > 0) {}
                        }
                        Script::Stall => std::future::pending().await,
                        Script::HangUp => {}
                    }
                });
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }
}

async fn attempt(destination: &dyn Destination, json: &str) -> Result<Accepted, DeliveryError> {
    let delivery = Delivery {
        destination_id: "destination-1".into(),
        origin_partition: 3,
        origin_offset: 42,
        processed_revision: 1,
        envelope: envelope(json),
    };
    destination
        .deliver(&Attempt {
            delivery: &delivery,
            events_topic: "sluice.events",
            number: 2,
            timeout: Duration::from_millis(500),
            now: 1_700_000_010_000,
        })
        .await
}

/// Runs the contract for `kind`, with the settings that `settings` makes for a URL. They should carry [`SECRET`].
pub async fn check(kind: &Kind, settings: impl Fn(&str) -> Value) {
    let server = Server::start().await;
    let client = HttpClient::new(&HttpOptions::default()).unwrap();
    let destination = (kind.build)(&settings(&server.url()), &client).unwrap();
    let destination = destination.as_ref();
    assert!(
        !format!("{destination:?}").contains("very-secret-token"),
        "secrets never print"
    );

    let answer = |head: &'static str, body: &str| {
        *server.script.lock() = Script::Answer(head, body.to_owned());
    };
    let event = r#"{"event":"Buy"}"#;

    answer("200 OK", "thanks");
    let accepted = attempt(destination, event).await.unwrap();
    assert_eq!(accepted, Accepted::Delivered { status: 200 });
    let head = server.heads.lock()[0].to_lowercase();
    for line in [
        "idempotency-key: message-1:destination-1\r\n",
        "x-delivery-id: sluice.events-3-42\r\n",
        "x-attempt: 2\r\n",
        "user-agent: sluice/",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
    ] {
        assert!(head.contains(line), "{line:?} is missing in {head}");
    }
    answer("298 Filtered", "");
    assert_eq!(
        attempt(destination, event).await.unwrap(),
        Accepted::Filtered
    );

    answer("503 Busy\r\nRetry-After: 7", "later");
    let error = attempt(destination, event).await.unwrap_err();
    let after = Some(Duration::from_secs(7));
    assert_eq!(error.fault(), Fault::Transient { after }, "{error}");
    answer("429 Slow down", "");
    assert!(
        attempt(destination, event)
            .await
            .unwrap_err()
            .is_throttled()
    );

    let quoting = format!("token {SECRET} is wrong {}", "x".repeat(100_000));
    answer("422 No", &quoting);
    let error = attempt(destination, event).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Permanent);
    assert_eq!(error.http_status(), Some(422));
    let text = error.to_string();
    assert!(
        text.starts_with("HTTP 422: token *** is wrong"),
        "{}",
        &text[..80]
    );
    assert!(text.len() < BODY_KEPT_BYTES_MAX + 20 && !text.contains("very-secret"));

    answer("302 Found\r\nLocation: /elsewhere", "");
    let error = attempt(destination, event).await.unwrap_err();
    assert_eq!(
        error.http_status(),
        Some(302),
        "a lost POST body is no delivery"
    );

    *server.script.lock() = Script::Stall;
    let error = attempt(destination, event).await.unwrap_err();
    assert!(matches!(error, DeliveryError::TimedOut { .. }), "{error:?}");
    *server.script.lock() = Script::HangUp;
    let error = attempt(destination, event).await.unwrap_err();
    assert!(matches!(error, DeliveryError::Interrupted(_)), "{error:?}");
    assert_eq!(error.fault(), Fault::RETRY);

    let requests = server.heads.lock().len();
    let error = attempt(destination, "[1]").await.unwrap_err();
    assert_eq!(error.fault(), Fault::Permanent);
    assert!(error.is_about_the_event());
    assert_eq!(server.heads.lock().len(), requests, "nothing was sent");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}/hook", closed.local_addr().unwrap());
    drop(closed);
    let destination = (kind.build)(&settings(&nobody), &client).unwrap();
    let error = attempt(destination.as_ref(), event).await.unwrap_err();
    assert!(
        error.is_unreachable() && error.fault() == Fault::RETRY,
        "{error:?}"
    );

    let public_only = HttpClient::new(&HttpOptions {
        block_private_ips: true,
        ..HttpOptions::default()
    })
    .unwrap();
    let by_name = format!("http://localhost:{}/hook", server.address.port());
    for url in [server.url(), by_name] {
        let requests = server.heads.lock().len();
        let destination = (kind.build)(&settings(&url), &public_only).unwrap();
        let error = attempt(destination.as_ref(), event).await.unwrap_err();
        assert!(
            matches!(error, DeliveryError::ForbiddenAddress { .. }),
            "{url}: {error:?}"
        );
        assert_eq!(server.heads.lock().len(), requests);
    }
}
