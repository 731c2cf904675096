//! How much of a partition is held in memory, and when to read no further. Pure.

use crate::config::RouterConfig;

/// Limits of one partition; names as in the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `window_records_max`.
    pub records: usize,
    /// `window_bytes_max`.
    pub bytes: usize,
    /// `window_span_max`.
    pub span: u64,
    /// `window_metadata_bytes_max`.
    pub metadata_bytes: usize,
}

impl Limits {
    /// The limits in `config`.
    pub fn of(config: &RouterConfig) -> Self {
        Self {
            records: config.window_records_max,
            bytes: config.window_bytes_max,
            span: config.window_span_max,
            metadata_bytes: config.window_metadata_bytes_max,
        }
    }
}

/// What a partition holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    /// Records waiting or in flight.
    pub records: usize,
    /// Their keys and payloads.
    pub bytes: usize,
    /// Offsets from the oldest unfinished to the newest read.
    pub span: u64,
    /// Metadata that the last commit would have taken uncut.
    pub metadata_bytes: usize,
}

/// The largest share of a limit that is used, in per cent.
pub fn fullness(used: &Use, limits: &Limits) -> u64 {
    let share = |used: u64, limit: u64| used.saturating_mul(100) / limit.max(1);
    share(used.records as u64, limits.records as u64)
        .max(share(used.bytes as u64, limits.bytes as u64))
        .max(share(used.span, limits.span))
        .max(share(
            used.metadata_bytes as u64,
            limits.metadata_bytes as u64,
        ))
}

/// Whether to read on. Between half and full it stays as it is: pausing throws away what was fetched ahead, so it must
/// not flutter.
pub fn is_paused(fullness: u64, was_paused: bool) -> bool {
    if was_paused {
        fullness > 50
    } else {
        fullness >= 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_stops_at_the_first_limit_and_goes_on_at_half_of_it() {
        let limits = Limits::of(&RouterConfig::default());
        let of = |used: Use| fullness(&used, &limits);
        let records = Use {
            records: limits.records,
            ..Use::default()
        };
        assert!(is_paused(of(records), false));
        let bytes = Use {
            bytes: limits.bytes * 3 / 4,
            ..Use::default()
        };
        assert!(!is_paused(of(bytes), false) && is_paused(of(bytes), true));
        let metadata = Use {
            metadata_bytes: limits.metadata_bytes + 1,
            ..Use::default()
        };
        assert!(is_paused(of(metadata), false));
        let span = Use {
            span: limits.span / 2,
            ..Use::default()
        };
        assert!(!is_paused(of(span), true));
    }
}
