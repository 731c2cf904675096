//! The generic cell rate algorithm: one number per source says how far its allowance is used up.
//!
//! The number is the *theoretical arrival time*: when the source would have sent its last event, had it sent all of them at
//! exactly its rate. A source may run ahead of the clock by one window, so it can send its window's events at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many events in which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) events: u64,
    pub(super) window: Duration,
}

/// How far one source's allowance is used up.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// Theoretical arrival time, in nanoseconds on the caller's clock.
    theoretical: AtomicU64,
}

/// What was taken from an allowance, to be given back when it led to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent {
    cost: u64,
    /// Theoretical arrival time after it was taken.
    until: u64,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Allowance {
    /// Takes `events` events at `now`, all or none. More events than a window has pass when the allowance is untouched: they
    /// could never pass otherwise.
    ///
    /// # Errors
    /// How long to wait until they would pass.
    pub(super) fn take(&self, events: u64, rate: Rate, now: Duration) -> Result<Spent, Duration> {
        let (now, window) = (nanos(now), nanos(rate.window));
        let cost = u128::from(window) * u128::from(events) / u128::from(rate.events.max(1));
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let mut seen = self.theoretical.load(Ordering::Relaxed);
        loop {
            let next = seen.max(now).saturating_add(cost);
            let ahead = next - now;
            if ahead > window && seen > now {
                let wait = (ahead - window).min(seen - now);
                return Err(Duration::from_nanos(wait));
            }
            match self.theoretical.compare_exchange_weak(
                seen,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(Spent { cost, until: next }),
                Err(other) => seen = other,
            }
        }
    }

    /// Gives back what was taken, but for what time has given back by itself.
    pub(super) fn give_back(&self, spent: Spent, now: Duration) {
        // The clock passes what was taken from `until - cost` on; giving that back too would be giving it twice.
        let left = spent.until.saturating_sub(nanos(now)).min(spent.cost);
        // Everything is given back once at most, so this cannot be less than zero.
        self.theoretical.fetch_sub(left, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate {
        events: 10,
        window: Duration::from_secs(1),
    };

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_windows_events_pass_at_once_and_the_next_when_its_time_has_come() {
        let allowance = Allowance::default();
        allowance.take(10, RATE, ms(5_000)).unwrap();
        assert_eq!(allowance.take(1, RATE, ms(5_000)), Err(ms(100)));
        assert_eq!(allowance.take(3, RATE, ms(5_100)), Err(ms(200)));
        allowance.take(1, RATE, ms(5_100)).unwrap();
        allowance.take(10, RATE, ms(60_000)).unwrap();
    }

    #[test]
    fn a_batch_larger_than_the_window_passes_when_nothing_else_was_sent() {
        let allowance = Allowance::default();
        allowance.take(30, RATE, ms(1)).unwrap();
        assert_eq!(allowance.take(1, RATE, ms(1)), Err(ms(2_100)));
        allowance.take(1, RATE, ms(2_101)).unwrap();
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more() {
        let allowance = Allowance::default();
        let spent = allowance.take(10, RATE, ms(1_000)).unwrap();
        allowance.give_back(spent, ms(1_000));
        let spent = allowance.take(10, RATE, ms(1_000)).unwrap();
        // Half of it came back by itself, and others took that.
        allowance.take(5, RATE, ms(1_500)).unwrap();
        allowance.give_back(spent, ms(1_500));
        allowance.take(5, RATE, ms(1_500)).unwrap();
        assert_eq!(allowance.take(1, RATE, ms(1_500)), Err(ms(100)));
        // All of it did.
        let spent = allowance.take(5, RATE, ms(10_000)).unwrap();
        allowance.take(10, RATE, ms(20_000)).unwrap();
        allowance.give_back(spent, ms(20_000));
        assert_eq!(allowance.take(1, RATE, ms(20_000)), Err(ms(100)));
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_sees_more_than_its_share_and_one_window(
            requests in prop::collection::vec((0u64..400, 1u64..10), 1..80)
        ) {
            let allowance = Allowance::default();
            let (mut now, mut passed) = (1_000, 0);
            for (gap, events) in requests {
                now += gap;
                match allowance.take(events, RATE, ms(now)) {
                    Ok(_) => passed += events,
                    Err(wait) => prop_assert!(allowance.take(events, RATE, ms(now) + wait).is_ok() || wait.is_zero()),
                }
                if allowance.theoretical.load(Ordering::Relaxed) > 0 {
                    // What was taken by the probe above is on the same account.
                    let used = allowance.theoretical.load(Ordering::Relaxed);
                    prop_assert!(passed <= used / 100_000_000 + 10);
                }
            }
        }
    }
}
