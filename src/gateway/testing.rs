//! The pure half of the gateway, for benches and fuzzing: a request in, records out, nothing sent.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use uuid::Uuid;

use super::admit::{self, Arrival, Rules};
use super::inflate::Encoding;
use super::inputs::form::Content;
use super::inputs::{pixel, stream, webhook};
use super::json::Bounds;
use super::limit::ByteBudget;
use super::outbox::{Outbox, Outgoing};
use super::payload::{self, PayloadBounds};
use super::refusal::Refusal;
use super::repair::repair;
use super::{RECORD_OVERHEAD, arrival, auth};
use crate::config::{GatewayConfig, Networks};
use crate::event::Framing;
use crate::fault::Classify;

/// When every request comes, in milliseconds since 1970.
const NOW: i64 = 1_700_000_000_000;
/// Where every request comes from.
const PEER: &str = "203.0.113.9";

/// What a request and its records may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Key and payload of one record, together.
    pub record_bytes: usize,
    /// What a form may become.
    pub body_bytes: usize,
    /// Events of one request.
    pub events: usize,
    /// Objects and arrays inside each other, in one event.
    pub depth: usize,
    /// Members and elements of one event.
    pub values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let config = GatewayConfig::default();
        Self {
            record_bytes: 1_000_000 - RECORD_OVERHEAD,
            body_bytes: config.body_bytes_max,
            events: config.batch_events_max,
            depth: config.json_depth_max,
            values: config.json_values_max,
        }
    }
}

/// What the head of a request tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Of `Authorization`.
    pub write_key: Option<String>,
    /// Whether the internal token is the one given.
    pub has_token: bool,
    /// The last resort of the ordering key.
    pub anonymous_id: String,
    /// W3C trace context, else empty.
    pub traceparent: String,
    /// Address of the client, behind proxies that are trusted.
    pub request_ip: String,
    /// The user agent says so.
    pub is_bot: bool,
    /// Events that the body of an internal batch is said to have.
    pub announced: Option<u64>,
}

/// Reads the head of a request that came through a trusted proxy; `token` is the internal one.
pub fn head(headers: &HeaderMap, token: &str) -> Head {
    let peer = std::net::IpAddr::from([10, 0, 0, 1]);
    let trusted = Networks::try_from(vec!["10.0.0.0/8".to_owned()]).unwrap_or_default();
    Head {
        write_key: auth::write_key_in_header(headers),
        has_token: auth::has_token(headers, token),
        anonymous_id: arrival::text(headers, arrival::ANONYMOUS_ID).to_owned(),
        traceparent: arrival::traceparent(headers).to_owned(),
        request_ip: arrival::client_ip(headers, peer, "10.0.0.1", &trusted).into_owned(),
        is_bot: arrival::is_bot(headers),
        announced: stream::announced(headers),
    }
}

/// `writeKey` of a query, as beacons and pixels send it.
pub fn write_key_in_query(query: &str) -> Option<String> {
    auth::write_key_in_query(Some(query)).map(std::borrow::Cow::into_owned)
}

/// Inflates `sent` to at most `cap` bytes out of a budget of `budget`; `encoding` as in `Content-Encoding`.
///
/// # Errors
/// The code of the refusal.
pub fn inflate(
    encoding: &'static str,
    sent: &[u8],
    cap: usize,
    budget: usize,
) -> Result<Bytes, &'static str> {
    let value = HeaderValue::from_static(encoding);
    let encoding = Encoding::of(&HeaderMap::from_iter([(header::CONTENT_ENCODING, value)]));
    let mut taken = ByteBudget::new(budget).taker();
    super::inflate::inflate(encoding, sent, cap, &mut taken).map_err(|refusal| refusal.code())
}

/// Reads, admits and encodes requests, with the default limits if nothing else is said.
#[derive(Debug)]
pub struct Encoder {
    outbox: Outbox,
    bounds: PayloadBounds,
    limits: Limits,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Encoder {
    #[allow(missing_docs)]
    pub fn new(limits: Limits) -> Self {
        Self {
            outbox: Outbox {
                topic: "events".to_owned(),
                framing: Framing::SingleObject,
                record_bytes_max: limits.record_bytes,
            },
            bounds: PayloadBounds {
                event: Bounds {
                    depth: limits.depth,
                    values: limits.values,
                },
                events: limits.events,
            },
            limits,
        }
    }

    #[allow(missing_docs)]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Encodes a body: one event of type `kind`, or a batch when there is none. `record` sees each key and payload.
    ///
    /// # Errors
    /// The code of the refusal.
    pub fn encode(
        &self,
        kind: Option<&'static str>,
        body: &[u8],
        record: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), &'static str> {
        self.encode_as(Self::arrival(), kind, body, record)
    }

    /// [`Encoder::encode`] of a request with these headers.
    ///
    /// # Errors
    /// The code of the refusal.
    pub fn encode_with(
        &self,
        headers: &HeaderMap,
        kind: Option<&'static str>,
        body: &[u8],
        record: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), &'static str> {
        let arrival = Arrival {
            job_run_id: arrival::text(headers, arrival::JOB_RUN).into(),
            task_run_id: arrival::text(headers, arrival::TASK_RUN).into(),
            destination_id: auth::destination_id(headers).unwrap_or_default(),
            traceparent: arrival::traceparent(headers),
            anonymous_header: arrival::text(headers, arrival::ANONYMOUS_ID),
            is_bot: arrival::is_bot(headers),
            ..Self::arrival()
        };
        self.encode_as(arrival, kind, body, record)
    }

    /// Encodes a body of the internal batch route.
    ///
    /// # Errors
    /// The code of the refusal.
    pub fn stream(
        &self,
        body: &[u8],
        record: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), &'static str> {
        let fill = |outgoing: &mut Outgoing<'_>| {
            for one in stream::read(&repair(body), self.bounds)? {
                let envelope = admit::admit(&one.event, None, &one.arrival(None, 1), stream::RULES);
                outgoing.push_keyed(&envelope?, one.routing_key())?;
            }
            show(outgoing, record);
            Ok(())
        };
        self.outbox
            .fill(fill)
            .map_err(|refusal: Refusal| refusal.code())
    }

    /// Encodes what is posted to a webhook source that takes any JSON.
    ///
    /// # Errors
    /// The code of the refusal.
    pub async fn webhook(
        &self,
        headers: &HeaderMap,
        body: Bytes,
        record: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), &'static str> {
        let content = Content::of(headers);
        let text = webhook::text_of(content, body, self.limits.body_bytes).await;
        let id = || Uuid::new_v4().to_string();
        let batch = text.and_then(|(text, _)| webhook::events(&text, self.bounds, id));
        let batch = batch.map_err(|refusal| refusal.code())?;
        self.encode(None, batch.as_bytes(), record)
    }

    /// Encodes the event in the query of a pixel, `track` or `page`.
    ///
    /// # Errors
    /// The code of the refusal.
    pub fn pixel(
        &self,
        kind: &'static str,
        query: &str,
        record: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), &'static str> {
        let event = pixel::event(query, kind, NOW).map_err(|refusal| refusal.code())?;
        self.encode(Some(kind), event.to_string().as_bytes(), record)
    }

    fn arrival() -> Arrival<'static> {
        Arrival {
            source_id: "2HfTWYVvtBGwBjQBhgtBqCzkPBw",
            request_ip: PEER.into(),
            received_at: NOW,
            ..Arrival::default()
        }
    }

    fn encode_as<'a>(
        &self,
        arrival: Arrival<'a>,
        kind: Option<&'static str>,
        body: &'a [u8],
        record: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), &'static str> {
        self.outbox
            .fill(|outgoing| self.fill(outgoing, arrival, kind, body, record))
            .map_err(|refusal| refusal.code())
    }

    fn fill(
        &self,
        outgoing: &mut Outgoing<'_>,
        arrival: Arrival<'_>,
        kind: Option<&'static str>,
        body: &[u8],
        record: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Refusal> {
        let text = repair(body);
        let payload = match kind {
            Some(_) => payload::single(&text, self.bounds)?,
            None => payload::batch(&text, self.bounds)?,
        };
        let arrival = Arrival {
            sent_at: admit::text(payload.sent_at),
            ..arrival
        };
        let rules = Rules {
            allow_anonymous: false,
        };
        for event in &payload.events {
            let envelope = admit::admit(event, kind, &arrival, rules)?;
            outgoing.push(&envelope, arrival.anonymous_header)?;
        }
        show(outgoing, record);
        Ok(())
    }
}

fn show(outgoing: &Outgoing<'_>, mut record: impl FnMut(&[u8], &[u8])) {
    for (key, value) in outgoing.records() {
        record(key, value);
    }
}
