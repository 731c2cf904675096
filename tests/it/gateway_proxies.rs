//! A gateway behind a proxy: whose address and scheme count, in events, in answers and in the access log.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use sluice::config::Networks;
use sluice::dev::kafka::LocalKafka;

use crate::support::client::{basic, request};
use crate::support::gateway::TestGateway;
use crate::support::process::{Bed, free_address};

const KEY: &str = "a-write-key-to-look-for";
const CLIENT: &str = "198.51.100.7";

async fn start(trusted: &[&str]) -> TestGateway {
    let trusted = trusted.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    let workspace = format!("sources: [{{id: web, write_key: {KEY}}}]");
    TestGateway::start_with(&workspace, |config| {
        config.gateway.trusted_proxies = Networks::try_from(trusted).unwrap();
    })
    .await
}

/// An event as a proxy passes it on.
async fn post(gateway: &TestGateway) {
    let auth = basic(KEY);
    let headers = [
        ("Authorization", auth.as_str()),
        ("X-Forwarded-For", CLIENT),
    ];
    let target = format!("/v1/track?writeKey={KEY}");
    let body = br#"{"userId":"u"}"#;
    let reply = gateway.send("POST", &target, &headers, body).await;
    assert_eq!(reply.short(), (200, "ok"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_trusted_proxy_says_who_the_client_is_and_how_it_came() {
    for (trusted, address, scheme) in [
        (&["127.0.0.0/8"][..], CLIENT, "https"),
        (&["10.0.0.0/8"], "127.0.0.1", "http"),
        (&[], "127.0.0.1", "http"),
    ] {
        let gateway = start(trusted).await;
        post(&gateway).await;
        let events = gateway.events().await;
        let addresses: Vec<_> = events.iter().map(|e| &*e.request_ip).collect();
        assert_eq!(addresses, [address], "{trusted:?}");
        let target = format!("/v1/projects/{KEY}/settings");
        let forwarded = [("X-Forwarded-Proto", "https")];
        let settings = gateway.send("GET", &target, &forwarded, b"").await;
        let body: Value = serde_json::from_str(&settings.body).unwrap();
        let told = &body["integrations"]["Segment.io"]["protocol"];
        assert_eq!(told, scheme, "{trusted:?}");
        // It names the host and the scheme of who asked.
        let cached = settings.header("cache-control");
        assert_eq!(cached, Some("private, max-age=60"));
        gateway.stop().await;
    }
}

/// The status line of the answer to `body`, posted as a proxy passes it on.
fn status(address: SocketAddr, body: &str) -> String {
    let auth = basic(KEY);
    let headers = [
        ("Authorization", auth.as_str()),
        ("X-Forwarded-For", CLIENT),
        ("Connection", "close"),
    ];
    let target = format!("/v1/track?writeKey={KEY}");
    let mut socket = TcpStream::connect(address).unwrap();
    let bytes = request("POST", address, &target, &headers, body.as_bytes());
    socket.write_all(&bytes).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap().to_owned()
}

/// In a process of its own, because a log is a process's.
#[test]
fn the_access_log_names_the_client_and_no_key() {
    let kafka = LocalKafka::shared().unwrap();
    let mut bed = Bed::new(kafka.bootstrap(), "access-log");
    bed.workspace(&json!({"sources": [{"id": "web", "write_key": KEY}]}));
    bed.set("gateway.trusted_proxies", json!(["127.0.0.1"]));
    bed.run(&["topics", "apply", "--yes"]);
    for (sample, lines) in [(1.0, 2), (0.0, 0)] {
        let address = free_address();
        let role = bed.role("gateway", &format!("gateway-{lines}"));
        let life = role
            .with("gateway.listen", address.to_string())
            .with("gateway.access_log_sample", sample)
            .start_ready(Duration::from_secs(60));
        assert_eq!(status(address, r#"{"userId":"u"}"#), "HTTP/1.1 200 OK");
        assert_eq!(status(address, "{"), "HTTP/1.1 400 Bad Request");
        let log = life.log_path().to_owned();
        life.stop(Duration::from_secs(60));
        let text = std::fs::read_to_string(log).unwrap();
        assert!(text.contains("gateway drained"), "{text}");
        let secret = basic(KEY);
        for key in [KEY, secret.trim_start_matches("Basic ")] {
            assert!(!text.contains(key), "{text}");
        }
        let access: Vec<_> = text
            .lines()
            .filter(|line| line.contains(" route="))
            .collect();
        assert_eq!(access.len(), lines, "{text}");
        for (line, what) in access.iter().zip(["track 200", "track 400"]) {
            for part in [what, CLIENT, "web"] {
                assert!(line.contains(part), "{part}: {line}");
            }
            assert!(!line.contains("127.0.0.1"), "the proxy: {line}");
        }
    }
}
