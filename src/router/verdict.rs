//! What becomes of a delivery after an attempt. Pure.

use std::time::Duration;

use crate::destinations::{Accepted, DeliveryError};
use crate::event::{DeadLetterReason, Ending, FilterReason};
use crate::fault::{Classify, Fault};
use crate::retry::Backoff;

use super::breaker::Sign;

/// Patience with one event, from `router.delivery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Longest `Retry-After` that is honoured.
    pub retry_after_max: Duration,
    /// Give up when this has passed since the first failure ...
    pub give_up_after: Duration,
    /// ... and at least this many attempts failed.
    pub give_up_attempts: u32,
    /// Give up on events that are only ever asked for patience (408, 429) after this.
    pub give_up_throttled_after: Duration,
}

/// What is known of a delivery that just failed once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// Attempts that failed, this one included.
    pub count: u32,
    /// Since the first failure, without the time in which the destination was down for everybody.
    pub lasting: Duration,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has ended.
    End(Ending),
    /// It has ended, as a dead letter.
    DeadLetter(DeadLetterReason),
    /// Its key waits this long, then it is tried again.
    ///
    /// Parking is decided here as well, once there is a `parked.<lane>` to move to: when `failures.lasting` passes the
    /// parking limit, the key's queue leaves the window in one transaction instead of waiting in it.
    Retry(Duration),
}

/// Decides. `is_open` says that the destination's breaker is open (after it has seen this outcome): then nothing is given
/// up, because the event is not at fault.
pub fn decide(
    outcome: &Result<Accepted, DeliveryError>,
    failures: Failures,
    is_open: bool,
    patience: &Patience,
) -> Verdict {
    let error = match outcome {
        Ok(Accepted::Delivered { .. }) => return Verdict::End(Ending::Delivered),
        Ok(Accepted::Filtered) => {
            return Verdict::End(Ending::Filtered(FilterReason::DestinationFilter));
        }
        Err(error) => error,
    };
    let wait = |after| Verdict::Retry(pause(patience, failures.count, after));
    match error.fault() {
        Fault::Permanent | Fault::Fatal if is_open && !error.is_about_the_event() => wait(None),
        Fault::Permanent | Fault::Fatal => Verdict::DeadLetter(error.dead_letter_reason()),
        Fault::Transient { .. } if !is_open && is_given_up(error, failures, patience) => {
            Verdict::DeadLetter(DeadLetterReason::RetriesExhausted)
        }
        Fault::Transient { after } => wait(after),
    }
}

/// RudderStack's rule: both limits passed. It never gives up 408 and 429 by count; here they have a limit of their own,
/// because a log does not keep for ever what nobody takes.
fn is_given_up(error: &DeliveryError, failures: Failures, patience: &Patience) -> bool {
    let limit = if error.is_throttled() {
        patience.give_up_throttled_after
    } else {
        patience.give_up_after
    };
    failures.lasting >= limit && failures.count >= patience.give_up_attempts
}

/// What the server asks for, with some jitter on top so that not all keys return in one instant; else the backoff.
fn pause(patience: &Patience, count: u32, after: Option<Duration>) -> Duration {
    match after {
        Some(after) => {
            after.min(patience.retry_after_max) + patience.backoff.base.mul_f64(fastrand::f64())
        }
        None => patience.backoff.delay(count),
    }
}

/// What an outcome says about the destination.
pub fn sign(outcome: &Result<Accepted, DeliveryError>) -> Sign {
    let error = match outcome {
        Ok(Accepted::Delivered { .. } | Accepted::Filtered) => return Sign::Success,
        Err(error) => error,
    };
    match error.fault() {
        Fault::Permanent | Fault::Fatal if error.is_about_the_event() => Sign::None,
        Fault::Permanent | Fault::Fatal => Sign::Refusal,
        Fault::Transient { after } => Sign::Failure {
            unreachable: error.is_unreachable(),
            after,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(300)),
        retry_after_max: Duration::from_secs(3600),
        give_up_after: Duration::from_secs(180 * 60),
        give_up_attempts: 3,
        give_up_throttled_after: Duration::from_secs(72 * 3600),
    };

    fn status(status: u16, after: Option<u64>) -> Result<Accepted, DeliveryError> {
        Err(DeliveryError::Status {
            status,
            body: String::new(),
            after: after.map(Duration::from_secs),
        })
    }

    fn after(outcome: &Result<Accepted, DeliveryError>, count: u32, hours: u64) -> Verdict {
        let lasting = Duration::from_secs(hours * 3600);
        decide(outcome, Failures { count, lasting }, false, &PATIENCE)
    }

    #[test]
    fn giving_up_takes_both_time_and_attempts() {
        let failing = status(500, None);
        assert!(matches!(after(&failing, 100, 2), Verdict::Retry(_)));
        assert!(matches!(after(&failing, 2, 4), Verdict::Retry(_)));
        let given_up = Verdict::DeadLetter(DeadLetterReason::RetriesExhausted);
        assert_eq!(after(&failing, 3, 4), given_up);
        assert_eq!(after(&Err(DeliveryError::Panicked), 3, 4), given_up);
        let throttled = status(429, None);
        assert!(matches!(after(&throttled, 100, 4), Verdict::Retry(_)));
        assert_eq!(after(&throttled, 100, 73), given_up);
    }

    #[test]
    fn nothing_is_dead_lettered_because_a_destination_is_down() {
        let lasting = Duration::from_secs(365 * 24 * 3600);
        let failures = Failures {
            count: 1000,
            lasting,
        };
        for outcome in [status(503, None), status(401, None)] {
            let verdict = decide(&outcome, failures, true, &PATIENCE);
            assert!(matches!(verdict, Verdict::Retry(_)));
        }
        let unreadable = Err(DeliveryError::Unrequestable("x".to_owned()));
        assert_eq!(
            decide(&unreadable, failures, true, &PATIENCE),
            Verdict::DeadLetter(DeadLetterReason::InvalidEvent),
            "waiting does not mend the event itself"
        );
    }

    #[test]
    fn the_server_says_how_long_to_wait_but_not_for_ever() {
        let Verdict::Retry(wait) = after(&status(429, Some(30)), 1, 0) else {
            panic!("429 is retried")
        };
        assert!(wait >= Duration::from_secs(30) && wait <= Duration::from_secs(31));
        let Verdict::Retry(wait) = after(&status(503, Some(1_000_000)), 1, 0) else {
            panic!("503 is retried")
        };
        assert!(wait <= Duration::from_secs(3601));
    }

    #[test]
    fn an_outcome_says_of_the_destination_only_what_it_knows() {
        assert_eq!(sign(&Ok(Accepted::Filtered)), Sign::Success);
        assert_eq!(sign(&status(404, None)), Sign::Refusal);
        let invalid = Err(DeliveryError::Unrequestable("x".to_owned()));
        assert_eq!(sign(&invalid), Sign::None);
        let away = Err(DeliveryError::Unreachable("x".to_owned()));
        assert_eq!(
            sign(&away),
            Sign::Failure {
                unreachable: true,
                after: None
            }
        );
    }
}
