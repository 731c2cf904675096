//! The pure half of the gateway, for benches and fuzzing: a body in, records out, nothing sent.

use super::admit::{self, Arrival, Rules};
use super::json::Bounds;
use super::outbox::{Outbox, Outgoing};
use super::payload::{self, PayloadBounds};
use super::refusal::Refusal;
use super::repair::repair;
use crate::config::GatewayConfig;
use crate::event::Framing;
use crate::fault::Classify;

/// Reads, admits and encodes bodies with the default limits.
#[derive(Debug)]
pub struct Encoder {
    outbox: Outbox,
    bounds: PayloadBounds,
}

impl Default for Encoder {
    fn default() -> Self {
        let config = GatewayConfig::default();
        Self {
            outbox: Outbox {
                topic: "events".to_owned(),
                framing: Framing::SingleObject,
                record_bytes_max: 1_000_000,
            },
            bounds: PayloadBounds {
                event: Bounds {
                    depth: config.json_depth_max,
                    values: config.json_values_max,
                },
                events: config.batch_events_max,
            },
        }
    }
}

impl Encoder {
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
        self.outbox
            .fill(|outgoing| self.fill(outgoing, kind, body, record))
            .map_err(|refusal| refusal.code())
    }

    fn fill(
        &self,
        outgoing: &mut Outgoing<'_>,
        kind: Option<&'static str>,
        body: &[u8],
        mut record: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Refusal> {
        let text = repair(body);
        let payload = match kind {
            Some(_) => payload::single(&text, self.bounds)?,
            None => payload::batch(&text, self.bounds)?,
        };
        let arrival = Arrival {
            source_id: "2HfTWYVvtBGwBjQBhgtBqCzkPBw",
            request_ip: "203.0.113.9".into(),
            received_at: 1_700_000_000_000,
            sent_at: admit::text(payload.sent_at),
            ..Arrival::default()
        };
        let rules = Rules {
            allow_anonymous: false,
        };
        for event in &payload.events {
            outgoing.push(&admit::admit(event, kind, &arrival, rules)?, "")?;
        }
        for (key, value) in outgoing.records() {
            record(key, value);
        }
        Ok(())
    }
}
