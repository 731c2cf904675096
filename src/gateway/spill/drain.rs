//! Sends to Kafka what waits on the disk, in its order, and deletes what all in-sync replicas have. A thread of its own.
//!
//! The producer is the drain's own and never gives a record up by itself: its retries keep the order within a partition,
//! which a record that failed and is sent again behind its successors would not. What fails all the same (the producer
//! broke, the topic is gone, rights are missing) is sent again until it passes; what Kafka refuses for good is kept in a file.
//!
//! How far a segment is drained is known in memory only. After a crash the oldest segment is sent again from its beginning;
//! the processor leaves out what it has seen.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::failpoint;
use crate::fault::{Classify, Fault};
use crate::kafka::{AckProducer, Batch, ProduceError};
use crate::retry::Backoff;

use super::error::SpillError;
use super::frame::{self, Next, Record};
use super::frames::{self, Frames};
use super::segment::MAGIC;
use super::shared::{Place, Shared, State, Work};

/// Bytes that are sent together.
const CHUNK_BYTES: u64 = 1 << 20;
/// Records that are little enough for new requests to wait for them.
const LITTLE: u64 = 1_000;
/// How long new requests are held for the last records before they go to the disk again.
const HELD_MAX: Duration = Duration::from_secs(1);
/// Between two tries.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
/// The producer does not give up, so neither does who waits for it.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Empties the spill.
pub(super) struct Drain {
    pub(super) shared: Arc<Shared>,
    pub(super) producer: AckProducer,
    pub(super) topic: String,
    pub(super) runtime: Handle,
}

/// The spill is being stopped.
struct Stopped;

/// What became of the records that were sent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// To be sent again, in this order.
    again: Vec<usize>,
    /// Refused for good, by themselves or with their batch.
    refused: Vec<usize>,
}

/// Decides what becomes of the records `sent`, by what became of each; of the last ones nothing may be known.
fn judge(sent: &[usize], results: &[Result<(), ProduceError>]) -> Verdict {
    let mut verdict = Verdict::default();
    for (n, record) in sent.iter().enumerate() {
        match results
            .get(n)
            .map(|result| result.as_ref().map_err(Classify::fault))
        {
            Some(Ok(())) => {}
            Some(Err(Fault::Permanent)) => verdict.refused.push(*record),
            Some(Err(Fault::Transient { .. } | Fault::Fatal)) | None => verdict.again.push(*record),
        }
    }
    verdict
}

impl Drain {
    /// Drains until the spill is stopped.
    pub(super) fn run(&self) {
        let mut failures = 0;
        loop {
            let place = match self.shared.next_to_drain() {
                Work::Drain(place) => place,
                Work::LookUp => {
                    self.clear();
                    self.shared.count_others();
                    continue;
                }
                Work::Stop => return,
            };
            match self.step(place) {
                Ok(ControlFlow::Continue(())) => failures = 0,
                Ok(ControlFlow::Break(Stopped)) => return,
                Err(error) => {
                    self.shared.failed(&error);
                    if error.is_missing() {
                        self.forget(place.number);
                        continue;
                    }
                    failures += 1;
                    if self.pause(failures).is_break() {
                        return;
                    }
                }
            }
        }
    }

    /// One chunk.
    fn step(&self, place: Place) -> Result<ControlFlow<Stopped>, SpillError> {
        let read = |bytes: u64| {
            let to = place.to.min(place.from + bytes);
            self.shared.folder.read(place.number, place.from, to)
        };
        let mut bytes = read(CHUNK_BYTES)?;
        let mut most = usize::MAX;
        if matches!(frame::next(&bytes), Next::Cut) {
            // One that is larger than a chunk.
            bytes = read(place.to - place.from)?;
            most = 1;
        }
        let (records, len) = whole(&bytes, most);
        let Some(last) = records.last() else {
            self.damaged(place)?;
            return Ok(ControlFlow::Continue(()));
        };
        let (count, last_at) = (records.len() as u64, last.at);
        let kept = match self.send(place.number, &records) {
            ControlFlow::Continue(kept) => kept,
            ControlFlow::Break(stopped) => return Ok(ControlFlow::Break(stopped)),
        };
        let out = &self.shared.metrics.records_out_total;
        out.with_label_values::<&str>(&[]).inc_by(count - kept);
        self.shared.with(|state| {
            if let Some(segment) = state.segment(place.number) {
                segment.drained = place.from + len;
                segment.drained_records += count;
            }
            state.flow.settle(count);
            state.oldest = (state.flow.records() > 0).then_some(last_at);
            state.flow.close(LITTLE);
        });
        self.clear();
        Ok(ControlFlow::Continue(()))
    }

    /// Sends until Kafka has all of `records` but those that it refuses for good: returns how many are kept in a file.
    fn send(&self, segment: u64, records: &[Record<'_>]) -> ControlFlow<Stopped, u64> {
        let mut groups = VecDeque::from([(0..records.len()).collect::<Vec<usize>>()]);
        let mut refused = Frames::default();
        let mut failures = 0;
        while let Some(group) = groups.pop_front() {
            let results = self.round(records, &group)?;
            let verdict = judge(&group, &results);
            if group.len() == 1 {
                verdict
                    .refused
                    .iter()
                    .for_each(|n| refused.push(records[*n]));
            } else {
                // A broker refuses a whole batch for one record in it, so each is asked for by itself.
                groups.extend(verdict.refused.iter().map(|n| vec![*n]));
            }
            if !verdict.again.is_empty() {
                failures += 1;
                let error = results.iter().find_map(|result| result.as_ref().err());
                tracing::warn!(
                    records = verdict.again.len(),
                    error = error.map(tracing::field::display),
                    "spilled records not taken by Kafka"
                );
                groups.push_front(verdict.again);
                self.pause(failures)?;
            }
        }
        self.keep(segment, &refused)?;
        ControlFlow::Continue(refused.count())
    }

    /// Sends the records `group` once, in order, and waits for what becomes of each.
    fn round(
        &self,
        records: &[Record<'_>],
        group: &[usize],
    ) -> ControlFlow<Stopped, Vec<Result<(), ProduceError>>> {
        let batch = Batch::detailed();
        for record in group {
            let sent = frames::send(&self.producer, &batch, &self.topic, records[*record]);
            // What cannot be sent now must not be overtaken by what follows it.
            if sent.is_err_and(|error| error.fault() != Fault::Permanent) {
                break;
            }
        }
        failpoint::hit("gateway.spill.mid_drain");
        let shared = &self.shared;
        let results = self.runtime.block_on(async {
            let wait = batch.wait_each(Instant::now() + FOREVER);
            tokio::pin!(wait);
            loop {
                tokio::select! {
                    results = &mut wait => return Some(results),
                    () = shared.stopping.cancelled() => return None,
                    () = tokio::time::sleep(HELD_MAX) => shared.with(|state| state.flow.reopen()),
                }
            }
        });
        match results {
            Some(results) => {
                ControlFlow::Continue(results.into_iter().map(|result| result.map(drop)).collect())
            }
            None => ControlFlow::Break(Stopped),
        }
    }

    /// Keeps what Kafka refused for good. It was answered with 200, so nothing goes on before it is kept.
    fn keep(&self, segment: u64, refused: &Frames) -> ControlFlow<Stopped> {
        if refused.count() == 0 {
            return ControlFlow::Continue(());
        }
        let mut failures = 0;
        loop {
            match self.shared.folder.keep_refused(segment, refused.bytes()) {
                Ok(path) => {
                    let count = refused.count();
                    let metrics = &self.shared.metrics;
                    let counter = metrics.records_refused_total.with_label_values::<&str>(&[]);
                    counter.inc_by(count);
                    tracing::error!(
                        records = count, kept_in = %path.display(),
                        "Kafka refused {count} spilled records for good; they are kept"
                    );
                    self.shared.count_others();
                    return ControlFlow::Continue(());
                }
                Err(error) => {
                    self.shared.failed(&error);
                    failures += 1;
                    self.pause(failures)?;
                }
            }
        }
    }

    /// What begins at `place` cannot be read: it is kept aside, and what follows in other segments goes on.
    fn damaged(&self, place: Place) -> Result<(), SpillError> {
        self.shared.disk.lock().seal(&self.shared, place.number);
        self.shared.folder.put_aside(place.number, place.from)?;
        let damaged = &self.shared.metrics.segments_damaged_total;
        damaged.with_label_values::<&str>(&[]).inc();
        self.end(place.number);
        Ok(())
    }

    /// A segment that somebody else deleted.
    fn forget(&self, number: u64) {
        self.shared.disk.lock().seal(&self.shared, number);
        let lost = self.end(number);
        tracing::error!(
            file = %self.shared.folder.path(number).display(), records = lost,
            "a segment of the spill is gone; {lost} events that were answered with 200 are lost"
        );
    }

    /// Nothing more will come out of a segment; returns how many records it still held.
    fn end(&self, number: u64) -> u64 {
        let lost = self.shared.with(|state| {
            let Some(segment) = state.segment(number) else {
                return 0;
            };
            let (lost, bytes) = (
                segment.records - segment.drained_records,
                segment.len - segment.drained,
            );
            segment.len = segment.drained;
            segment.records = segment.drained_records;
            state.flow.settle(lost);
            state.flow.release(bytes);
            lost
        });
        self.shared.count_others();
        self.clear();
        lost
    }

    /// Deletes the segments that are done with. The one that is written to goes too when nothing waits to be written.
    fn clear(&self) {
        let done = |state: &State| {
            let segment = state.segments.front()?;
            let ended = segment.sealed || state.flow.records() == 0;
            (segment.drained == segment.len && ended).then_some(*segment)
        };
        while self.shared.with(|state| done(state).is_some()) {
            let mut disk = self.shared.disk.lock();
            // Asked again: a request may have come before the lock did.
            let Some(segment) = self.shared.with(|state| done(state)) else {
                return;
            };
            disk.seal(&self.shared, segment.number);
            drop(disk);
            failpoint::hit("gateway.spill.after_drain");
            let removed = self.shared.folder.remove(segment.number);
            self.shared.with(|state| {
                state.segments.pop_front();
                state.flow.release(segment.len - MAGIC.len() as u64);
            });
            if let Err(error) = removed {
                // From here on it is one of the folder's other files; the next start drains it once more.
                self.shared.failed(&error);
                self.shared.count_others();
            }
        }
    }

    /// Waits before the next try; requests are not held meanwhile.
    fn pause(&self, failures: u32) -> ControlFlow<Stopped> {
        self.shared.with(|state| state.flow.reopen());
        let stopped = self.runtime.block_on(async {
            tokio::select! {
                () = self.shared.stopping.cancelled() => true,
                () = tokio::time::sleep(BACKOFF.delay(failures)) => false,
            }
        });
        if stopped {
            ControlFlow::Break(Stopped)
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// The whole records at the beginning of `bytes`, but no more than `most`, and how many bytes they take.
fn whole(bytes: &[u8], most: usize) -> (Vec<Record<'_>>, u64) {
    let (mut records, mut at) = (Vec::new(), 0);
    while records.len() < most
        && let Next::Record(record, len) = frame::next(&bytes[at..])
    {
        records.push(record);
        at += len;
    }
    (records, at as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_holds_whole_records_only() {
        let mut frames = Frames::default();
        for payload in [&b"one"[..], b"two", b"three"] {
            frames.push(Record {
                at: 1,
                key: b"",
                traceparent: b"",
                payload,
            });
        }
        let bytes = frames.bytes();
        let each = |cut: usize, most| {
            let (records, len) = whole(&bytes[..cut], most);
            assert_eq!(whole(&bytes[..len as usize], most).1, len);
            records.len()
        };
        let all = bytes.len();
        assert_eq!((each(all, 9), each(all - 1, 9), each(all, 1)), (3, 2, 1));
        assert_eq!(each(1, 9), 0);
    }

    #[test]
    fn what_may_pass_later_is_sent_again_in_order_and_what_never_can_is_not() {
        let too_large = || Err(ProduceError::TooLarge { bytes: 1 });
        let late = || Err(ProduceError::Timeout);
        for (results, again, refused) in [
            (vec![Ok(()), Ok(()), Ok(())], vec![], vec![]),
            (vec![Ok(()), late(), Ok(())], vec![5], vec![]),
            (vec![late(), too_large(), late()], vec![3, 8], vec![5]),
            // The second could not be queued, so the third was not tried.
            (
                vec![Ok(()), Err(ProduceError::QueueFull)],
                vec![5, 8],
                vec![],
            ),
            (vec![], vec![3, 5, 8], vec![]),
        ] {
            let verdict = judge(&[3, 5, 8], &results);
            assert_eq!(verdict, Verdict { again, refused }, "{results:?}");
        }
    }
}
