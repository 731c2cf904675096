//! Time as a dependency, so that tests need not wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};

/// Milliseconds since the Unix epoch, UTC: the unit of every wall-clock time in records and ledgers.
pub type UnixMs = i64;

/// Wall-clock time. Durations are measured with `std::time::Instant` instead, which never jumps.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now_ms(&self) -> UnixMs;
}

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the wrapper that the lint names"
    )]
    fn now_ms(&self) -> UnixMs {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
            .unwrap_or(0)
    }
}

/// A clock that moves only when told to.
#[derive(Debug, Default, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: UnixMs) -> Self {
        Self(Arc::new(AtomicI64::new(now)))
    }

    /// Moves the clock forward by `ms` milliseconds.
    pub fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> UnixMs {
        self.0.load(Ordering::SeqCst)
    }
}

/// RudderStack's layout of a time: RFC 3339 in UTC with exactly three decimals, `2006-01-02T15:04:05.000Z`.
pub fn rfc3339_ms(ms: UnixMs) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms)
        .unwrap_or(DateTime::<Utc>::UNIX_EPOCH)
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Reads any RFC 3339 time (fractions of any length, `Z` or an offset); `None` if it is not one.
pub fn parse_rfc3339(text: &str) -> Option<UnixMs> {
    DateTime::parse_from_rfc3339(text.trim())
        .ok()
        .map(|t| t.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_three_decimals_and_read_with_any() {
        assert_eq!(rfc3339_ms(1_136_214_245_000), "2006-01-02T15:04:05.000Z");
        assert_eq!(
            parse_rfc3339("2006-01-02T15:04:05.123456789Z"),
            Some(1_136_214_245_123)
        );
        assert_eq!(
            parse_rfc3339("2006-01-02T17:04:05+02:00"),
            Some(1_136_214_245_000)
        );
        assert_eq!(parse_rfc3339("yesterday"), None);
    }
}
