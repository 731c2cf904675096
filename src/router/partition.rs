//! What the router knows of one partition that it owns: progress, and what ended since the last commit.
//!
//! # Ledger
//! Every commit of progress is a transaction that also writes a ledger entry for each partition it moves. The entry counts
//! the records that *ended* since the last commit, wherever in the window they lie, and each record ends in exactly one
//! committed transaction: after a crash, what the metadata of the commit says is done is skipped and counted by nobody
//! again. So the sum over the entries of a partition is exact at any moment. Its range says how far the committed offset
//! moved; the ranges of one partition's entries chain without gap or overlap, and a range may be empty when a slow record
//! holds the offset while others end behind it. (Counting only what lies below the committed offset instead would need
//! the endings of everything beyond it to survive a restart.)

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::UnixMs;
use crate::event::{Ending, LedgerEntry, OutcomeCount, Stage};
use crate::failpoint;
use crate::kafka::offsets::{OffsetMap, Seen};
use crate::kafka::{Committed, OffsetCommit, Record, TopicPartition};

use super::window::Use;

/// A fault switch for the test of the tests: what was read is committed with the next thing that ends, whether it was
/// delivered or not. A process that is killed then loses events, and a checker that does not find them missing is worth
/// nothing.
const FAULT_COMMIT_FIRST: &str = "router.fault.commit_before_delivery";

/// One partition that we own.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) of: TopicPartition,
    /// Counts assignments, so that an outcome from before a rebalance is told from one after.
    pub(super) epoch: u64,
    /// Deliveries under way.
    pub(super) in_flight: usize,
    /// Waiting or in flight.
    pub(super) held_records: usize,
    pub(super) held_bytes: usize,
    pub(super) is_paused: bool,
    /// It is being taken away: nothing of it is started any more.
    pub(super) is_leaving: bool,
    /// `None` until the first record, when the group has committed nothing yet.
    map: Option<OffsetMap>,
    /// The offset that the group has committed, or where we began.
    committed: i64,
    ended: Ended,
    metadata_bytes: usize,
}

/// What ended since the last commit.
#[derive(Debug, Default)]
struct Ended {
    records: u64,
    counts: HashMap<(Arc<str>, Ending), i64>,
    dead_letters: Vec<Record>,
}

/// What one commit says about one partition, until its outcome is known.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) of: TopicPartition,
    pub(super) epoch: u64,
    pub(super) commit: OffsetCommit,
    from: i64,
    /// Whether the metadata has no room for all that is done, which [`admit`](Partition::admit) prevents.
    pub(super) is_cut: bool,
    ended: Ended,
}

impl Partition {
    pub(super) fn new(committed: &Committed, epoch: u64) -> Self {
        Self {
            of: committed.topic_partition.clone(),
            epoch,
            in_flight: 0,
            held_records: 0,
            held_bytes: 0,
            is_paused: false,
            is_leaving: false,
            map: OffsetMap::from_committed(committed),
            committed: committed.next_offset.unwrap_or(0),
            ended: Ended::default(),
            metadata_bytes: 0,
        }
    }

    /// Takes note of a record that was read; true if it is to be worked on.
    pub(super) fn see(&mut self, offset: i64, bytes: usize) -> bool {
        let map = self.map.get_or_insert_with(|| {
            self.committed = offset;
            OffsetMap::new(offset)
        });
        match map.see(offset) {
            Seen::New => {
                self.held_records += 1;
                self.held_bytes += bytes;
                true
            }
            Seen::Done | Seen::Pending => false,
        }
    }

    /// Whether work on a record may start now: not if its end might be more than a commit can say. The lowest that has not
    /// ended always may. What may is started.
    pub(super) fn admit(&mut self, offset: i64, metadata_bytes_max: usize) -> bool {
        let Some(map) = self.map.as_mut() else {
            return true;
        };
        map.try_start(offset, metadata_bytes_max)
    }

    /// Takes note that work on a record has stopped, whatever came of it.
    pub(super) fn stop(&mut self, offset: i64) {
        if let Some(map) = self.map.as_mut() {
            map.stop(offset);
        }
    }

    /// Takes note of how a record ended.
    pub(super) fn end(
        &mut self,
        offset: i64,
        bytes: usize,
        destination: &Arc<str>,
        ending: Ending,
        dead_letter: Option<Record>,
    ) {
        let was_pending = self.map.as_mut().is_some_and(|map| map.complete(offset));
        debug_assert!(was_pending, "{} {offset} ended twice", self.of);
        self.held_records -= 1;
        self.held_bytes -= bytes;
        self.ended.records += 1;
        *self
            .ended
            .counts
            .entry((Arc::clone(destination), ending))
            .or_default() += 1;
        self.ended.dead_letters.extend(dead_letter);
    }

    /// Records that ended since the last commit.
    pub(super) fn ended(&self) -> u64 {
        self.ended.records
    }

    /// Dead letters since the last commit.
    pub(super) fn dead_letters(&self) -> usize {
        self.ended.dead_letters.len()
    }

    /// What is held, against the limits.
    pub(super) fn window(&self) -> Use {
        let span = self.map.as_ref().map_or(0, OffsetMap::span);
        // The metadata says to wait for what is held. When that would change nothing, it is to be read on.
        let is_waiting = |map: &OffsetMap| map.unfinished() > 0 && !map.is_behind();
        let metadata_bytes = match &self.map {
            Some(map) if is_waiting(map) => self.metadata_bytes,
            _ => 0,
        };
        Use {
            records: self.held_records,
            bytes: self.held_bytes,
            span: u64::try_from(span).unwrap_or(0),
            metadata_bytes,
        }
    }

    /// What to commit now; `None` when nothing ended. What it takes is counted as uncommitted until
    /// [`settled`](Partition::settled).
    pub(super) fn snapshot(&mut self, metadata_bytes_max: usize) -> Option<Snapshot> {
        let map = self.map.as_ref()?;
        if self.ended.records == 0 {
            return None;
        }
        let mut next = map.next_commit(metadata_bytes_max);
        self.metadata_bytes = next.needed_bytes;
        if failpoint::is_armed(FAULT_COMMIT_FIRST) {
            next.next_offset += map.span();
            next.metadata.clear();
        }
        Some(Snapshot {
            of: self.of.clone(),
            epoch: self.epoch,
            from: self.committed,
            commit: OffsetCommit {
                topic_partition: self.of.clone(),
                next_offset: next.next_offset,
                metadata: next.metadata,
            },
            is_cut: next.is_cut,
            ended: std::mem::take(&mut self.ended),
        })
    }

    /// Takes note of what became of a snapshot: it is committed, or has to be committed again.
    pub(super) fn settled(&mut self, snapshot: Snapshot, is_committed: bool) {
        if is_committed {
            self.committed = snapshot.commit.next_offset;
            return;
        }
        let since = std::mem::replace(&mut self.ended, snapshot.ended);
        self.ended.records += since.records;
        for (what, count) in since.counts {
            *self.ended.counts.entry(what).or_default() += count;
        }
        self.ended.dead_letters.extend(since.dead_letters);
    }
}

impl Snapshot {
    /// Records whose ending it commits.
    pub(super) fn records(&self) -> u64 {
        self.ended.records
    }

    /// Dead letters to write with it.
    pub(super) fn dead_letters(&self) -> &[Record] {
        &self.ended.dead_letters
    }

    /// The ledger's entry.
    pub(super) fn ledger_entry<'a>(
        &'a self,
        at: UnixMs,
        config_revision: i64,
        instance: &'a str,
    ) -> LedgerEntry<'a> {
        let mut outcomes: Vec<OutcomeCount> = self
            .ended
            .counts
            .iter()
            .map(|((destination, ending), count)| {
                OutcomeCount::of(destination.as_ref(), *ending, *count)
            })
            .collect();
        outcomes.sort_by(|a, b| {
            (&a.destination_id, &a.ending, &a.reason).cmp(&(
                &b.destination_id,
                &b.ending,
                &b.reason,
            ))
        });
        LedgerEntry {
            stage: Stage::Router.name().into(),
            topic: self.of.topic.as_ref().into(),
            partition: self.of.partition,
            from_offset: self.from,
            to_offset: self.commit.next_offset,
            records: i64::try_from(self.ended.records).unwrap_or(i64::MAX),
            at,
            config_revision,
            instance: instance.into(),
            outcomes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::DeadLetterReason;

    fn partition(next_offset: Option<i64>, metadata: &str) -> Partition {
        let committed = Committed {
            topic_partition: TopicPartition::new("sluice.deliver.hook", 3),
            next_offset,
            metadata: metadata.to_owned(),
        };
        Partition::new(&committed, 1)
    }

    fn counts(entry: &LedgerEntry<'_>) -> Vec<(String, i64)> {
        let word = |o: &OutcomeCount| format!("{} {}", o.destination_id, o.ending);
        entry.outcomes.iter().map(|o| (word(o), o.count)).collect()
    }

    #[test]
    fn ranges_chain_and_every_record_is_counted_in_one_committed_entry() {
        let hook: Arc<str> = "hook".into();
        let mut p = partition(None, "");
        for offset in [10, 11, 13] {
            assert!(p.see(offset, 5));
        }
        p.end(11, 5, &hook, Ending::Delivered, None);
        p.end(13, 5, &hook, Ending::Delivered, None);
        let first = p.snapshot(4096).unwrap();
        let entry = first.ledger_entry(0, 1, "i");
        assert_eq!(
            (entry.from_offset, entry.to_offset, entry.records),
            (10, 10, 2)
        );
        assert!(!first.commit.metadata.is_empty());

        // The commit fails; meanwhile another record ends. Both are in the next one, once.
        let dead = Ending::DeadLettered(DeadLetterReason::Refused);
        p.end(10, 5, &hook, dead, Some(Record::new("dlq", "k", "v")));
        p.settled(first, false);
        assert_eq!((p.ended(), p.dead_letters()), (3, 1));
        let second = p.snapshot(4096).unwrap();
        let entry = second.ledger_entry(0, 1, "i");
        assert_eq!(
            (entry.from_offset, entry.to_offset, entry.records),
            (10, 14, 3)
        );
        let expected = [
            ("hook dead_lettered".to_owned(), 1),
            ("hook delivered".to_owned(), 2),
        ];
        assert_eq!(counts(&entry), expected);
        assert_eq!(second.dead_letters().len(), 1);
        p.settled(second, true);
        assert!(p.snapshot(4096).is_none(), "nothing ended since");
        assert_eq!(p.window().records, 0);

        assert!(p.see(14, 5));
        p.end(14, 5, &hook, Ending::Delivered, None);
        let third = p.snapshot(4096).unwrap();
        assert_eq!(third.ledger_entry(0, 1, "i").from_offset, 14);
    }

    #[test]
    fn after_a_restart_what_was_done_is_skipped_and_counted_by_nobody() {
        let hook: Arc<str> = "hook".into();
        let mut before = partition(Some(0), "");
        (0..5).for_each(|offset| assert!(before.see(offset, 1)));
        for offset in [1, 2, 4] {
            before.end(offset, 1, &hook, Ending::Delivered, None);
        }
        let commit = before.snapshot(4096).unwrap().commit;
        let mut after = partition(Some(commit.next_offset), &commit.metadata);
        let again: Vec<i64> = (0..6).filter(|offset| after.see(*offset, 1)).collect();
        assert_eq!(again, [0, 3, 5]);
        assert_eq!(after.ended(), 0);
    }

    #[test]
    fn a_successor_of_a_full_map_reads_on_until_it_holds_what_fills_it() {
        let hook: Arc<str> = "hook".into();
        let end = |p: &mut Partition, offset| p.end(offset, 1, &hook, Ending::Delivered, None);
        let mut before = partition(Some(0), "");
        (0..20_000).for_each(|offset| assert!(before.see(offset, 1)));
        (1..20_000).step_by(2).for_each(|offset| {
            assert!(before.admit(offset, 4096));
            end(&mut before, offset);
        });
        let commit = before.snapshot(4096).unwrap().commit;
        let full = before.window().metadata_bytes;
        assert!(full > 3_000, "{full}");

        let mut after = partition(Some(commit.next_offset), &commit.metadata);
        assert!(after.see(0, 1));
        end(&mut after, 0);
        assert!(after.snapshot(4096).is_some());
        assert_eq!(after.window().metadata_bytes, 0, "nothing is held");
        let held = (1..20_000).filter(|offset| after.see(*offset, 1)).count();
        assert_eq!(held, 9_999);
        assert!(after.window().metadata_bytes > 3_000, "now it is");
    }
}
