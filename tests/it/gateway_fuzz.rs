//! Hostile requests against the pure half of the gateway, mutated from good ones: bodies, compressed bodies, internal
//! batches, webhooks, queries, headers, ids.
//!
//! What must hold for every one: no panic; what is taken is JSON that every later stage can read, whole, in order and
//! within the limits; what is refused for its syntax is refused by `serde_json` too. Each target runs a fixed number of
//! cases. `SLUICE_FUZZ_SECONDS` is the time that all of them share when they are to run for longer, `SLUICE_FUZZ_SEED`
//! repeats a run.

mod mutate;

use std::io::Write;
use std::ops::ControlFlow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use sluice::event::codec::{decode_envelope, encode_envelope};
use sluice::event::{
    Envelope, Framing, event_key, ordering_key, rudder_id, sanitize_id, stamped_event,
};
use sluice::gateway::testing::{self, Encoder, Limits};

use mutate::{corpus, fuzz, mutate, text};

/// Bodies of events and batches.
const BODIES: &[&str] = &[
    r#"{"batch":[{"userId":"u","type":"track","event":"e","properties":{"a":[1,2.5e3,-0,null,true]}}],"sentAt":"x"}"#,
    r#"{"userId":7,"anonymousId":null,"messageId":"\u00e4\ud83d\ude00\ud83d","context":{"library":{"name":"a","version":1}}}"#,
    r#"{"us\u0065rId":"a","userId":"b","batch":{"batch":[]},"context":[],"type":{"a":"b"}}"#,
    r#"{"batch":[{"anonymousId":"a"},{"anonymousId":"b","context":{"sources":{"job_run_id":"j"}}}],"batch":null}"#,
];

/// Bodies of the internal batch route.
const STREAMS: &[&str] = &[
    r#"[{"properties":{"requestType":"track","routingKey":"k","workspaceID":"w","sourceID":"s","receivedAt":"2026-01-02T03:04:05.006Z","requestIP":"::1","traceID":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},"payload":{"type":"track","event":"Order","messageId":"m","receivedAt":"x","request_ip":"y","rudderId":"z"}}]"#,
    r#"[{"payload":{"messageId":7,"userId":"u","receivedAt":null,"request_ip":[],"rudderId":{"a":1e3}},"properties":{"requestType":"batch","routingKey":"\u00e4","workspaceID":"w","sourceID":"s","receivedAt":"2026-01-02T03:04:05+02:00","requestIP":"1.2.3.4","isBot":true,"botName":"b\"","botIsInvalidBrowser":true,"userID":"q","other":[{}]}},{"properties":{"requestType":"retl","routingKey":"k2","workspaceID":"w","sourceID":"s2","receivedAt":"2026-01-02T03:04:05Z","requestIP":"x","sourceJobRunID":"j","sourceTaskRunID":"t","destinationID":"d"},"payload":{"messageId":"n","r\u0065ceivedAt":"","request_ip":"","rudderId":""},"more":1}]"#,
    "null",
    "[null]",
];

/// What services post.
const POSTED: &[&str] = &[
    r#"{"order":{"id":7,"lines":[{"a":1},{"b":"\u00e4"}]},"total":12.50}"#,
    r#"[{"a":1},"x",[1,2],null,{"properties":{"userId":"u"}},7]"#,
    "a=1&a=2&b=x+y&c=%C3%B6",
    "--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--X\r\nContent-Disposition: form-data; name=\"f\"; \
     filename=\"p.png\"\r\nContent-Type: image/png\r\n\r\nabc\r\n--X--\r\n",
];

const QUERIES: &[&str] = &[
    "writeKey=K&event=Mail%20opened&userId=u1&userId=u2&a.b=c",
    "anonymousId=a&name=&writeKey=%4b%2F&event=%E2%80%8b&channel=x&messageId=+m+",
    "userId=%ff%00&event=e&sentAt=now&integrations=none&context=%7B%7D",
];

/// The encoders of a case: the default limits, and some that small inputs reach.
fn encoders() -> [Encoder; 2] {
    let small = Limits {
        record_bytes: 600,
        body_bytes: 300,
        events: 3,
        depth: 7,
        values: 40,
    };
    [Encoder::default(), Encoder::new(small)]
}

/// What a request left behind.
struct Left {
    outcome: Result<(), &'static str>,
    /// The events of its records; none for one that has a number beyond a double.
    events: Vec<Option<Value>>,
    keys: Vec<String>,
    envelopes: Vec<Envelope<'static>>,
}

/// Encodes a request, and does with its records what every later stage does: reads the envelope, and the event as a whole.
fn left(
    encoder: &Encoder,
    encode: impl FnOnce(&Encoder, &mut dyn FnMut(&[u8], &[u8])) -> Result<(), &'static str>,
) -> Left {
    let mut events = Vec::new();
    let mut keys = Vec::new();
    let mut envelopes = Vec::new();
    let limits = encoder.limits();
    let outcome = encode(encoder, &mut |key, payload| {
        let envelope = decode_envelope(payload).unwrap();
        events.push(check(&envelope, key, payload, limits));
        keys.push(std::str::from_utf8(key).unwrap().to_owned());
        envelopes.push(envelope.into_owned());
    });
    assert!(outcome.is_ok() || keys.is_empty(), "all or nothing");
    assert!(keys.len() <= limits.events, "{} events", keys.len());
    Left {
        outcome,
        events,
        keys,
        envelopes,
    }
}

fn check(envelope: &Envelope<'_>, key: &[u8], payload: &[u8], limits: Limits) -> Option<Value> {
    let shown = String::from_utf8_lossy(&envelope.event);
    let mut again = Vec::new();
    encode_envelope(envelope, Framing::SingleObject, &mut again).unwrap();
    assert!(again == payload, "not the same bytes again: {shown}");
    assert!(key.len() + payload.len() <= limits.record_bytes, "{shown}");
    assert!(
        !key.is_empty() && !envelope.message_id.is_empty(),
        "{shown}"
    );
    for id in [
        &envelope.message_id,
        &envelope.user_id,
        &envelope.anonymous_id,
    ] {
        assert_eq!(sanitize_id(id), **id, "{shown}");
    }
    assert!(envelope.traceparent.is_empty() || envelope.traceparent.len() == 55);
    if !envelope.bot.is_empty() {
        let bot: Value = serde_json::from_str(&envelope.bot).unwrap();
        assert!(bot.is_object(), "{bot}");
    }
    match stamped_event(envelope) {
        Ok(event) => assert_eq!(event["messageId"], *envelope.message_id, "{shown}"),
        // A number beyond a double: JSON allows it, no reader holds it. The event ends in the dead letters.
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("number out of range"), "{error}: {shown}");
            return None;
        }
    }
    let event: Value = serde_json::from_slice(&envelope.event).unwrap();
    let (depth, values) = size(&event);
    assert!(depth <= limits.depth, "{depth} deep: {shown}");
    assert!(values <= limits.values, "{values} values: {shown}");
    Some(event)
}

/// How deep a value is, and how many members and elements it has.
fn size(value: &Value) -> (usize, usize) {
    let within: Vec<&Value> = match value {
        Value::Array(elements) => elements.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => return (0, 0),
    };
    within
        .into_iter()
        .map(size)
        .fold((1, 0), |all, one| (all.0.max(one.0 + 1), all.1 + one.1 + 1))
}

/// What is refused for its syntax is none to `serde_json` either.
fn agrees_on_syntax(left: &Left, body: &[u8]) {
    if left.outcome == Err("invalid_json") {
        let text = String::from_utf8_lossy(body);
        assert!(serde_json::from_str::<Value>(&text).is_err(), "{text}");
    }
}

#[test]
fn no_body_breaks_the_gateway_or_a_later_stage() {
    let corpus = corpus(BODIES);
    let encoders = encoders();
    fuzz("bodies", 6_000, 20, |random| {
        let body = mutate(random, &corpus);
        let mut taken = false;
        for encoder in &encoders {
            for kind in [None, Some("track")] {
                let left = left(encoder, |e, record| e.encode(kind, &body, record));
                agrees_on_syntax(&left, &body);
                taken |= left.outcome.is_ok();
                if left.outcome.is_ok() {
                    check_body(kind, &body, &left);
                }
            }
        }
        taken
    });
}

/// All of a batch is taken, in order and byte for byte.
fn check_body(kind: Option<&str>, body: &[u8], left: &Left) {
    let text = String::from_utf8_lossy(body);
    for (envelope, key) in left.envelopes.iter().zip(&left.keys) {
        let (user, anonymous) = (&envelope.user_id, &envelope.anonymous_id);
        let nobody = user.is_empty() && anonymous.is_empty();
        let without = ["record", "extract"].contains(&&*envelope.event_type);
        assert!(!nobody || without, "{text}");
        let expected = ordering_key(user, anonymous, "", &envelope.message_id);
        assert_eq!(key, expected, "{text}");
        // A lone half of a surrogate pair is the one thing that is rewritten.
        if std::str::from_utf8(body).is_ok() && !text.to_lowercase().contains("\\ud") {
            let event = std::str::from_utf8(&envelope.event).unwrap();
            assert!(text.contains(event), "{text}");
        }
    }
    let Ok(value) = serde_json::from_str::<Value>(&text) else {
        return;
    };
    let events: Option<Vec<Value>> = left.events.iter().cloned().collect();
    match (kind, value.get("batch").and_then(Value::as_array)) {
        (Some(_), _) => assert_eq!(events.unwrap(), [value], "{text}"),
        (None, Some(batch)) if text.matches("batch").count() == 1 => {
            assert_eq!(events.unwrap(), *batch, "{text}");
        }
        _ => {}
    }
}

/// `data` as `encoding` has it: in one piece, or for gzip and zstd perhaps in two.
fn compressed(random: &mut Rng, encoding: &str, data: &[u8]) -> Vec<u8> {
    let middle = match encoding {
        "gzip" | "zstd" if random.u8(..4) == 0 => random.usize(..=data.len()),
        _ => data.len(),
    };
    let mut out = Vec::new();
    for part in [&data[..middle], &data[middle..]] {
        if part.is_empty() && middle == data.len() && !out.is_empty() {
            break;
        }
        let level = flate2::Compression::new(random.u32(0..=9));
        match encoding {
            "gzip" => {
                let mut encoder = flate2::write::GzEncoder::new(&mut out, level);
                encoder.write_all(part).unwrap();
                encoder.finish().unwrap();
            }
            "deflate" => {
                let mut encoder = flate2::write::ZlibEncoder::new(&mut out, level);
                encoder.write_all(part).unwrap();
                encoder.finish().unwrap();
            }
            "bare" => {
                let mut encoder = flate2::write::DeflateEncoder::new(&mut out, level);
                encoder.write_all(part).unwrap();
                encoder.finish().unwrap();
            }
            _ => {
                let mut encoder = zstd::stream::Encoder::new(&mut out, 1).unwrap();
                encoder.include_checksum(random.bool()).unwrap();
                encoder.write_all(part).unwrap();
                encoder.finish().unwrap();
            }
        }
    }
    out
}

#[test]
fn no_compressed_body_gives_more_than_its_cap_or_less_than_was_sent() {
    let corpus = corpus(BODIES);
    let encoder = Encoder::default();
    fuzz("inflate", 4_000, 20, |random| {
        let format = *random
            .choice(["gzip", "deflate", "bare", "zstd"].iter())
            .unwrap();
        let encoding = if format == "bare" { "deflate" } else { format };
        let data = match random.u8(..4) {
            // A bomb.
            0 => vec![random.u8(..); random.usize(1..300_000)],
            _ => mutate(random, &corpus),
        };
        let cap = match random.u8(..4) {
            0 => random.usize(..=data.len()),
            1 => data.len(),
            _ => data.len() + random.usize(..100_000),
        };
        let budget = random
            .usize(..400_000)
            .max(if random.bool() { cap } else { 0 });
        let whole = compressed(random, format, &data);
        let got = testing::inflate(encoding, &whole, cap, budget);
        match &got {
            Ok(body) => assert!(*body == data && data.len() <= cap.min(budget), "{format}"),
            Err("too_large") => assert!(data.len() > cap, "{format}"),
            Err("overloaded") => assert!(data.len() > budget, "{format}"),
            Err(code) => panic!("{format}: {code}"),
        }
        let mut spoilt = whole.clone();
        let cut = random.bool();
        if cut {
            spoilt.truncate(random.usize(..whole.len()));
        } else {
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..spoilt.len());
                spoilt[at] ^= 1 << random.u8(..8);
            }
        }
        if let Ok(body) = testing::inflate(encoding, &spoilt, cap, budget) {
            assert!(body.len() <= cap.min(budget), "{format}: {}", body.len());
            // Between two members or frames a cut is none.
            assert!(
                !cut || body.is_empty()
                    || body.len() < data.len() && ["gzip", "zstd"].contains(&format),
                "{format}: {} of {} bytes are taken for all of it",
                spoilt.len(),
                whole.len()
            );
            drop(left(&encoder, |e, record| e.encode(None, &body, record)));
        }
        got.is_ok()
    });
}

#[test]
fn no_internal_batch_breaks_the_gateway_or_a_later_stage() {
    let corpus = corpus(&[STREAMS, STREAMS, STREAMS, STREAMS, STREAMS, BODIES].concat());
    let streams: Vec<Vec<u8>> = STREAMS.iter().map(|t| t.as_bytes().to_vec()).collect();
    let encoders = encoders();
    fuzz("internal batches", 10_000, 20, |random| {
        let of = if random.u8(..4) == 0 {
            &corpus
        } else {
            &streams
        };
        let body = mutate(random, of);
        let mut taken = false;
        for encoder in &encoders {
            let left = left(encoder, |e, record| e.stream(&body, record));
            if left.outcome.is_ok() {
                taken = true;
                check_stream(&body, &left);
            }
        }
        taken
    });
}

/// Every message of an internal batch that is taken has what RudderStack asks of it.
fn check_stream(body: &[u8], left: &Left) {
    let text = String::from_utf8_lossy(body);
    let messages: Vec<Value> = match serde_json::from_str(&text) {
        Ok(messages) => messages,
        // A number beyond a double, or a lone half of a surrogate pair: see `check`.
        Err(error) => {
            let error = error.to_string();
            let known = ["number out of range", "surrogate", "hex escape"];
            assert!(known.iter().any(|k| error.contains(k)), "{error}: {text}");
            return;
        }
    };
    assert_eq!(messages.len(), left.envelopes.len(), "{text}");
    for (((message, envelope), key), event) in messages
        .iter()
        .zip(&left.envelopes)
        .zip(&left.keys)
        .zip(&left.events)
    {
        let properties = &message["properties"];
        for name in ["requestType", "workspaceID", "receivedAt"] {
            assert_ne!(properties[name].as_str().unwrap(), "", "{text}");
        }
        assert_eq!(properties["routingKey"], **key, "{text}");
        assert_eq!(properties["sourceID"], *envelope.source_id, "{text}");
        assert_eq!(properties["requestIP"], *envelope.request_ip, "{text}");
        assert_eq!(event.as_ref(), Some(&message["payload"]), "{text}");
        let payload = message["payload"].as_object().unwrap();
        for stamp in ["receivedAt", "request_ip", "rudderId"] {
            assert!(payload.contains_key(stamp), "{text}");
        }
    }
}

#[test]
fn no_post_to_a_webhook_breaks_the_gateway_or_a_later_stage() {
    let corpus = corpus(POSTED);
    let posted: Vec<Vec<u8>> = POSTED.iter().map(|t| t.as_bytes().to_vec()).collect();
    let types = [
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=X",
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let encoders = encoders();
    fuzz("webhooks", 6_000, 20, |random| {
        let of = if random.bool() { &corpus } else { &posted };
        let body = mutate(random, of);
        let mut content_type = types[random.usize(..types.len())].to_owned();
        let is_json = content_type == types[0];
        if random.u8(..10) == 0 {
            content_type = String::from_utf8_lossy(&mutate(random, &types)).into_owned();
        }
        let is_json = is_json && content_type == types[0];
        let value = HeaderValue::from_str(&content_type);
        let headers: HeaderMap = value
            .map(|v| (http::header::CONTENT_TYPE, v))
            .into_iter()
            .collect();
        let mut taken = false;
        for encoder in &encoders {
            let sent = Bytes::copy_from_slice(&body);
            let left = left(encoder, |e, record| {
                runtime.block_on(e.webhook(&headers, sent, record))
            });
            taken |= left.outcome.is_ok();
            if is_json {
                agrees_on_syntax(&left, &body);
            }
            let posted = serde_json::from_str::<Value>(&String::from_utf8_lossy(&body));
            if left.outcome.is_ok()
                && is_json
                && let Ok(posted) = posted
            {
                check_posted(posted, &left);
            }
        }
        taken
    });
}

/// Each posted object is the properties of an event.
fn check_posted(posted: Value, left: &Left) {
    let posted = match posted {
        Value::Array(all) => all,
        one => vec![one],
    };
    assert_eq!(posted.len(), left.events.len());
    for (posted, event) in posted.into_iter().zip(&left.events) {
        let properties = match posted {
            Value::Object(_) => posted,
            other => json!({"payload": other}),
        };
        let event = event.as_ref().unwrap();
        assert_eq!(event["properties"], properties);
        assert_eq!(event["type"], "track");
    }
}

#[test]
fn no_query_breaks_the_gateway_or_a_later_stage() {
    let encoders = encoders();
    fuzz("queries", 10_000, 20, |random| {
        let query = String::from_utf8_lossy(&mutate(random, QUERIES)).into_owned();
        let fields: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let first = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        let key = testing::write_key_in_query(&query);
        let expected = first("writeKey").filter(|key| !key.is_empty());
        assert_eq!(key.as_ref(), expected, "{query}");
        let mut taken = false;
        for encoder in &encoders {
            for kind in ["track", "page"] {
                let left = left(encoder, |e, record| e.pixel(kind, &query, record));
                let [Some(event)] = &left.events[..] else {
                    assert!(left.outcome.is_err(), "{query}");
                    continue;
                };
                taken = true;
                let made = ["channel", "integrations", "originalTimestamp", "sentAt"];
                let kept = |n: &str| n != "writeKey" && n != "name" && !made.contains(&n);
                for (name, _) in fields.iter().filter(|(n, _)| kept(n)) {
                    assert_eq!(event[name], **first(name).unwrap(), "{query}");
                }
                assert_eq!(left.envelopes[0].event_type, kind);
                assert_eq!(event["integrations"], json!({"All": true}), "{query}");
            }
        }
        taken
    });
}

const HEADERS: [(&str, &[&str]); 7] = [
    (
        "authorization",
        &["Basic S0VZOg==", "basic S0VZOnNlY3JldA==", "Bearer x"],
    ),
    ("x-sluice-token", &["correct horse", ""]),
    (
        "anonymousid",
        &["b7a1a0f2-3c3e-4b52-8d9f-5d9b8a3a8c11", " a "],
    ),
    (
        "traceparent",
        &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
    ),
    (
        "x-forwarded-for",
        &[
            "203.0.113.9:55, 10.1.1.1",
            "[2001:db8::1]:443",
            "unknown, ::ffff:1.2.3.4",
        ],
    ),
    ("user-agent", &["Mozilla/5.0 (compatible; Googlebot/2.1)"]),
    ("x-batch-size", &["100", "18446744073709551615"]),
];

#[test]
fn no_header_breaks_the_gateway_or_a_later_stage() {
    let encoders = encoders();
    // A type that need not name anybody: only then the header is the key.
    let body = br#"{"messageId":"m"}"#;
    fuzz("headers", 10_000, 20, |random| {
        let mut headers = HeaderMap::new();
        for (name, values) in HEADERS {
            for _ in 0..random.usize(..3) {
                if let Ok(value) = HeaderValue::from_bytes(&mutate(random, values)) {
                    headers.append(name, value);
                }
            }
        }
        let head = testing::head(&headers, "correct horse");
        let sent = |name: &str| headers.get(name).map_or(&b""[..], |v| v.as_bytes());
        let given = sent("authorization");
        let key = head.write_key.as_ref().map_or("", |key| key);
        if head.write_key.is_some() {
            let (scheme, credentials) = given.split_at(6);
            assert!(scheme.eq_ignore_ascii_case(b"basic "), "{headers:?}");
            let decoded = STANDARD.decode(credentials.trim_ascii()).unwrap();
            assert!(
                decoded.starts_with(format!("{key}:").as_bytes()),
                "{headers:?}"
            );
            assert!(!key.is_empty() && !key.contains(':'), "{headers:?}");
        }
        assert_eq!(head.has_token, sent("x-sluice-token") == b"correct horse");
        assert!(
            head.request_ip.parse::<std::net::IpAddr>().is_ok(),
            "{headers:?}"
        );
        assert_ne!(head.announced, Some(0), "{headers:?}");
        if !head.traceparent.is_empty() {
            assert_eq!(head.traceparent.as_bytes(), sent("traceparent"));
            let parts: Vec<&str> = head.traceparent.split('-').collect();
            let numbers: Vec<u128> = parts
                .iter()
                .map(|p| u128::from_str_radix(p, 16).unwrap())
                .collect();
            assert!(
                numbers[0] != 255 && numbers[1] != 0 && numbers[2] != 0,
                "{headers:?}"
            );
            assert_eq!(parts.len(), 4, "{headers:?}");
        }
        for encoder in &encoders {
            let left = left(encoder, |e, record| {
                e.encode_with(&headers, Some("extract"), body, record)
            });
            let most = encoder.limits().record_bytes;
            match &left.keys[..] {
                [key] => {
                    assert_eq!(*key, ordering_key("", "", &head.anonymous_id, "m"));
                    assert_eq!(left.envelopes[0].traceparent, head.traceparent);
                    assert_eq!(left.envelopes[0].is_bot, head.is_bot);
                }
                _ => assert!(
                    left.outcome == Err("too_large") && head.anonymous_id.len() + 300 > most,
                    "{:?}: {headers:?}",
                    left.outcome
                ),
            }
        }
        head.write_key.is_some() || !head.traceparent.is_empty()
    });
}

#[test]
fn no_id_breaks_the_gateway_or_a_later_stage() {
    let encoder = Encoder::default();
    fuzz("ids", 10_000, 2, |random| {
        let [user, anonymous, message] = [(); 3].map(|()| text(random, 12));
        let [u, a, m] = [&user, &anonymous, &message].map(|raw| {
            let id = sanitize_id(raw);
            assert_eq!(sanitize_id(&id), id, "{raw:?}");
            assert_eq!(id.trim(), id, "{raw:?}");
            assert!(!id.contains(|c: char| c.is_control()), "{raw:?}");
            // Nothing is added and nothing changes places.
            let left = id
                .chars()
                .try_fold(raw.chars(), |mut rest, c| match rest.any(|r| r == c) {
                    true => ControlFlow::Continue(rest),
                    false => ControlFlow::Break(()),
                });
            assert!(left.is_continue(), "{raw:?}");
            id
        });
        let rudder = rudder_id(&u, &a);
        assert_eq!(rudder, rudder_id(&u, &a));
        assert_eq!(rudder.get_version_num(), 4, "{u:?} {a:?}");
        let keys = [event_key(&u, &m), event_key(&a, &m)];
        assert_eq!(keys[0] == keys[1], u == a, "{u:?} {a:?} {m:?}");
        let body = json!({"userId": user, "anonymousId": anonymous, "messageId": message});
        let body = body.to_string();
        let left = left(&encoder, |e, record| {
            e.encode(Some("track"), body.as_bytes(), record)
        });
        let [envelope] = &left.envelopes[..] else {
            assert!(u.is_empty() && a.is_empty(), "{body}");
            assert_eq!(left.outcome, Err("no_identity"), "{body}");
            return false;
        };
        assert_eq!(
            (&*envelope.user_id, &*envelope.anonymous_id),
            (&*u, &*a),
            "{body}"
        );
        assert!(m.is_empty() || envelope.message_id == m, "{body}");
        assert_eq!(left.keys[0], ordering_key(&u, &a, "", &envelope.message_id));
        true
    });
}
