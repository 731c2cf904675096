//! An accepted event with what the gateway knows of its arrival.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;

/// One record of `events`. Field meanings are in `schemas/envelope.avsc`; field order is the schema's.
///
/// Borrows from the record's bytes when decoded, so that a stage which only routes copies nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Envelope<'a> {
    #[serde(borrow)]
    #[allow(missing_docs)]
    pub message_id: Cow<'a, str>,
    #[serde(borrow)]
    #[allow(missing_docs)]
    pub source_id: Cow<'a, str>,
    /// XXH3-64 of the write key, see [`Envelope::hash_write_key`].
    pub write_key_hash: i64,
    #[serde(borrow)]
    #[allow(missing_docs)]
    pub event_type: Cow<'a, str>,
    /// Name of a track event, else empty.
    #[serde(borrow)]
    pub event_name: Cow<'a, str>,
    /// Sanitised `userId`, empty when absent.
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
    /// Sanitised `anonymousId`, empty when absent.
    #[serde(borrow)]
    pub anonymous_id: Cow<'a, str>,
    /// When the gateway read the request.
    pub received_at: UnixMs,
    /// `sentAt` of the enclosing batch, else empty.
    #[serde(borrow)]
    pub sent_at: Cow<'a, str>,
    /// Client address.
    #[serde(borrow)]
    pub request_ip: Cow<'a, str>,
    /// `context.library` as `name/version`, else empty.
    #[serde(borrow)]
    pub sdk: Cow<'a, str>,
    /// Reverse-ETL job run, else empty.
    #[serde(borrow)]
    pub job_run_id: Cow<'a, str>,
    /// Reverse-ETL task run, else empty.
    #[serde(borrow)]
    pub task_run_id: Cow<'a, str>,
    /// The one destination that the event is for; empty for all that its source feeds.
    #[serde(borrow)]
    pub destination_id: Cow<'a, str>,
    /// W3C trace context, else empty.
    #[serde(borrow)]
    pub traceparent: Cow<'a, str>,
    /// The user agent names a bot.
    pub is_bot: bool,
    /// What an ingestion service found out about a bot, as the JSON object that becomes `context.bot`; else empty.
    #[serde(borrow)]
    pub bot: Cow<'a, str>,
    /// Run that replayed this event, empty for an original.
    #[serde(borrow)]
    pub replay_id: Cow<'a, str>,
    /// How often this event was replayed.
    pub replay_count: i32,
    /// Workspace configuration the gateway saw.
    pub config_revision: i64,
    /// The event as the client sent it: one JSON object.
    #[serde(borrow, with = "serde_bytes")]
    pub event: Cow<'a, [u8]>,
}

impl Envelope<'_> {
    /// Hash under which a write key is known outside the gateway.
    pub fn hash_write_key(write_key: &str) -> i64 {
        twox_hash::XxHash3_64::oneshot(write_key.as_bytes()).cast_signed()
    }

    /// The same envelope, owning its fields.
    pub fn into_owned(self) -> Envelope<'static> {
        fn own(text: Cow<'_, str>) -> Cow<'static, str> {
            Cow::Owned(text.into_owned())
        }
        Envelope {
            message_id: own(self.message_id),
            source_id: own(self.source_id),
            write_key_hash: self.write_key_hash,
            event_type: own(self.event_type),
            event_name: own(self.event_name),
            user_id: own(self.user_id),
            anonymous_id: own(self.anonymous_id),
            received_at: self.received_at,
            sent_at: own(self.sent_at),
            request_ip: own(self.request_ip),
            sdk: own(self.sdk),
            job_run_id: own(self.job_run_id),
            task_run_id: own(self.task_run_id),
            destination_id: own(self.destination_id),
            traceparent: own(self.traceparent),
            is_bot: self.is_bot,
            bot: own(self.bot),
            replay_id: own(self.replay_id),
            replay_count: self.replay_count,
            config_revision: self.config_revision,
            event: Cow::Owned(self.event.into_owned()),
        }
    }
}
