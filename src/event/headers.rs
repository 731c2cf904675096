//! The Kafka headers we write and read, typed; written and read here only.
//!
//! On the hot path at most `traceparent` (each header is a C call and a copy). A dead letter keeps the key, value, headers
//! and timestamp of the record that failed; everything else about the failure is in headers: Kafka Connect's
//! `__connect.errors.*` names (UTF-8 text), so that tools for Connect's dead letters understand ours, and our own.

use crate::clock::UnixMs;

use super::{DeadLetterReason, Stage};

/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

/// Longest error message kept in a dead letter, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 2048;

/// What is known of a failure when a record is dead-lettered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Stage that gave up.
    pub stage: Stage,
    /// Topic of the failed record.
    pub topic: String,
    /// Partition of the failed record.
    pub partition: i32,
    /// Offset of the failed record.
    pub offset: i64,
    /// Why.
    pub reason: DeadLetterReason,
    /// In words; cut at [`MESSAGE_BYTES_MAX`]. Must not hold secrets.
    pub message: String,
    /// Destination, or empty.
    pub destination_id: String,
    /// Source, or empty when the record could not be read.
    pub source_id: String,
    /// Message id, or empty when the record could not be read.
    pub message_id: String,
    /// Status of the last answer, when there was one.
    pub http_status: Option<u16>,
    /// Tries made.
    pub attempts: u32,
    /// When it failed first.
    pub first_failed_at: UnixMs,
    /// When it failed last.
    pub last_failed_at: UnixMs,
    /// How often it had been replayed.
    pub replay_count: i32,
    /// Who gave up (client id or transactional id).
    pub instance: String,
}

impl DeadLetter {
    /// Names the failure: where the record lay that failed first.
    pub fn failure_id(&self) -> String {
        format!("{}-{}-{}", self.topic, self.partition, self.offset)
    }

    /// Headers to add to the failed record's own.
    pub fn to_headers(&self) -> Vec<(&'static str, Vec<u8>)> {
        let message = cut(&self.message, MESSAGE_BYTES_MAX);
        let text = |s: &str| s.as_bytes().to_vec();
        let mut headers = vec![
            ("__connect.errors.topic", text(&self.topic)),
            (
                "__connect.errors.partition",
                text(&self.partition.to_string()),
            ),
            ("__connect.errors.offset", text(&self.offset.to_string())),
            (
                "__connect.errors.connector.name",
                text(&format!("sluice-{}", self.stage.name())),
            ),
            ("__connect.errors.task.id", text(&self.instance)),
            (
                "__connect.errors.stage",
                text(&self.stage.name().to_uppercase()),
            ),
            (
                "__connect.errors.exception.class.name",
                text(self.reason.name()),
            ),
            ("__connect.errors.exception.message", text(message)),
            ("sluice.failure.id", text(&self.failure_id())),
            ("sluice.stage", text(self.stage.name())),
            ("sluice.reason", text(self.reason.name())),
            ("sluice.attempts", text(&self.attempts.to_string())),
            (
                "sluice.fingerprint",
                text(&fingerprint(self.reason.name(), message)),
            ),
            (
                "sluice.first.failed.at",
                text(&self.first_failed_at.to_string()),
            ),
            (
                "sluice.last.failed.at",
                text(&self.last_failed_at.to_string()),
            ),
            ("sluice.replay.count", text(&self.replay_count.to_string())),
        ];
        for (name, value) in [
            ("sluice.destination.id", &self.destination_id),
            ("sluice.source.id", &self.source_id),
            ("sluice.message.id", &self.message_id),
        ] {
            if !value.is_empty() {
                headers.push((name, text(value)));
            }
        }
        if let Some(status) = self.http_status {
            headers.push(("sluice.http.status", text(&status.to_string())));
        }
        headers
    }
}

/// The longest prefix of `text` of at most `bytes` bytes that ends at a character.
pub fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Groups failures that differ only in ids, numbers and addresses: the hash of the message with those stripped.
pub fn fingerprint(reason: &str, message: &str) -> String {
    let mut shape = String::with_capacity(message.len());
    for word in message.split_whitespace() {
        let variable =
            word.contains("://") || word.len() > 24 || word.bytes().any(|b| b.is_ascii_digit());
        shape.push_str(if variable { "#" } else { word });
        shape.push(' ');
    }
    format!(
        "{:016x}",
        twox_hash::XxHash3_64::oneshot(format!("{reason}\n{shape}").as_bytes())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_differ_in_ids_and_numbers_share_a_fingerprint() {
        let a = fingerprint(
            "refused",
            "HTTP 422 for user 81 at https://a.example/1: bad email",
        );
        let b = fingerprint(
            "refused",
            "HTTP 422 for user 9 at https://b.example/2: bad email",
        );
        assert_eq!(a, b);
        assert_ne!(
            a,
            fingerprint("refused", "HTTP 422 for user 9 at https://b/2: bad phone")
        );
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        assert_eq!(cut("aäb", 2), "a");
        assert_eq!(cut("aäb", 3), "aä");
        assert_eq!(cut("ab", 9), "ab");
    }
}
