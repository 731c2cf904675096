//! Exponential backoff with full jitter.
//!
//! Full jitter (a uniform draw between zero and the exponential bound) keeps many clients of one failing server from
//! returning together; see "Exponential Backoff And Jitter" in the AWS architecture blog.

use std::time::Duration;

/// How long to wait between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Bound of the first wait.
    pub base: Duration,
    /// Bound of every wait.
    pub cap: Duration,
}

impl Backoff {
    /// A backoff from `base`, doubling up to `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }

    /// The upper bound of the wait after `attempt` failures (the first failure is attempt 1).
    pub fn bound(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.base.saturating_mul(1u32 << doublings).min(self.cap)
    }

    /// A wait for after `attempt` failures, drawn with full jitter; never under a tenth of the bound, so that a lucky
    /// series of draws cannot become a busy loop.
    pub fn delay(&self, attempt: u32) -> Duration {
        let bound = self.bound(attempt);
        bound.mul_f64(0.1 + 0.9 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_until_the_cap() {
        let b = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let bounds: Vec<u64> = (1..=6).map(|n| b.bound(n).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 10, 10]);
        assert_eq!(b.bound(u32::MAX).as_secs(), 10);
    }

    #[test]
    fn a_delay_stays_under_its_bound() {
        let b = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for attempt in 1..20 {
            let d = b.delay(attempt);
            assert!(d <= b.bound(attempt) && d >= b.bound(attempt) / 11);
        }
    }
}
