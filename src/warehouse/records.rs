//! A record of the topic becomes rows of a batch, or a dead letter.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::batch::{Batch, Rejected};
use super::dialect::Dialect;
use super::metrics::WarehouseMetrics;
use super::names;
use super::options::DestinationOptions;
use super::rows::{Arrival, MapLimits, Mapper};
use crate::clock::{Clock, UnixMs};
use crate::control::{Destination, Source, Workspace};
use crate::event::headers::DeadLetter;
use crate::event::{
    Addressed, AddressedKind, CodecError, DeadLetterReason, Envelope, Stage, codec, stamped_event,
};
use crate::kafka::{Header, Message, Record};
use crate::telemetry::metrics::IntCounter;

/// Maps the records of all warehouse destinations.
pub(super) struct Records {
    workspace: Arc<Workspace>,
    mapped: HashMap<String, Mapped>,
    limits: MapLimits,
    dead_letter_topic: Arc<str>,
    instance: String,
    clock: Arc<dyn Clock>,
    metrics: Arc<WarehouseMetrics>,
}

/// One destination.
struct Mapped {
    destination: Arc<Destination>,
    dialect: &'static Dialect,
    mapper: Mapper,
    namespace: Option<Arc<str>>,
    by_source: HashMap<String, Arc<str>>,
    events: IntCounter,
    rejected: IntCounter,
    rows: IntCounter,
}

/// An event that cannot become rows.
struct Refusal<'a> {
    reason: DeadLetterReason,
    message: String,
    envelope: Option<Box<Envelope<'a>>>,
}

impl Records {
    pub(super) fn new(
        workspace: Arc<Workspace>,
        limits: MapLimits,
        dead_letter_topic: &str,
        instance: &str,
        clock: Arc<dyn Clock>,
        metrics: Arc<WarehouseMetrics>,
    ) -> Self {
        Self {
            workspace,
            mapped: HashMap::new(),
            limits,
            dead_letter_topic: dead_letter_topic.into(),
            instance: instance.to_owned(),
            clock,
            metrics,
        }
    }

    /// Works with a newer configuration from now on.
    pub(super) fn follow(&mut self, workspace: Arc<Workspace>) {
        self.workspace = workspace;
        let workspace = &self.workspace;
        self.mapped.retain(|id, mapped| {
            workspace
                .destination(id)
                .is_some_and(|now| **now == *mapped.destination)
        });
        for mapped in self.mapped.values_mut() {
            mapped.by_source.clear();
        }
    }

    /// Revision of the configuration in use.
    pub(super) fn revision(&self) -> i64 {
        self.workspace.revision
    }

    /// Takes a record of `destination`'s topic into `batch`. False if the destination is gone from the configuration: its
    /// partitions are about to leave, and the record stays where it is. `admitted` is what its frame says of it.
    pub(super) fn take(
        &mut self,
        destination: &str,
        message: &Message,
        admitted: Result<(), CodecError>,
        batch: &mut Batch,
        now: Instant,
    ) -> bool {
        if !self.ensure(destination) {
            return false;
        }
        let Some(mapped) = self.mapped.get_mut(destination) else {
            return false;
        };
        let payload = message.payload.as_deref().unwrap_or_default();
        let addressed = admitted
            .and_then(|()| codec::decode_addressed(AddressedKind::WarehouseSource, payload));
        let refusal = match mapped.take(&self.workspace, addressed, message.offset, batch, now) {
            Ok(()) => {
                mapped.events.inc();
                return true;
            }
            Err(refusal) => refusal,
        };
        mapped.rejected.inc();
        let at = self.clock.now_ms();
        let rejected = Rejected {
            reason: refusal.reason,
            letter: self.dead_letter(message, destination, refusal, at),
        };
        batch.reject(message.offset, rejected, now);
        true
    }

    fn ensure(&mut self, id: &str) -> bool {
        if self.mapped.contains_key(id) {
            return true;
        }
        let Some(destination) = self.workspace.destination(id) else {
            return false;
        };
        let Some(dialect) = Dialect::of(&destination.kind) else {
            return false;
        };
        let configured = destination.config.get("namespace").and_then(|n| n.as_str());
        let namespace = configured
            .filter(|name| !name.trim().is_empty())
            .map(|name| names::namespace(dialect, name.trim()).into());
        let options = DestinationOptions::from_config(&destination.config);
        let events = &self.metrics.events_total;
        let mapped = Mapped {
            destination: Arc::clone(destination),
            dialect,
            mapper: Mapper::new(dialect, options, self.limits),
            namespace,
            by_source: HashMap::new(),
            events: events.with_label_values(&[id, "mapped"]),
            rejected: events.with_label_values(&[id, "rejected"]),
            rows: self.metrics.rows_total.with_label_values(&[id]),
        };
        self.mapped.insert(id.to_owned(), mapped);
        true
    }

    fn dead_letter(
        &self,
        message: &Message,
        destination: &str,
        refusal: Refusal<'_>,
        at: UnixMs,
    ) -> Record {
        let envelope = *refusal.envelope.unwrap_or_default();
        let about = DeadLetter {
            stage: Stage::Warehouse,
            topic: message.topic.to_string(),
            partition: message.partition,
            offset: message.offset,
            reason: refusal.reason,
            message: refusal.message,
            destination_id: destination.to_owned(),
            source_id: envelope.source_id.into_owned(),
            message_id: envelope.message_id.into_owned(),
            http_status: None,
            attempts: 1,
            first_failed_at: at,
            last_failed_at: at,
            replay_count: envelope.replay_count,
            instance: self.instance.clone(),
        };
        let original = message
            .headers
            .iter()
            .map(|(name, value)| (Cow::Owned(name.clone()), value.clone()));
        let ours = about
            .to_headers()
            .into_iter()
            .map(|(name, value)| (Cow::Borrowed(name), Bytes::from(value)));
        Record {
            topic: Arc::clone(&self.dead_letter_topic),
            partition: None,
            key: message.key.clone(),
            payload: message.payload.clone(),
            timestamp: message.timestamp,
            headers: original.chain(ours).collect::<Vec<Header>>(),
        }
    }
}

impl Mapped {
    fn take<'m>(
        &mut self,
        workspace: &Workspace,
        addressed: Result<Addressed<'m>, CodecError>,
        offset: i64,
        batch: &mut Batch,
        now: Instant,
    ) -> Result<(), Refusal<'m>> {
        let envelope = match addressed {
            Ok(addressed) => addressed.envelope,
            Err(error) => {
                return Err(Refusal {
                    reason: DeadLetterReason::Undecodable,
                    message: error.to_string(),
                    envelope: None,
                });
            }
        };
        let event = match stamped_event(&envelope) {
            Ok(event) => event,
            Err(error) => {
                return Err(Refusal {
                    reason: DeadLetterReason::InvalidEvent,
                    message: error.to_string(),
                    envelope: Some(Box::new(envelope)),
                });
            }
        };
        let source = workspace.source(&envelope.source_id);
        let namespace = self.namespace(&envelope.source_id, source);
        let arrival = Arrival {
            source_id: &envelope.source_id,
            source_type: source.map_or("", |source| &source.definition),
            source_category: source.map_or("", |source| &source.category),
            destination_id: &self.destination.id,
            received_at: envelope.received_at,
            record_id: event.get("recordId"),
        };
        match self.mapper.map(&event, arrival) {
            Ok(rows) => {
                batch.add(offset, &namespace, &rows, now);
                self.rows.inc_by(rows.len() as u64);
                Ok(())
            }
            Err(error) => Err(Refusal {
                reason: DeadLetterReason::Unmappable,
                message: error.to_string(),
                envelope: Some(Box::new(envelope)),
            }),
        }
    }

    /// The destination's own namespace, else one named after the source, as RudderStack does.
    fn namespace(&mut self, source_id: &str, source: Option<&Arc<Source>>) -> Arc<str> {
        if let Some(namespace) = &self.namespace {
            return Arc::clone(namespace);
        }
        if let Some(known) = self.by_source.get(source_id) {
            return Arc::clone(known);
        }
        let name = source.map_or(source_id, |source| &source.name);
        let namespace: Arc<str> = names::namespace(self.dialect, name).into();
        self.by_source
            .insert(source_id.to_owned(), Arc::clone(&namespace));
        namespace
    }
}
