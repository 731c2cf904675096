//! The inputs beside `/v1/<type>` and `/v1/batch`, and what an operator can set.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};
use sluice::config::Secret;
use sluice::event::Envelope;

use crate::support::client::basic;
use crate::support::gateway::{Reply, TestGateway, message, until};

const WORKSPACE: &str = r#"{"workspaceId":"ws","sources":[
  {"id":"web","name":"Website","writeKey":"K","enabled":true,"sourceDefinition":{"name":"Javascript"}},
  {"id":"hook","writeKey":"HOOK","sourceDefinition":{"name":"Webhook","category":"webhook"}},
  {"id":"shop","writeKey":"SHOP","sourceDefinition":{"name":"Shopify","category":"webhook"}},
  {"id":"replayed","originalId":"web","writeKey":"R","sourceDefinition":{"name":"HTTP"}},
  {"id":"off","writeKey":"OFF","enabled":false,"sourceDefinition":{"name":"Webhook","category":"webhook"}}]}"#;

fn event_of(envelope: &Envelope<'_>) -> Value {
    serde_json::from_slice(&envelope.event).unwrap()
}

fn ids(events: &[Envelope<'_>]) -> Vec<String> {
    let mut ids: Vec<String> = events.iter().map(|e| e.message_id.to_string()).collect();
    ids.sort();
    ids
}

async fn get(gateway: &TestGateway, target: &str) -> Reply {
    gateway.send("GET", target, &[], b"").await
}

/// That the gateway's metrics hold a line.
fn assert_counted(gateway: &TestGateway, line: &str) {
    let line = format!("sluice_gateway_{line}");
    let metrics = gateway.metrics.render();
    assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_takes_the_users_that_are_good() {
    let gateway = TestGateway::start(WORKSPACE).await;
    assert_eq!(
        gateway.post("/v1/import", "K", "{}").await.short(),
        (200, "ok")
    );
    let body = r#"{"batch":[{"userId":"a","messageId":"1"},{"userId":"b","messageId":"2"},{"messageId":"3"}]}"#;
    let reply = gateway.post("/v1/import", "K", body).await;
    assert_eq!(
        reply.short(),
        (400, "request neither has anonymousId nor userId\n")
    );
    assert_eq!(ids(&gateway.events().await), ["1", "2"]);
    let several = r#"{"batch":[{"userId":"c"},{"messageId":"4"},{"messageId":"5"}]}"#;
    gateway.post("/v1/import", "K", several).await;
    for line in [
        r#"events_rejected_total{reason="no_identity",source="web"} 3"#,
        r#"requests_refused_total{reason="no_identity",source="web"} 2"#,
        r#"events_accepted_total{source="web"} 3"#,
    ] {
        assert_counted(&gateway, line);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_per_event_names_the_bad_ones_and_keeps_the_good_ones() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let auth = basic("K");
    let headers = [
        ("Authorization", auth.as_str()),
        ("Sluice-Result", "per-event"),
    ];
    let large = format!(
        r#"{{"userId":"u","messageId":"3","x":"{}"}}"#,
        "x".repeat(1_000_000)
    );
    let body =
        format!(r#"{{"batch":[{{"userId":"u","messageId":"1"}},{{"messageId":"2"}},{large}]}}"#);
    let reply = gateway
        .send("POST", "/v1/batch", &headers, body.as_bytes())
        .await;
    assert_eq!(reply.status, 200);
    let result: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(
        result,
        json!({"accepted": 1, "rejected": [
            {"index": 1, "messageId": "2", "code": "no_identity", "message": "request neither has anonymousId nor userId"},
            {"index": 2, "messageId": "3", "code": "too_large", "message": "request size exceeds max limit"}]})
    );
    let reply = gateway.send("POST", "/v1/track", &headers, b"{}").await;
    assert_eq!(reply.status, 400);
    assert!(
        reply.body.contains(r#""code":"all_rejected""#),
        "{}",
        reply.body
    );
    assert_eq!(
        gateway
            .send("POST", "/v1/track", &headers, b"{")
            .await
            .short(),
        (400, "invalid json\n")
    );
    assert_eq!(ids(&gateway.events().await), ["1"]);
    for line in [
        r#"events_rejected_total{reason="no_identity",source="web"} 2"#,
        r#"events_rejected_total{reason="too_large",source="web"} 1"#,
        r#"requests_refused_total{reason="all_rejected",source="web"} 1"#,
        r#"requests_refused_total{reason="invalid_json",source="web"} 1"#,
    ] {
        assert_counted(&gateway, line);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_brings_no_event_is_counted_too_when_it_is_refused() {
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.internal_token = Some(Secret::new("correct horse battery"));
    })
    .await;
    for (method, target) in [
        ("GET", "/sourceConfig"),
        ("GET", "/sourceConfig?writeKey=NO"),
        ("GET", "/v1/projects/NO/settings"),
        ("GET", "/v1/projects/OFF/settings"),
        ("GET", "/nothing"),
        ("POST", "/internal/v1/batch"),
        ("GET", "/v1/track"),
    ] {
        gateway.send(method, target, &[], b"").await;
    }
    for (reason, source, times) in [
        ("no_write_key", "", 1),
        ("unknown_write_key", "", 2),
        ("source_disabled", "off", 1),
        ("unknown_path", "", 1),
        ("no_token", "", 1),
        ("wrong_method", "", 1),
    ] {
        let labels = format!(r#"{{reason="{reason}",source="{source}"}}"#);
        assert_counted(&gateway, &format!("requests_refused_total{labels} {times}"));
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pixel_is_always_an_image_and_sometimes_an_event() {
    let gateway = TestGateway::start(WORKSPACE).await;
    for target in [
        "/pixel/v1/track?writeKey=K&event=Mail%20opened&anonymousId=a",
        "/pixel/v1/page?writeKey=K&anonymousId=b",
        "/pixel/v1/track?writeKey=K&anonymousId=c",
        "/pixel/v1/track?writeKey=NO&event=x&anonymousId=d",
        "/pixel/v1/page",
    ] {
        let bytes = gateway.get_bytes(target).await;
        let head = String::from_utf8_lossy(&bytes);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{target}: {head}");
        assert!(
            head.contains("content-type: image/gif\r\n"),
            "{target}: {head}"
        );
        assert_eq!(&bytes[bytes.len() - 43..][..6], b"GIF89a", "{target}");
    }
    let mut events = gateway.events().await;
    events.sort_by(|a, b| a.anonymous_id.cmp(&b.anonymous_id));
    assert_eq!(events.len(), 2);
    assert_eq!(
        (&*events[0].event_type, &*events[0].event_name),
        ("track", "Mail opened")
    );
    assert_eq!(event_of(&events[1])["name"], "Unknown Page");
    assert!(!String::from_utf8_lossy(&events[0].event).contains("writeKey"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_source_takes_any_json_and_only_webhook_sources_do() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let post = async |target: &str, key: &str, body: &str| {
        let auth = basic(key);
        let headers = [("Authorization", auth.as_str())];
        let headers = if key.is_empty() {
            &headers[..0]
        } else {
            &headers[..]
        };
        let reply = gateway.send("POST", target, headers, body.as_bytes()).await;
        (reply.status, reply.body)
    };
    let ok = (200, "ok".to_owned());
    assert_eq!(
        post("/v1/webhook?writeKey=HOOK", "", r#"{"order":{"id":7}}"#).await,
        ok
    );
    assert_eq!(
        post("/v1/webhook", "HOOK", r#"[{"n":1},{"n":2}]"#).await,
        ok
    );
    for (target, key, status, words) in [
        (
            "/v1/webhook",
            "",
            401,
            "failed to read writekey from query params\n",
        ),
        ("/v1/webhook?writeKey=NO", "", 401, "invalid write key\n"),
        ("/v1/webhook?writeKey=K", "", 401, "invalid write key\n"),
        ("/v1/webhook?writeKey=OFF", "", 404, "source is disabled\n"),
        (
            "/v1/webhook?writeKey=SHOP",
            "",
            404,
            "source does not accept webhook events\n",
        ),
    ] {
        assert_eq!(
            post(target, key, "{}").await,
            (status, words.to_owned()),
            "{target}"
        );
    }
    assert_eq!(
        post("/v1/webhook?writeKey=HOOK", "", "a=b").await,
        (400, "invalid json\n".to_owned())
    );
    assert_eq!(
        get(&gateway, "/v1/webhook?writeKey=HOOK").await.short(),
        (200, "")
    );
    let events = gateway.events().await;
    assert_eq!(events.len(), 3);
    let mut properties: Vec<String> = events
        .iter()
        .map(|e| event_of(e)["properties"].to_string())
        .collect();
    properties.sort();
    assert_eq!(
        properties,
        [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"order":{"id":7}}"#]
    );
    assert!(
        events
            .iter()
            .all(|e| e.event_type == "track" && e.source_id == "hook")
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_clients_work_with_their_own_routes() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let success = (200, r#"{"success":true}"#);
    let none: [(&str, &str); 0] = [];
    for (path, kind) in [
        ("i", "identify"),
        ("t", "track"),
        ("p", "page"),
        ("s", "screen"),
        ("g", "group"),
        ("a", "alias"),
    ] {
        let body = format!(r#"{{"anonymousId":"a","writeKey":"K","messageId":"{kind}"}}"#);
        let reply = gateway
            .send("POST", &format!("/v1/{path}"), &none, body.as_bytes())
            .await;
        assert_eq!(reply.short(), success, "{path}");
    }
    let body = r#"{"writeKey":"NO","batch":[{"type":"track","anonymousId":"a","messageId":"b1"}]}"#;
    assert_eq!(
        gateway.post("/v1/b", "K", body).await.short(),
        success,
        "the header wins over the body"
    );
    let reply = gateway.send("POST", "/v1/b", &none, body.as_bytes()).await;
    assert_eq!(reply.short(), (401, "invalid write key\n"));
    let reply = gateway
        .send("POST", "/v1/t", &none, br#"{"anonymousId":"a"}"#)
        .await;
    assert_eq!(
        reply.short(),
        (401, "failed to read writekey from header\n")
    );
    let reply = gateway
        .send(
            "POST",
            "/v1/t",
            &none,
            br#"{"anonymousId":"a","writeKey":"OFF"}"#,
        )
        .await;
    assert_eq!(reply.short(), (404, "source is disabled\n"));
    let reply = gateway
        .send("POST", "/v1/m", &none, br#"{"series":[]}"#)
        .await;
    assert_eq!(reply.short(), success);
    let kinds: BTreeMap<String, String> = gateway
        .events()
        .await
        .iter()
        .map(|e| (e.message_id.to_string(), e.event_type.to_string()))
        .collect();
    assert_eq!(kinds.len(), 7);
    assert!(
        kinds
            .iter()
            .all(|(id, kind)| id == kind || (id == "b1" && kind == "track")),
        "{kinds:?}"
    );
    let settings = get(&gateway, "/v1/projects/K/settings").await;
    let settings: Value = serde_json::from_str(&settings.body).unwrap();
    let host = format!("{}/v1", gateway.address);
    assert_eq!(
        settings["integrations"]["Segment.io"]["apiHost"],
        host.as_str()
    );
    assert_eq!(get(&gateway, "/v1/projects/NO/settings").await.status, 404);
    assert_eq!(
        get(&gateway, "/cluster-info").await.short(),
        (200, r#"{"nodeCount":1}"#)
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_browser_sdk_boots_from_the_gateway() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let auth = basic("K");
    let headers = [
        ("Authorization", auth.as_str()),
        ("Origin", "https://shop.example"),
    ];
    let target = "/sourceConfig/?p=npm&v=3.34.1&writeKey=K";
    let reply = gateway.send("GET", target, &headers, b"").await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some("https://shop.example")
    );
    let config: Value = serde_json::from_str(&reply.body).unwrap();
    let source = &config["source"];
    assert_eq!(
        (&source["id"], &source["enabled"]),
        (&json!("web"), &json!(true))
    );
    assert_eq!(
        source["destinations"],
        json!([]),
        "listed destinations would be loaded into the page"
    );
    let tag = reply.header("etag").unwrap().to_owned();
    let again = [
        ("Authorization", auth.as_str()),
        ("If-None-Match", tag.as_str()),
    ];
    assert_eq!(gateway.send("GET", target, &again, b"").await.status, 304);
    assert_eq!(get(&gateway, "/sourceConfig?writeKey=K").await.status, 200);
    assert_eq!(
        get(&gateway, "/sourceConfig?writeKey=NO").await.short(),
        (401, "invalid write key\n")
    );
    let off: Value =
        serde_json::from_str(&get(&gateway, "/sourceConfig?writeKey=OFF").await.body).unwrap();
    assert_eq!(off["source"]["enabled"], json!(false));
    let preflight = [
        ("Origin", "https://shop.example"),
        ("Access-Control-Request-Method", "POST"),
        (
            "Access-Control-Request-Headers",
            "anonymousid,authorization,content-type,sentat",
        ),
    ];
    let reply = gateway.send("OPTIONS", "/v1/track", &preflight, b"").await;
    assert_eq!(reply.short(), (204, ""));
    assert_eq!(
        reply.header("access-control-allow-headers"),
        Some(preflight[2].1)
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn internal_routes_are_not_there_without_the_token() {
    let token = "correct horse battery";
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.internal_token = Some(Secret::new(token));
    })
    .await;
    let send = async |path: &str, headers: &[(&str, &str)]| {
        let body = br#"{"batch":[{"type":"record","messageId":"r"}]}"#;
        let reply = gateway.send("POST", path, headers, body).await;
        (reply.status, reply.body.trim_end().to_owned())
    };
    let missing = (404, "404 page not found".to_owned());
    let with = ("X-Sluice-Token", token);
    assert_eq!(
        send("/internal/v1/retl", &[("X-Rudder-Source-Id", "web")]).await,
        missing
    );
    assert_eq!(
        send("/internal/v1/retl", &[("X-Sluice-Token", "wrong")]).await,
        missing
    );
    for (path, id, status, words) in [
        (
            "/internal/v1/retl",
            "",
            401,
            "failed to read source id from header",
        ),
        ("/internal/v1/retl", "nobody", 401, "invalid source id"),
        ("/internal/v1/retl", "off", 404, "source is disabled"),
        ("/internal/v1/retl", "web", 200, "ok"),
        ("/internal/v1/replay", "web", 401, "invalid replay source"),
        ("/internal/v1/replay", "replayed", 200, "ok"),
    ] {
        let headers = [with, ("X-Rudder-Source-Id", id)];
        assert_eq!(
            send(path, &headers).await,
            (status, words.to_owned()),
            "{path} {id}"
        );
    }
    let auth = basic("K");
    let headers = [with, ("Authorization", auth.as_str())];
    let reply = gateway
        .send(
            "POST",
            "/internal/v1/extract",
            &headers,
            br#"{"messageId":"x"}"#,
        )
        .await;
    assert_eq!(reply.short(), (200, "ok"));
    let kinds: Vec<String> = gateway
        .events()
        .await
        .iter()
        .map(|e| e.event_type.to_string())
        .collect();
    assert_eq!(kinds.len(), 3);
    assert!(kinds.contains(&"extract".to_owned()));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reverse_etl_may_be_for_one_destination_only() {
    let token = "correct horse battery";
    let workspace = "
sources: [{id: web, write_key: K}]
destinations: [{id: hook, type: WEBHOOK}, {id: off, type: WEBHOOK, enabled: false}]
connections: [{source: web, destination: hook}, {source: web, destination: off}]";
    for required in [false, true] {
        let gateway = TestGateway::start_with(workspace, |config| {
            config.gateway.internal_token = Some(Secret::new(token));
            config.gateway.retl_destination_required = required;
        })
        .await;
        let (status, words) = if required {
            (400, "failed to read destination id from header\n")
        } else {
            (200, "ok")
        };
        for (source, destination, status, words) in [
            ("web", "", status, words),
            ("web", "hook", 200, "ok"),
            ("web", "nowhere", 400, "invalid destination id\n"),
            ("web", "off", 404, "destination is disabled\n"),
            ("nobody", "nowhere", 401, "invalid source id\n"),
        ] {
            let headers = [
                ("X-Sluice-Token", token),
                ("X-Rudder-Source-Id", source),
                ("X-Rudder-Destination-Id", destination),
            ];
            let body = br#"{"batch":[{"type":"record","messageId":"r"}]}"#;
            let reply = gateway
                .send("POST", "/internal/v1/retl", &headers, body)
                .await;
            assert_eq!(reply.short(), (status, words), "{source} {destination}");
        }
        let events = gateway.events().await;
        let mut destinations: Vec<&str> = events.iter().map(|e| &*e.destination_id).collect();
        destinations.sort_unstable();
        let expected: &[&str] = if required { &["hook"] } else { &["", "hook"] };
        assert_eq!(destinations, expected);
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_ingestion_service_knows_wins_over_what_the_request_tells() {
    let token = "correct horse battery";
    let mut list = tempfile::NamedTempFile::new().unwrap();
    writeln!(list, "gone").unwrap();
    let path = list.path().to_owned();
    let workspace = r#"{"workspaceId":"ws","settings":{"eventBlocking":{"events":{"track":["Noise"]}}},"sources":[
        {"id":"web","writeKey":"K","sourceDefinition":{"name":"HTTP"}}]}"#;
    let gateway = TestGateway::start_with(workspace, |config| {
        config.gateway.internal_token = Some(Secret::new(token));
        config.gateway.suppression_file = Some(path);
    })
    .await;
    let post = async |body: &str| {
        let headers = [
            ("X-Sluice-Token", token),
            (
                "traceparent",
                "00-00000000000000000000000000000001-0000000000000001-01",
            ),
            ("X-Rudder-Source-Id", "other"),
            ("X-Rudder-Job-Run-Id", "other"),
            ("User-Agent", "Googlebot"),
        ];
        let target = "/internal/v1/batch";
        let reply = gateway
            .send("POST", target, &headers, body.as_bytes())
            .await;
        (reply.status, reply.body)
    };
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let told = json!({
        "sourceJobRunID": "job", "sourceTaskRunID": "task", "traceID": trace, "destinationID": "hook", "isBot": true,
        "botName": "Bot", "botURL": "https://bot.example", "botAction": "flag",
    });
    let mut noise = message("noise", json!({}));
    noise["payload"]["event"] = "Noise".into();
    let mut gone = message("gone", json!({}));
    gone["payload"]["userId"] = "gone".into();
    let body = json!([
        message("told", told),
        message("plain", json!({})),
        message("stranger", json!({"sourceID": "deleted"})),
        noise,
        gone,
        message("bot", json!({"isBot": true, "botAction": "drop"})),
        message("asked", json!({"userID": "gone"})),
    ]);
    // Odd spacing and numbers must survive.
    let text = body
        .to_string()
        .replace(r#""userId":"u""#, r#""userId" :  "u", "n":1.50"#);
    assert_eq!(post(&text).await, (200, "ok".to_owned()));
    let records = gateway.records().await;
    let mut events = gateway.events().await;
    events.sort_by(|a, b| a.message_id.cmp(&b.message_id));
    assert_eq!(ids(&events), ["plain", "stranger", "told"]);
    assert!(records.iter().all(|r| r.key == b"a<<>>b<<>>u"));
    let traced: Vec<_> = records.iter().flat_map(|r| r.headers.clone()).collect();
    assert_eq!(
        traced,
        [("traceparent".to_owned(), trace.as_bytes().to_vec())]
    );
    let [plain, stranger, told] = &events[..] else {
        panic!("{events:?}")
    };
    for event in &events {
        assert_eq!(event.received_at, 1_767_323_045_006);
        assert_eq!((&*event.request_ip, &*event.user_id), ("203.0.113.9", "u"));
        let raw = std::str::from_utf8(&event.event).unwrap();
        assert!(
            text.contains(raw) && raw.contains(r#""userId" :  "u", "n":1.50"#),
            "{raw}"
        );
    }
    assert_eq!((&*told.job_run_id, &*told.task_run_id), ("job", "task"));
    assert_eq!((&*told.traceparent, &*told.destination_id), (trace, "hook"));
    assert!(told.is_bot && !plain.is_bot);
    let bot: Value = serde_json::from_str(&told.bot).unwrap();
    assert_eq!(bot, json!({"name": "Bot", "url": "https://bot.example"}));
    assert_eq!(
        (&*plain.job_run_id, &*plain.traceparent, &*plain.bot),
        ("", "", "")
    );
    assert_eq!(plain.write_key_hash, Envelope::hash_write_key("K"));
    assert_eq!(
        (&*stranger.source_id, stranger.write_key_hash),
        ("deleted", 0)
    );

    let metrics = gateway.metrics.render();
    for line in [
        r#"events_dropped_total{reason="event_blocked",source="web"} 1"#,
        r#"events_dropped_total{reason="bot",source="web"} 1"#,
        r#"events_bot_total{source="web"} 1"#,
        r#"events_suppressed_total{source="web"} 2"#,
        r#"events_accepted_total{source="web"} 2"#,
        r#"events_accepted_total{source=""} 1"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }

    let mut bad = body[1].clone();
    bad["properties"]["routingKey"] = "".into();
    let mut unstamped = body[1].clone();
    unstamped["payload"]
        .as_object_mut()
        .unwrap()
        .remove("rudderId");
    for (body, status, words) in [
        (
            json!([body[1], bad]),
            400,
            "missing required fields stream in message\n",
        ),
        (
            json!([body[1], unstamped]),
            400,
            "event is not a valid rudder event\n",
        ),
        (json!([]), 400, "event is not a valid rudder event\n"),
        (json!({}), 400, "invalid json\n"),
    ] {
        assert_eq!(
            post(&body.to_string()).await,
            (status, words.to_owned()),
            "{body}"
        );
    }
    let reply = gateway.send("POST", "/internal/v1/batch", &[], b"[]").await;
    assert_eq!(reply.short(), (404, "404 page not found\n"));
    assert_eq!(
        gateway.events().await.len(),
        3,
        "a refused request leaves nothing behind"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_over_its_limit_waits_and_the_others_do_not() {
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config
            .gateway
            .rate_limit
            .sources
            .insert("web".to_owned(), 3);
        config.gateway.rate_limit.window_ms = 3_600_000;
    })
    .await;
    let body = r#"{"userId":"u"}"#;
    for _ in 0..3 {
        assert_eq!(gateway.post("/v1/track", "K", body).await.status, 200);
    }
    let reply = gateway.post("/v1/track", "K", body).await;
    assert_eq!(reply.short(), (429, "max requests limit reached\n"));
    let seconds: u32 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!(
        (1_190..1_220).contains(&seconds),
        "one event of three an hour: {seconds}"
    );
    assert_eq!(gateway.post("/v1/track", "R", body).await.status, 200);
    let run = r#"{"userId":"u","context":{"sources":{"job_run_id":"j"}}}"#;
    assert_eq!(
        gateway.post("/v1/track", "K", run).await.status,
        200,
        "job runs are exempt"
    );
    assert_eq!(gateway.events().await.len(), 5);
    // A new configuration must not be a new allowance.
    let workspace = sluice::control::parse_workspace("test", WORKSPACE, 2).unwrap();
    gateway.control.publish(workspace);
    until("the new configuration is in use", || {
        gateway.control.snapshot().revision == 2
    })
    .await;
    assert_eq!(gateway.post("/v1/track", "K", body).await.status, 429);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingestion_service_that_announces_too_much_is_told_so_before_its_body_is_read() {
    let token = "correct horse battery";
    let start = async |events| {
        TestGateway::start_with(WORKSPACE, |config| {
            config.gateway.internal_token = Some(Secret::new(token));
            config.gateway.internal_batch_throttle_events = events;
            config.gateway.internal_batch_throttle_window_ms = 3_600_000;
        })
        .await
    };
    let body = json!([message("m", json!({}))]).to_string();
    let post = async |gateway: &TestGateway, size: Option<&str>, body: &str| {
        let mut headers = vec![("X-Sluice-Token", token)];
        headers.extend(size.map(|size| ("X-Batch-Size", size)));
        gateway
            .send("POST", "/internal/v1/batch", &headers, body.as_bytes())
            .await
    };
    let gateway = start(6).await;
    let ok = (200, "ok");
    assert_eq!(post(&gateway, Some("4"), &body).await.short(), ok);
    assert_eq!(post(&gateway, Some("2"), &body).await.short(), ok);
    // The header counts, not the body, which is not even looked at.
    for body in [&*body, "{"] {
        let reply = post(&gateway, Some("1"), body).await;
        assert_eq!(reply.short(), (429, "max requests limit reached\n"));
        let seconds: u32 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!(
            (590..620).contains(&seconds),
            "one of six an hour: {seconds}"
        );
    }
    for size in [None, Some("0"), Some("-1"), Some("many")] {
        assert_eq!(post(&gateway, size, &body).await.short(), ok, "{size:?}");
    }
    assert_eq!(gateway.events().await.len(), 6);
    let refused = r#"sluice_gateway_requests_refused_total{reason="rate_limited",source=""} 2"#;
    assert!(gateway.metrics.render().contains(refused));
    gateway.stop().await;

    let gateway = start(0).await;
    assert_eq!(post(&gateway, Some("1000000"), &body).await.short(), ok);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suppressed_user_is_answered_and_not_kept() {
    let mut list = tempfile::NamedTempFile::new().unwrap();
    writeln!(list, "forget-me\nweb\tonly-here").unwrap();
    let path = list.path().to_owned();
    let gateway = TestGateway::start_with(WORKSPACE, |config| {
        config.gateway.suppression_file = Some(path);
    })
    .await;
    let body = r#"{"batch":[{"userId":"forget-me"},{"userId":"only-here"},{"userId":"u","messageId":"kept"}]}"#;
    assert_eq!(
        gateway.post("/v1/batch", "K", body).await.short(),
        (200, "ok")
    );
    let all = r#"{"batch":[{"userId":"forget-me"}]}"#;
    assert_eq!(
        gateway.post("/v1/batch", "K", all).await.short(),
        (200, "ok")
    );
    assert_eq!(ids(&gateway.events().await), ["kept"]);
    let metrics = gateway.metrics.render();
    assert!(
        metrics.contains("sluice_gateway_events_suppressed_total{source=\"web\"} 3"),
        "{metrics}"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deflate_and_zstd_are_read_too() {
    let gateway = TestGateway::start(WORKSPACE).await;
    let auth = basic("K");
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    deflate
        .write_all(br#"{"userId":"u","messageId":"deflate"}"#)
        .unwrap();
    let zstd = zstd::encode_all(&br#"{"userId":"u","messageId":"zstd"}"#[..], 1).unwrap();
    for (encoding, body) in [("deflate", deflate.finish().unwrap()), ("zstd", zstd)] {
        let headers = [
            ("Authorization", auth.as_str()),
            ("Content-Encoding", encoding),
        ];
        let reply = gateway.send("POST", "/v1/track", &headers, &body).await;
        assert_eq!(reply.short(), (200, "ok"), "{encoding}");
    }
    assert_eq!(ids(&gateway.events().await), ["deflate", "zstd"]);
    gateway.stop().await;
}
