//! The events that are sent: realistic, of a wished size, and patched in place so that making one costs next to nothing.

use std::io::Write;
use std::net::SocketAddr;

use crate::client;

/// What makes the ids of one run findable in any record: `ld-<run>-<number>`, the number in hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run(pub u32);

const NUMBER_DIGITS: usize = 12;
const USER_DIGITS: usize = 6;

impl Run {
    /// A run of its own.
    pub fn new() -> Self {
        Self(fastrand::u32(..))
    }

    /// What every id of the run begins with.
    pub fn marker(self) -> String {
        format!("ld-{:08x}-", self.0)
    }
}

/// Numbers of this run's events in `bytes`, in order. An event names its id once.
pub fn numbers<'a>(
    finder: &'a memchr::memmem::Finder<'a>,
    bytes: &'a [u8],
) -> impl Iterator<Item = u64> + 'a {
    finder.find_iter(bytes).filter_map(|at| {
        let digits = bytes
            .get(at + finder.needle().len()..)?
            .get(..NUMBER_DIGITS)?;
        u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    })
}

/// How requests look.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Events of a request; 0 posts single events to `/v1/track`, else `/v1/batch`.
    pub batch: usize,
    /// Bytes of one event's JSON.
    pub event_bytes: usize,
    /// Whether bodies are gzipped (level 1).
    pub gzip: bool,
    /// Distinct users.
    pub users: u64,
}

impl Shape {
    /// Events of a request.
    pub fn events(&self) -> u64 {
        self.batch.max(1) as u64
    }

    /// For tables.
    pub fn name(&self) -> String {
        match self.batch {
            0 => "single events".to_owned(),
            1 => "batches of 1".to_owned(),
            n => format!("batches of {n}"),
        }
    }
}

/// A request whose ids and users are patched before each sending.
#[derive(Debug, Clone)]
pub struct Request {
    shape: Shape,
    host: SocketAddr,
    write_key: String,
    body: Vec<u8>,
    /// Head and body, when the body needs no compression.
    whole: Vec<u8>,
    body_at: usize,
    /// Where in the body each event's number and user begin.
    places: Vec<(usize, usize)>,
}

impl Request {
    /// A template for `run`.
    pub fn new(shape: &Shape, run: Run, host: SocketAddr, write_key: &str) -> Self {
        let event = event(run, shape.event_bytes);
        let body = if shape.batch == 0 {
            event
        } else {
            let events = vec![event; shape.batch];
            format!(
                r#"{{"batch":[{}],"sentAt":"2026-01-01T00:00:00.500Z"}}"#,
                events.join(",")
            )
        };
        let body = body.into_bytes();
        let marker = run.marker();
        let places = memchr::memmem::find_iter(&body, marker.as_bytes())
            .zip(memchr::memmem::find_iter(&body, b"user-"))
            .map(|(id, user)| (id + marker.len(), user + 5))
            .collect();
        let mut request = Self {
            shape: shape.clone(),
            host,
            write_key: write_key.to_owned(),
            whole: Vec::new(),
            body_at: 0,
            body,
            places,
        };
        request.whole = request.with_head(&request.body);
        request.body_at = request.whole.len() - request.body.len();
        request
    }

    /// The bytes of request number `index`.
    pub fn bytes(&mut self, index: u64) -> &[u8] {
        let first = index * self.shape.events();
        let target = if self.shape.gzip {
            &mut self.body[..]
        } else {
            &mut self.whole[self.body_at..]
        };
        for (n, (id, user)) in (first..).zip(&self.places) {
            hex(n, &mut target[*id..id + NUMBER_DIGITS]);
            hex(n % self.shape.users, &mut target[*user..user + USER_DIGITS]);
        }
        if self.shape.gzip {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(&self.body).expect("a Vec takes all");
            let packed = packer.finish().expect("a Vec takes all");
            self.whole = self.with_head(&packed);
        }
        &self.whole
    }

    /// The body of request number `index`, without the head.
    pub fn body(&mut self, index: u64) -> &[u8] {
        let from = self.body_at;
        &self.bytes(index)[from..]
    }

    fn with_head(&self, body: &[u8]) -> Vec<u8> {
        let authorization = client::basic(&self.write_key);
        let mut headers = vec![
            ("Authorization", authorization.as_str()),
            ("Content-Type", "application/json"),
        ];
        if self.shape.gzip {
            headers.push(("Content-Encoding", "gzip"));
        }
        let target = if self.shape.batch == 0 {
            "/v1/track"
        } else {
            "/v1/batch"
        };
        client::request("POST", self.host, target, &headers, body)
    }
}

fn hex(mut number: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// A track event as a shop's site sends it, filled up to `size` bytes with text that compresses as text does.
fn event(run: Run, size: usize) -> String {
    const WORDS: [&str; 12] = [
        "blue", "cotton", "summer", "order", "green", "shipping", "express", "voucher", "garden",
        "winter", "leather", "return",
    ];
    let start = format!(
        concat!(
            r#"{{"type":"track","event":"Order Completed","messageId":"{}{}","userId":"user-{}","#,
            r#""originalTimestamp":"2026-01-01T00:00:00.000Z","sentAt":"2026-01-01T00:00:00.500Z","#,
            r#""context":{{"library":{{"name":"load","version":"1.0.0"}},"locale":"en-US","page":{{"path":"/checkout","#,
            r#""url":"https://shop.example/checkout"}}}},"properties":{{"revenue":39.95,"currency":"EUR","note":""#
        ),
        run.marker(),
        "0".repeat(NUMBER_DIGITS),
        "0".repeat(USER_DIGITS),
    );
    let end = r#""}}"#;
    let mut text = start;
    let mut random = fastrand::Rng::with_seed(7);
    while text.len() + end.len() < size {
        text.push_str(WORDS[random.usize(..WORDS.len())]);
        text.push_str(&random.u32(..1000).to_string());
        text.push(' ');
    }
    text.truncate(
        size.saturating_sub(end.len())
            .max(text.find("note").unwrap_or(0) + 7),
    );
    text.push_str(end);
    text
}
