//! The HTTP contract: RudderStack's codes, strings and order of checks, and what is in Kafka afterwards.

use std::collections::HashSet;
use std::io::Write;

use serde_json::{Value, json};
use sluice::config::Secret;
use sluice::event::Envelope;

use crate::support::client::{basic, request};
use crate::support::gateway::TestGateway;

const WORKSPACE: &str = "
sources:
  - {id: web, write_key: K, type: HTTP}
  - {id: off, write_key: OFF, type: HTTP, enabled: false}
";

fn event_of(envelope: &Envelope<'_>) -> Value {
    serde_json::from_slice(&envelope.event).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_has_rudderstacks_code_and_words() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let good = r#"{"userId":"u","event":"e"}"#;
    for (path, key, body, status, words) in [
        ("/v1/track", "K", good, 200, "ok"),
        (
            "/v1/track",
            "",
            good,
            401,
            "failed to read writekey from header\n",
        ),
        ("/v1/track", "X", good, 401, "invalid write key\n"),
        ("/v1/track", "X", "{", 401, "invalid write key\n"),
        ("/v1/track", "OFF", good, 404, "source is disabled\n"),
        ("/v1/track", "K", "", 400, "invalid json\n"),
        ("/v1/track", "K", "{\"userId\":\"u\"", 400, "invalid json\n"),
        (
            "/v1/track",
            "K",
            "{\"userId\":\"u\"} x",
            400,
            "invalid json\n",
        ),
        (
            "/v1/track",
            "K",
            "[]",
            400,
            "event is not a valid rudder event\n",
        ),
        (
            "/v1/track",
            "K",
            "{}",
            400,
            "request neither has anonymousId nor userId\n",
        ),
        ("/v1/batch", "K", "{}", 400, "empty batch payload\n"),
        (
            "/v1/batch",
            "K",
            r#"{"batch":[]}"#,
            400,
            "empty batch payload\n",
        ),
        (
            "/v1/batch",
            "K",
            r#"{"batch":[{"userId":"u"},7]}"#,
            400,
            "event is not a valid rudder event\n",
        ),
        (
            "/v1/batch",
            "K",
            r#"{"batch":[{"userId":"u"},{}]}"#,
            400,
            "request neither has anonymousId nor userId\n",
        ),
        (
            "/v1/batch",
            "K",
            r#"{"batch":[{},7],}"#,
            400,
            "invalid json\n",
        ),
        (
            "/beacon/v1/batch",
            "K",
            r#"{"batch":[{"userId":"u"}]}"#,
            401,
            "failed to read writekey from query params\n",
        ),
        (
            "/beacon/v1/batch?writeKey=X",
            "K",
            "{}",
            401,
            "invalid write key\n",
        ),
        (
            "/beacon/v1/batch?writeKey=OFF",
            "K",
            "{}",
            404,
            "source is disabled\n",
        ),
        ("/v1/nothing", "K", good, 404, "404 page not found\n"),
    ] {
        let reply = gateway.post(path, key, body).await;
        assert_eq!(reply.short(), (status, words), "{path} {key} {body}");
        assert_eq!(
            reply.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        let sniff = (status != 200).then_some("nosniff");
        assert_eq!(
            reply.header("x-content-type-options"),
            sniff,
            "{path} {key} {body}"
        );
    }
    let events = gateway.events().await;
    assert_eq!(
        events.len(),
        1,
        "a refused request must leave nothing behind: {events:?}"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_of_an_event_lies_beside_its_own_bytes() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let body = r#" {"type":"page","anonymousId":" a1 ", "userId":7,"event":"Örder","n":1.50,
        "context":{"library":{"name":"js","version":"3"}}} "#;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let auth = basic("K");
    let headers = [
        ("Authorization", auth.as_str()),
        ("traceparent", trace),
        ("X-Rudder-Job-Run-Id", "job"),
        ("User-Agent", "Googlebot/2.1"),
        ("X-Forwarded-For", "1.2.3.4"),
    ];
    let reply = gateway
        .send("POST", "//v1/track/", &headers, body.as_bytes())
        .await;
    assert_eq!(reply.short(), (200, "ok"));
    let records = gateway.records().await;
    assert_eq!(records[0].key, b"7");
    assert_eq!(
        records[0].headers,
        [("traceparent".to_owned(), trace.as_bytes().to_vec())]
    );
    let event = &gateway.events().await[0];
    assert_eq!(&*event.event, body.trim().as_bytes());
    assert_eq!(
        (&*event.source_id, event.write_key_hash),
        ("web", Envelope::hash_write_key("K"))
    );
    assert_eq!((&*event.event_type, &*event.event_name), ("track", "Örder"));
    assert_eq!((&*event.user_id, &*event.anonymous_id), ("7", "a1"));
    assert_eq!(
        (&*event.sdk, &*event.job_run_id, &*event.traceparent),
        ("js/3", "job", trace)
    );
    assert_eq!(
        event.request_ip, "127.0.0.1",
        "nobody may choose its own address"
    );
    assert!(event.is_bot && event.config_revision == 1 && event.received_at > 1_600_000_000_000);
    let counted = "sluice_gateway_events_bot_total{source=\"web\"} 1";
    assert!(gateway.metrics.render().contains(counted));
    uuid::Uuid::parse_str(&event.message_id).unwrap();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_keeps_its_users_order_and_every_element() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let elements: Vec<Value> = (0..300)
        .map(|n| json!({"type": "track", "userId": format!("u{}", n % 7), "messageId": format!("m{n}"), "n": n}))
        .collect();
    let body = json!({"batch": elements, "sentAt": "2026-01-01T00:00:00Z"}).to_string();
    assert_eq!(
        gateway.post("/v1/batch", "K", &body).await.short(),
        (200, "ok")
    );
    let mut records = gateway.records().await;
    records.sort_by_key(|r| (r.partition, r.offset));
    let mut last = [-1i64; 7];
    for record in &records {
        let envelope = crate::support::gateway::envelope(record);
        assert_eq!(envelope.sent_at, "2026-01-01T00:00:00Z");
        let event = event_of(&envelope);
        let n = event["n"].as_i64().unwrap();
        let user = usize::try_from(n % 7).unwrap();
        assert!(
            n > last[user],
            "event {n} of user {user} after {}",
            last[user]
        );
        last[user] = n;
    }
    assert_eq!(records.len(), 300);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gzip_is_read_whatever_the_content_type_says_and_bombs_are_not() {
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.body_bytes_max = 100_000;
    })
    .await;
    let gzip = |data: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let auth = basic("K");
    let headers = [
        ("Authorization", auth.as_str()),
        ("Content-Encoding", "gzip"),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    let send = |body: Vec<u8>| {
        let gateway = &gateway;
        async move { gateway.send("POST", "/v1/track", &headers, &body).await }
    };
    let reply = send(gzip(br#"{"userId":"u","event":"zipped"}"#)).await;
    assert_eq!(reply.short(), (200, "ok"));
    let bomb = gzip(format!(r#"{{"userId":"{}"}}"#, "u".repeat(200_000)).as_bytes());
    assert!(bomb.len() < 1_000);
    assert_eq!(
        send(bomb).await.short(),
        (413, "request size exceeds max limit\n")
    );
    let broken = send(b"not gzip".to_vec()).await;
    assert_eq!(broken.short(), (500, "failed to read body from request\n"));
    let large = format!(r#"{{"userId":"{}"}}"#, "u".repeat(200_000));
    let reply = gateway.post("/v1/track", "K", large).await;
    assert_eq!(reply.short(), (413, "request size exceeds max limit\n"));
    assert_eq!(gateway.events().await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audience_list_may_be_larger_than_other_requests() {
    let token = "correct horse battery";
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.internal_token = Some(Secret::new(token));
        config.gateway.body_bytes_max = 10_000;
        config.gateway.json_values_max = 100;
        config.gateway.audience_list_bytes_max = 100_000;
        config.gateway.audience_list_values_max = 2_000;
    })
    .await;
    let list = |kind: &str, members: usize, bytes: usize| {
        let member = json!({"EMAIL": "x".repeat(bytes)});
        let data = json!({"add": vec![member; members]});
        json!({"userId": "u", "type": kind, "properties": {"listData": data}}).to_string()
    };
    let (small, large) = (list("", 10, 10), list("", 50, 1_000));
    let too_large = (413, "request size exceeds max limit\n");
    let too_many = (400, "event has too many values\n");
    for (path, body, expected) in [
        ("/v1/identify", &small, (200, "ok")),
        ("/v1/identify", &large, too_large),
        ("/v1/audiencelist", &large, (200, "ok")),
        ("/v1/audiencelist", &list("", 200, 1_000), too_large),
        ("/v1/identify", &list("", 100, 10), too_many),
        ("/v1/audiencelist", &list("", 900, 10), (200, "ok")),
        ("/v1/audiencelist", &list("", 1_500, 10), too_many),
        // Ours: RudderStack asks after it has read all of it.
        (
            "/v1/batch",
            &format!(r#"{{"batch":[{}]}}"#, list("audiencelist", 50, 1_000)),
            too_large,
        ),
    ] {
        let reply = gateway.post(path, "K", body).await;
        assert_eq!(reply.short(), expected, "{path}, {} bytes", body.len());
    }
    let auth = basic("K");
    let headers = [("Authorization", auth.as_str()), ("X-Sluice-Token", token)];
    let target = "/internal/v1/audiencelist";
    let reply = gateway
        .send("POST", target, &headers, large.as_bytes())
        .await;
    assert_eq!(reply.short(), (200, "ok"));
    let events = gateway.events().await;
    let lists = events.iter().filter(|e| e.event_type == "audiencelist");
    assert_eq!((lists.count(), events.len()), (3, 4));
    gateway.stop().await;

    // What is no record cannot pass, whatever its own limit is, and need not be read to be told so.
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.kafka.producer.message_bytes_max = 20_000;
        config.gateway.audience_list_bytes_max = 100_000;
    })
    .await;
    for (bytes, expected) in [
        (10_000, (200, "ok")),
        (19_900, too_large),
        (30_000, too_large),
    ] {
        let reply = gateway
            .post("/v1/audiencelist", "K", list("", 1, bytes))
            .await;
        assert_eq!(reply.short(), expected, "{bytes}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_configuration_is_followed() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let body = r#"{"userId":"u"}"#;
    assert_eq!(gateway.post("/v1/track", "NEW", body).await.status, 401);
    let changed = "sources: [{id: new, write_key: NEW}]";
    let workspace = sluice::control::parse_workspace("test", changed, 2).unwrap();
    gateway.control.publish(workspace);
    while gateway.post("/v1/track", "NEW", body).await.status != 200 {}
    assert_eq!(gateway.post("/v1/track", "K", body).await.status, 401);
    let revisions: HashSet<i64> = gateway
        .events()
        .await
        .iter()
        .map(|e| e.config_revision)
        .collect();
    assert_eq!(revisions, HashSet::from([2]));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_small_routes_answer_as_rudderstack_does() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let health = gateway.send("GET", "/health", &[], b"").await;
    let body: Value = serde_json::from_str(&health.body).unwrap();
    assert_eq!(
        (health.status, &body["server"], &body["acceptingEvents"]),
        (200, &json!("UP"), &json!("TRUE"))
    );
    let version = gateway.send("GET", "/version", &[], b"").await;
    assert!(version.body.contains("\"Version\""));
    let robots = gateway.send("GET", "/robots.txt", &[], b"").await;
    assert_eq!(robots.short(), (200, "User-agent: * \nDisallow: / \n"));
    let docs = gateway.send("GET", "/docs", &[], b"").await;
    assert_eq!(
        docs.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(docs.status == 200 && docs.body.contains("POST /v1/track"));
    assert_eq!(gateway.send("GET", "/v1/track", &[], b"").await.status, 405);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_method_is_answered_with_405_and_the_ones_that_there_are() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let pixel = "/pixel/v1/track?writeKey=K&event=x&anonymousId=a";
    for (method, target, status, allowed) in [
        ("GET", "/v1/track", 405, "POST"),
        ("HEAD", "/v1/track", 405, "POST"),
        ("PUT", "/v1/track", 405, "POST"),
        // No preflight: those ask for a method.
        ("OPTIONS", "/v1/track", 405, "POST"),
        ("DELETE", "/v1/batch/", 405, "POST"),
        ("POST", "/health", 405, "GET,HEAD"),
        ("POST", pixel, 405, "GET,HEAD"),
        ("PATCH", "/v1/webhook", 405, "GET,HEAD,POST"),
        ("HEAD", "/health", 200, ""),
        ("HEAD", pixel, 200, ""),
        ("HEAD", "/v1/webhook", 401, ""),
        ("DELETE", "/nothing", 404, ""),
    ] {
        let answer = gateway.wire(method, target).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let start = format!("HTTP/1.1 {status} ");
        assert!(head.starts_with(&start), "{method} {target}: {head}");
        let allow = head.lines().find_map(|line| line.strip_prefix("allow: "));
        assert_eq!(allow.unwrap_or_default(), allowed, "{method} {target}");
        assert!(
            (method != "HEAD" && status != 405) || body.is_empty(),
            "{method} {target}: {body}"
        );
    }
    assert!(
        gateway.events().await.is_empty(),
        "whoever only asks whether the image is there has not seen it"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_paths_content_types_and_ids_are_taken_as_rudderstack_takes_them() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let auth = basic("K");
    for (number, (path, content_type, ids, user, anonymous)) in [
        ("//v1//track", "", r#""userId":7"#, "7", ""),
        (
            "/v1/track/",
            "text/plain",
            r#""userId":12345678901234567890"#,
            "12345678901234567890",
            "",
        ),
        (
            "/v1/track//?a=//b",
            "application/x-www-form-urlencoded",
            r#""userId":1.50,"anonymousId":null"#,
            "1.5",
            "",
        ),
        ("/v1/track", "nonsense", r#""userId":true"#, "true", ""),
        (
            "/v1/track",
            "application/json; charset=utf-16",
            "\"anonymousId\":\" \u{200b}a\u{feff}\u{ad}1\u{2060} \"",
            "",
            "a1",
        ),
        (
            "/v1/track",
            "multipart/form-data; boundary=x",
            r#""userId":"\u200b\u0000u\t","anonymousId":"\ufeff""#,
            "u",
            "",
        ),
        (
            "/v1/track",
            "application/json",
            r#""userId":"Жанна Ö","anonymousId":"  ""#,
            "Жанна Ö",
            "",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut headers = vec![("Authorization", auth.as_str())];
        if !content_type.is_empty() {
            headers.push(("Content-Type", content_type));
        }
        let body = format!(r#"{{"messageId":"m{number}",{ids}}}"#);
        let reply = gateway.send("POST", path, &headers, body.as_bytes()).await;
        assert_eq!(reply.short(), (200, "ok"), "{path} {content_type} {body}");
        let events = gateway.events().await;
        let id = format!("m{number}");
        let event = events.iter().find(|e| *e.message_id == *id).unwrap();
        assert_eq!(
            (&*event.user_id, &*event.anonymous_id),
            (user, anonymous),
            "{body}"
        );
        assert_eq!(
            &*event.event,
            body.as_bytes(),
            "the event itself is left as it is"
        );
    }
    gateway.stop().await;
}

/// Authentication, then the body, then the events, then the suppression list, and the limit last: what is refused for good
/// takes nothing from what the source may send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_come_in_rudderstacks_order() {
    let mut list = tempfile::NamedTempFile::new().unwrap();
    writeln!(list, "gone").unwrap();
    let path = list.path().to_owned();
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.suppression_file = Some(path);
        config.gateway.rate_limit.events = 1;
        config.gateway.rate_limit.window_ms = 3_600_000;
    })
    .await;
    for (key, body, status, words) in [
        ("X", r#"{"batch":[7,{}]"#, 401, "invalid write key\n"),
        ("OFF", r#"{"batch":[7,{}]"#, 404, "source is disabled\n"),
        ("K", r#"{"batch":[7,{}]"#, 400, "invalid json\n"),
        ("K", r#"{"batch":[]}"#, 400, "empty batch payload\n"),
        (
            "K",
            r#"{"batch":[7,{}]}"#,
            400,
            "event is not a valid rudder event\n",
        ),
        (
            "K",
            r#"{"batch":[{},7]}"#,
            400,
            "request neither has anonymousId nor userId\n",
        ),
        (
            "K",
            r#"{"batch":[{"userId":"gone"},{"userId":"gone"}]}"#,
            200,
            "ok",
        ),
        ("K", r#"{"batch":[{"userId":"u"}]}"#, 200, "ok"),
        (
            "K",
            r#"{"batch":[{"userId":"u"}]}"#,
            429,
            "max requests limit reached\n",
        ),
        ("K", r#"{"batch":[{"userId":"gone"}]}"#, 200, "ok"),
        (
            "K",
            r#"{"batch":[7]}"#,
            400,
            "event is not a valid rudder event\n",
        ),
    ] {
        let reply = gateway.post("/v1/batch", key, body).await;
        assert_eq!(reply.short(), (status, words), "{key} {body}");
    }
    assert_eq!(gateway.events().await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_brings_the_clients_trace_context_back() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (sent, back) in [(good, Some(good)), ("00-nonsense", None)] {
        let reply = gateway
            .send("POST", "/v1/track", &[("traceparent", sent)], b"")
            .await;
        assert_eq!(reply.status, 401);
        assert_eq!(reply.header("traceparent"), back);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_goes_before_the_listener_does() {
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.drain_grace_ms = Some(1_000);
    })
    .await;
    let address = gateway.address;
    gateway.shutdown.begin();
    let health = gateway.send("GET", "/health", &[], b"").await;
    assert_eq!(health.short(), (503, "draining\n"));
    let late = gateway.post("/v1/track", "K", r#"{"userId":"u"}"#).await;
    assert_eq!(
        late.short(),
        (200, "ok"),
        "for load balancers that have not noticed"
    );
    crate::support::gateway::until("readiness is gone", || !gateway.health.missing().is_empty())
        .await;
    crate::support::gateway::until("the listener is closed", || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
    assert_eq!(gateway.events().await.len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_hand_is_answered_before_the_gateway_ends() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let address = gateway.address;
    let bytes = request(
        "POST",
        address,
        "/v1/track",
        &[("Authorization", &basic("K"))],
        br#"{"userId":"u"}"#,
    );
    let (first, second) = bytes.split_at(bytes.len() - 3);
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, first)
        .await
        .unwrap();
    crate::support::gateway::until("the gateway has a part of the body", || {
        let metrics = gateway.metrics.render();
        metrics.contains(&format!(
            "sluice_gateway_body_bytes_in_flight {}",
            r#"{"userId":"u"}"#.len() - 3
        ))
    })
    .await;
    gateway.shutdown.begin();
    let stopped = tokio::spawn(gateway.stop());
    crate::support::gateway::until("the listener is closed", || {
        std::net::TcpStream::connect(address).is_err()
    })
    .await;
    tokio::io::AsyncWriteExt::write_all(&mut socket, second)
        .await
        .unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut socket, &mut answer)
        .await
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"),
        "{answer}"
    );
    stopped.await.unwrap();
}
