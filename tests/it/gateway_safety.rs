//! Clients that are slow, many, large or hostile.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Connection, basic, head, post_json};
use crate::support::gateway::TestGateway;

const WORKSPACE: &str = "sources: [{id: web, write_key: K}]";
const GOOD: &str = r#"{"userId":"u","event":"e"}"#;

/// Writes `bytes` and waits until the gateway closes the connection; what it said by then.
async fn hang(gateway: &TestGateway, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    let reading = socket.read_to_end(&mut said);
    let closed = tokio::time::timeout(Duration::from_secs(30), reading).await;
    assert!(closed.is_ok(), "still open");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_finishes_does_not_hold_its_connection_for_ever() {
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.header_timeout_ms = 300;
        config.gateway.body_timeout_ms = 300;
        config.gateway.idle_timeout_ms = 300;
    })
    .await;
    let began = Instant::now();
    hang(&gateway, b"POST /v1/track HTTP/1.1\r\nHost: x\r\n").await;
    let auth = basic("K");
    let mut body = head(
        "POST",
        gateway.address,
        "/v1/track",
        &[("Authorization", &auth)],
    );
    body.extend_from_slice(b"Content-Length: 100\r\n\r\n{\"userId\":");
    hang(&gateway, &body).await;
    hang(&gateway, b"").await;
    let answered = hang(
        &gateway,
        &post_json(gateway.address, "/v1/track", "K", GOOD.as_bytes()),
    )
    .await;
    assert!(
        answered.ends_with("\r\n\r\nok"),
        "the request before the silence is answered: {answered}"
    );
    assert!(
        began.elapsed() >= Duration::from_millis(1200),
        "closed too early"
    );
    let metrics = gateway.metrics.render();
    for (phase, times) in [("head", 1), ("body", 1), ("silent", 1), ("idle", 1)] {
        let line =
            format!("sluice_gateway_connections_timed_out_total{{phase=\"{phase}\"}} {times}");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_was_answered_may_keep_a_connection_for_later() {
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.header_timeout_ms = 300;
        config.gateway.body_timeout_ms = 300;
    })
    .await;
    let request = post_json(gateway.address, "/v1/track", "K", GOOD.as_bytes());
    let mut answered = Connection::open(gateway.address).await.unwrap();
    assert_eq!(answered.exchange(&request).await.unwrap().status, 200);
    hang(&gateway, b"").await;
    let kept = answered.exchange(&request).await;
    assert_eq!(kept.unwrap().status, 200, "idle, and not silent");
    let silent = "sluice_gateway_connections_timed_out_total{phase=\"silent\"} 1";
    let metrics = gateway.metrics.render();
    assert!(metrics.contains(silent), "{metrics}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_that_keeps_moving_is_served() {
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.idle_timeout_ms = 100;
    })
    .await;
    let bytes = post_json(gateway.address, "/v1/track", "K", GOOD.as_bytes());
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    for piece in bytes.chunks(20) {
        socket.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let mut answer = vec![0; 15];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 OK");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_is_told_to_come_back() {
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.connections_max = 2;
    })
    .await;
    let request = post_json(gateway.address, "/v1/track", "K", GOOD.as_bytes());
    let mut first = Connection::open(gateway.address).await.unwrap();
    assert_eq!(first.exchange(&request).await.unwrap().status, 200);
    let mut second = Connection::open(gateway.address).await.unwrap();
    assert_eq!(second.exchange(&request).await.unwrap().status, 200);
    // A whole request, far more than the kernel takes before anybody reads, which must not cost the client the answer.
    let large = post_json(gateway.address, "/v1/track", "K", &vec![b' '; 32 << 20]);
    for request in [&b""[..], &request, &large] {
        let mut socket = TcpStream::connect(gateway.address).await.unwrap();
        socket.write_all(request).await.unwrap();
        let mut turned_away = String::new();
        socket.read_to_string(&mut turned_away).await.unwrap();
        assert!(turned_away.starts_with("HTTP/1.1 503 "), "{turned_away}");
        assert!(turned_away.contains("\r\nRetry-After: "), "{turned_away}");
    }
    drop(first);
    loop {
        let mut third = Connection::open(gateway.address).await.unwrap();
        if third
            .exchange(&request)
            .await
            .is_ok_and(|a| a.status == 200)
        {
            break;
        }
    }
    assert_eq!(
        second.exchange(&request).await.unwrap().status,
        200,
        "kept alive"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_beyond_the_budget_are_for_later_and_give_back_what_they_took() {
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.in_flight_bytes_max = 1_000;
    })
    .await;
    let large = format!(r#"{{"userId":"u","x":"{}"}}"#, "x".repeat(2_000));
    let reply = gateway.post("/v1/track", "K", large).await;
    assert_eq!(reply.short(), (503, "service unavailable\n"));
    assert!(reply.header("retry-after").is_some());
    for _ in 0..50 {
        assert_eq!(gateway.post("/v1/track", "K", GOOD).await.status, 200);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_no_record_holds_refuses_its_batch_before_any_of_it_is_sent() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let large = format!(r#"{{"userId":"u","x":"{}"}}"#, "x".repeat(1_000_000));
    let body = format!(r#"{{"batch":[{GOOD},{large}]}}"#);
    let reply = gateway.post("/v1/batch", "K", body).await;
    assert_eq!(reply.short(), (413, "request size exceeds max limit\n"));
    let deep = format!(
        r#"{{"userId":"u","x":{}{}}}"#,
        "[".repeat(1000),
        "]".repeat(1000)
    );
    assert_eq!(gateway.post("/v1/track", "K", deep).await.status, 400);
    let wide = format!(r#"{{"userId":"u","x":[{}0]}}"#, "0,".repeat(60_000));
    assert_eq!(gateway.post("/v1/track", "K", wide).await.status, 400);
    let many = format!(
        r#"{{"batch":[{}{GOOD}]}}"#,
        format!("{GOOD},").repeat(10_000)
    );
    assert_eq!(gateway.post("/v1/batch", "K", many).await.status, 413);
    assert_eq!(gateway.records().await.len(), 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_and_damaged_requests_never_stop_it() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let good = post_json(
        gateway.address,
        "/v1/batch",
        "K",
        format!(r#"{{"batch":[{GOOD}]}}"#).as_bytes(),
    );
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..random.usize(1..20) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(1..=bytes.len()));
        let mut socket = TcpStream::connect(gateway.address).await.unwrap();
        // The gateway may close before all of it is written.
        drop(socket.write_all(&bytes).await);
        drop(socket.shutdown().await);
        let mut said = Vec::new();
        let read =
            tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut said)).await;
        assert!(
            read.is_ok(),
            "no end after {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
    let metrics = gateway.metrics.render();
    assert!(!metrics.contains("connections_panicked_total"), "{metrics}");
    assert!(!gateway.shutdown.is_begun(), "a task panicked");
    assert_eq!(
        gateway.post("/v1/track", "K", GOOD).await.short(),
        (200, "ok")
    );
    gateway.stop().await;
}
