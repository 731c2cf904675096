//! Hostile bodies against the pure half of the gateway, mutated from what SDKs sent.
//!
//! What must hold for every body: no panic; what is taken is JSON that every later stage can read, whole and in order; what
//! is refused for its syntax is refused by `serde_json` too. `SLUICE_FUZZ_SECONDS` runs it for longer than the two seconds
//! of an ordinary test run, `SLUICE_FUZZ_SEED` repeats one.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sluice::event::codec::decode_envelope;
use sluice::event::stamped_event;
use sluice::gateway::testing::Encoder;

/// Bodies to begin with: the captures if they are there, and these.
fn corpus() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        r#"{"batch":[{"userId":"u","type":"track","event":"e","properties":{"a":[1,2.5e3,-0,null,true]}}],"sentAt":"x"}"#,
        r#"{"userId":7,"anonymousId":null,"messageId":"\u00e4\ud83d\ude00\ud83d","context":{"library":{"name":"a","version":1}}}"#,
        r#"{"us\u0065rId":"a","userId":"b","batch":{"batch":[]},"context":[],"type":{"a":"b"}}"#,
        r#"{"batch":[{"anonymousId":"a"},{"anonymousId":"b","context":{"sources":{"job_run_id":"j"}}}],"batch":null}"#,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    let root = std::env::var("SLUICE_VECTORS").unwrap_or_else(|_| "../shared/vectors".to_owned());
    for entry in std::fs::read_dir(format!("{root}/sdk"))
        .into_iter()
        .flatten()
    {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        let capture: Value = serde_json::from_str(&text).unwrap_or_default();
        for exchange in capture["exchanges"].as_array().into_iter().flatten() {
            let request = &exchange["request"];
            if request["body_json"].is_object() {
                bodies.push(request["body_json"].to_string().into_bytes());
            }
            // The bytes as they were on the wire, compressed ones too: they are as good as random.
            let raw = request["body_raw_base64"].as_str().unwrap_or_default();
            bodies.push(STANDARD.decode(raw).unwrap_or_default());
        }
    }
    bodies.retain(|body| !body.is_empty());
    bodies
}

const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u",
    "\\ud83d",
    "\\ude00",
    "\\\"",
    "\u{feff}",
    "null",
    "true",
    "-",
    "0",
    "1e999",
    "\"batch\":",
    "\"userId\":",
    "\"context\":{",
    "\"\":",
    "[[[[[[[[",
    "{\"a\":",
    "\u{0}",
    "\u{200b}",
    " ",
];

fn mutate(random: &mut fastrand::Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut body = corpus[random.usize(..corpus.len())].clone();
    for _ in 0..random.usize(0..6) {
        let at = random.usize(..=body.len());
        match random.u8(..7) {
            0 if at < body.len() => body[at] = random.u8(..),
            1 => drop(body.splice(at..at, TOKENS[random.usize(..TOKENS.len())].bytes())),
            2 => {
                let to = (at + random.usize(1..30)).min(body.len());
                drop(body.splice(at..to, []));
            }
            3 => {
                let other = &corpus[random.usize(..corpus.len())];
                let from = random.usize(..other.len());
                let to = (from + random.usize(1..200)).min(other.len());
                drop(body.splice(at..at, other[from..to].iter().copied()));
            }
            4 => body.truncate(at),
            5 => {
                let token = TOKENS[random.usize(..TOKENS.len())].repeat(random.usize(1..300));
                drop(body.splice(at..at, token.bytes()));
            }
            _ => {
                let to = (at + random.usize(1..100)).min(body.len());
                let part = body[at..to].to_vec();
                drop(body.splice(at..at, part));
            }
        }
    }
    body
}

/// What every later stage does with a record: read the envelope, and the event as a whole.
fn check_record(body: &[u8], key: &[u8], payload: &[u8]) {
    let shown = || String::from_utf8_lossy(body).into_owned();
    let envelope = decode_envelope(payload).unwrap();
    assert!(
        !key.is_empty() && !envelope.message_id.is_empty(),
        "{}",
        shown()
    );
    match stamped_event(&envelope) {
        Ok(event) => {
            assert_eq!(
                event["messageId"],
                envelope.message_id.as_ref(),
                "{}",
                shown()
            );
            assert!(
                !envelope.user_id.is_empty() || !envelope.anonymous_id.is_empty(),
                "{}",
                shown()
            );
        }
        // A number beyond a double: JSON allows it, no reader holds it. The event ends in the dead letters.
        Err(error) => assert!(
            error.to_string().contains("number out of range"),
            "{error}: {}",
            shown()
        ),
    }
}

fn try_body(encoder: &Encoder, kind: Option<&'static str>, body: &[u8]) -> bool {
    let mut taken = 0;
    let outcome = encoder.encode(kind, body, |key, payload| {
        check_record(body, key, payload);
        taken += 1;
    });
    let text = String::from_utf8_lossy(body);
    match outcome {
        Ok(()) => {
            // All of a batch, or nothing.
            if let (None, Ok(Value::Object(object))) = (kind, serde_json::from_str::<Value>(&text))
                && let Some(batch) = object.get("batch").and_then(Value::as_array)
                && text.matches("batch").count() == 1
            {
                assert_eq!(taken, batch.len(), "{text}");
            }
            true
        }
        Err("invalid_json") => {
            assert!(serde_json::from_str::<Value>(&text).is_err(), "{text}");
            false
        }
        Err(_) => false,
    }
}

#[test]
fn no_body_breaks_the_gateway_or_a_later_stage() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seed = number("SLUICE_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let seconds = number("SLUICE_FUZZ_SECONDS").unwrap_or(2);
    println!("SLUICE_FUZZ_SEED={seed}");
    let corpus = corpus();
    let encoder = Encoder::default();
    let mut random = fastrand::Rng::with_seed(seed);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut tried, mut taken) = (0u64, 0u64);
    while Instant::now() < until {
        for _ in 0..100 {
            let body = mutate(&mut random, &corpus);
            for kind in [None, Some("track")] {
                tried += 1;
                taken += u64::from(try_body(&encoder, kind, &body));
            }
        }
    }
    println!("{tried} bodies, {taken} taken");
    assert!(
        taken * 20 > tried,
        "the mutations leave too little to test: {taken} of {tried}"
    );
}
