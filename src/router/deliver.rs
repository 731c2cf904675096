//! One attempt, on the async runtime; its outcome comes back to the lane's thread by channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::clock::Clock;
use crate::destinations::{Accepted, Attempt, DeliveryError, Destination};
use crate::event::{AddressedKind, codec};
use crate::failpoint;

use super::breaker::Epoch;
use super::metrics::TargetMetrics;
use super::order::KeyId;

/// Says when the lane's thread last polled its consumer.
///
/// A process that was stopped for longer than the session lasts (a paused container, a swapped-out machine) wakes up with
/// requests ready to go, while another member owns its partitions. Commits of such a zombie are fenced; its requests can
/// only be held back by itself.
#[derive(Debug)]
pub(super) struct Pulse {
    since: Instant,
    last_ms: AtomicU64,
    stale_after: Duration,
}

impl Pulse {
    /// A pulse that goes stale after `stale_after` without a [`beat`](Pulse::beat).
    pub(super) fn new(stale_after: Duration) -> Self {
        Self {
            since: Instant::now(),
            last_ms: AtomicU64::new(0),
            stale_after,
        }
    }

    /// The thread polled. False if it had not for too long.
    pub(super) fn beat(&self) -> bool {
        let was_fresh = self.is_fresh();
        self.last_ms.store(self.now_ms(), Ordering::Release);
        was_fresh
    }

    /// Whether the thread has polled lately.
    pub(super) fn is_fresh(&self) -> bool {
        let last = self.last_ms.load(Ordering::Acquire);
        u128::from(self.now_ms().saturating_sub(last)) < self.stale_after.as_millis()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Names an attempt to the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) key: KeyId,
    pub(super) partition: i32,
    /// Of the partition's assignment.
    pub(super) assignment: u64,
    /// Of the destination's breaker.
    pub(super) epoch: Epoch,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) struct Landed {
    pub(super) ticket: Ticket,
    /// `None`: it was not sent.
    pub(super) outcome: Option<Result<Accepted, DeliveryError>>,
}

/// Sends attempts on their way.
#[derive(Clone)]
pub(super) struct Courier {
    pub(super) runtime: Handle,
    pub(super) landed: Sender<Landed>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) events_topic: Arc<str>,
    pub(super) clock: Arc<dyn Clock>,
}

/// What an attempt takes along.
pub(super) struct Parcel {
    pub(super) ticket: Ticket,
    pub(super) payload: Bytes,
    pub(super) service: Arc<dyn Destination>,
    pub(super) number: u32,
    pub(super) timeout: Duration,
    pub(super) metrics: TargetMetrics,
}

impl Courier {
    /// Starts an attempt. Its outcome is reported exactly once, whatever happens to it.
    pub(super) fn send(&self, parcel: Parcel) -> AbortHandle {
        let report = Report {
            ticket: parcel.ticket,
            to: self.landed.clone(),
            outcome: Some(Err(DeliveryError::Panicked)),
        };
        let (pulse, topic, clock) = (
            Arc::clone(&self.pulse),
            Arc::clone(&self.events_topic),
            Arc::clone(&self.clock),
        );
        let attempt = async move {
            let mut report = report;
            report.outcome = attempt(&parcel, &pulse, &topic, clock.as_ref()).await;
        };
        self.runtime.spawn(attempt).abort_handle()
    }
}

async fn attempt(
    parcel: &Parcel,
    pulse: &Pulse,
    events_topic: &str,
    clock: &dyn Clock,
) -> Option<Result<Accepted, DeliveryError>> {
    if !pulse.is_fresh() {
        return None;
    }
    let delivery = match codec::decode_addressed(AddressedKind::Delivery, &parcel.payload) {
        Ok(delivery) => delivery,
        Err(error) => return Some(Err(DeliveryError::Undecodable(error))),
    };
    failpoint::hit("router.before_send");
    let started = Instant::now();
    let attempt = Attempt {
        delivery: &delivery,
        events_topic,
        number: parcel.number,
        timeout: parcel.timeout,
        now: clock.now_ms(),
    };
    // The destination keeps the timeout itself; this is for one that does not.
    let bound = parcel.timeout + Duration::from_secs(1);
    let outcome = tokio::time::timeout(bound, parcel.service.deliver(&attempt))
        .await
        .unwrap_or(Err(DeliveryError::TimedOut { after: bound }));
    failpoint::hit("router.after_response");
    let age_ms = clock.now_ms().saturating_sub(delivery.envelope.received_at);
    parcel.metrics.attempted(
        &outcome,
        started.elapsed().as_secs_f64(),
        age_ms.max(0) as f64 / 1000.0,
    );
    Some(outcome)
}

/// Reports when it is dropped, so that neither a panic nor an abort can leave a key waiting for ever.
struct Report {
    ticket: Ticket,
    to: Sender<Landed>,
    outcome: Option<Result<Accepted, DeliveryError>>,
}

impl Drop for Report {
    fn drop(&mut self) {
        let landed = Landed {
            ticket: self.ticket,
            outcome: self.outcome.take(),
        };
        // Without a receiver the lane has ended, and nobody waits.
        drop(self.to.send(landed));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::destinations::Delivering;
    use crate::event::codec::encode_addressed;
    use crate::event::{Delivery, Framing};
    use crate::router::breaker::Breaker;
    use crate::router::metrics::RouterMetrics;
    use crate::telemetry::Registry;

    #[derive(Debug)]
    enum Fake {
        Panics,
        Stalls,
        Takes,
    }

    impl Destination for Fake {
        fn deliver<'a>(&'a self, _: &'a Attempt<'a>) -> Delivering<'a> {
            Box::pin(async move {
                match self {
                    Self::Panics => panic!("a bug"),
                    Self::Stalls => std::future::pending().await,
                    Self::Takes => Ok(Accepted::Delivered { status: 200 }),
                }
            })
        }
    }

    fn land(fake: Fake, stale_after: Duration) -> Landed {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (landed, received) = mpsc::channel();
        let courier = Courier {
            runtime: runtime.handle().clone(),
            landed,
            pulse: Arc::new(Pulse::new(stale_after)),
            events_topic: "events".into(),
            clock: Arc::new(SystemClock),
        };
        let mut payload = Vec::new();
        let delivery = Delivery {
            destination_id: "d".into(),
            origin_partition: 0,
            origin_offset: 0,
            processed_revision: 0,
            envelope: crate::event::Envelope::default(),
        };
        encode_addressed(
            AddressedKind::Delivery,
            Framing::default(),
            &delivery,
            &mut payload,
        )
        .unwrap();
        let breaker = Breaker::new(crate::router::breaker::Rules {
            failures: 1,
            keys: 1,
            unreachable: 1,
            refusals: 1,
            refusal_share: 1.0,
            recent: 1,
            probe: crate::retry::Backoff::new(Duration::ZERO, Duration::ZERO),
        });
        let metrics = RouterMetrics::register(&Registry::default());
        let stalls = matches!(fake, Fake::Stalls);
        let handle = courier.send(Parcel {
            ticket: Ticket {
                key: KeyId(7),
                partition: 0,
                assignment: 1,
                epoch: breaker.epoch(),
            },
            payload: payload.into(),
            service: Arc::new(fake),
            number: 1,
            timeout: Duration::from_secs(60),
            metrics: TargetMetrics::new(&metrics, &"d".into()),
        });
        if stalls {
            handle.abort();
        }
        received.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    #[test]
    fn an_attempt_is_reported_whatever_happens_to_it() {
        let fresh = Duration::from_secs(60);
        let landed = land(Fake::Takes, fresh);
        assert!(matches!(landed.outcome, Some(Ok(_))));
        assert_eq!(landed.ticket.key, KeyId(7));
        for fake in [Fake::Panics, Fake::Stalls] {
            let landed = land(fake, fresh);
            assert!(matches!(landed.outcome, Some(Err(DeliveryError::Panicked))));
        }
    }

    #[test]
    fn a_process_that_was_stopped_too_long_sends_nothing() {
        let landed = land(Fake::Takes, Duration::ZERO);
        assert!(landed.outcome.is_none());
    }
}
