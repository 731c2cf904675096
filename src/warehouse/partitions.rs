//! The partitions that are ours, and what is in memory of each.
//!
//! ```text
//!  assigned ─▶ Locating ── the chain's end is read, the consumer seeks there ──▶ Ready ── cut ──▶ Ready + in flight
//!                 ▲                                                               │                │
//!                 └────────────── another writer was faster ──────────────────────┴────────────────┤
//!  revoked: rows in memory are dropped, the next owner reads them again                            ▼
//!                 ▲                                                                    manifest in the chain
//!                 └──── after a while ──── Stuck: what is wrong does not pass by itself
//! ```
//! A flight is not called back when its partition is taken away: it wins its race or loses it, and either is right.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::manifest::Chain;
use crate::kafka::{Committed, Consumer, RebalanceListener, StartAt, TopicPartition};

/// How long a partition is left alone after an error that does not pass by itself.
const STUCK_FOR: Duration = Duration::from_secs(60);

/// One partition.
#[derive(Debug)]
pub(super) struct Slot {
    /// Tells apart two times that we own the same partition: answers to the first are not for the second.
    pub(super) generation: u64,
    /// What the group has committed, roughly where the chain ends.
    pub(super) hint: Option<i64>,
    pub(super) phase: Phase,
}

/// Where a partition stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// The chain's end is being looked up; nothing is read.
    Locating,
    /// Rows are taken in.
    Ready(Ready),
    /// Nothing is read until then.
    Stuck { until: Instant },
}

/// A partition whose rows are taken in.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) chain: Chain,
    pub(super) batch: Batch,
    /// Whether the batch before is on its way into the chain.
    pub(super) in_flight: bool,
    /// Whether what a crash left of the first race since we took over may have to be removed.
    pub(super) sweeps_first: bool,
}

/// All partitions that are ours.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    pub(super) slots: HashMap<TopicPartition, Slot>,
    /// Assigned by the last poll; to be paused and located.
    fresh: Vec<TopicPartition>,
    /// Whether the group has answered at all.
    pub(super) has_been_told: bool,
    /// Whether `slots` changed since it was last asked.
    has_changed: bool,
    generations: u64,
}

impl Partitions {
    /// Partitions that came since the last call, to be located.
    pub(super) fn take_fresh(&mut self) -> Vec<TopicPartition> {
        std::mem::take(&mut self.fresh)
    }

    /// Whether partitions came or went, or became ready, since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// The slot of an answer, if it is still the one that asked.
    pub(super) fn of(&mut self, tp: &TopicPartition, generation: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(tp)?;
        (slot.generation == generation).then_some(slot)
    }

    /// The partition whose rows are taken in.
    pub(super) fn ready(&mut self, tp: &TopicPartition) -> Option<&mut Ready> {
        match &mut self.slots.get_mut(tp)?.phase {
            Phase::Ready(ready) => Some(ready),
            Phase::Locating | Phase::Stuck { .. } => None,
        }
    }

    /// Begins to take rows in.
    pub(super) fn set_ready(&mut self, tp: &TopicPartition, chain: Chain, start: i64) {
        if let Some(slot) = self.slots.get_mut(tp) {
            slot.hint = Some(start);
            slot.phase = Phase::Ready(Ready {
                chain,
                batch: Batch::new(start),
                in_flight: false,
                sweeps_first: true,
            });
            self.has_changed = true;
        }
    }

    /// Forgets the rows of a partition and looks its chain up again. Returns the generation to ask with.
    pub(super) fn relocate(&mut self, tp: &TopicPartition) -> Option<(u64, Option<i64>)> {
        self.generations += 1;
        let generation = self.generations;
        let slot = self.slots.get_mut(tp)?;
        slot.generation = generation;
        slot.phase = Phase::Locating;
        Some((generation, slot.hint))
    }

    /// Leaves a partition alone for a while.
    pub(super) fn set_stuck(&mut self, tp: &TopicPartition, now: Instant) {
        if let Some(slot) = self.slots.get_mut(tp) {
            let until = now + STUCK_FOR;
            slot.phase = Phase::Stuck { until };
            self.has_changed = true;
        }
    }

    /// Stuck partitions that are to be tried again.
    pub(super) fn retriable(&self, now: Instant) -> Vec<TopicPartition> {
        let is_over = |slot: &Slot| matches!(slot.phase, Phase::Stuck { until } if until <= now);
        let over = self.slots.iter().filter(|(_, slot)| is_over(slot));
        over.map(|(tp, _)| tp.clone()).collect()
    }

    /// The partition with the most rows that can be cut now.
    pub(super) fn largest(&self) -> Option<TopicPartition> {
        let bytes = |slot: &Slot| match &slot.phase {
            Phase::Ready(ready) if !ready.in_flight => ready.batch.bytes(),
            Phase::Ready(_) | Phase::Locating | Phase::Stuck { .. } => 0,
        };
        let largest = self.slots.iter().max_by_key(|(_, slot)| bytes(slot))?;
        (bytes(largest.1) > 0).then(|| largest.0.clone())
    }

    /// Bytes of all rows that are in no flight.
    pub(super) fn bytes(&self) -> usize {
        let batches = self.slots.values().map(|slot| match &slot.phase {
            Phase::Ready(ready) => ready.batch.bytes(),
            Phase::Locating | Phase::Stuck { .. } => 0,
        });
        batches.sum()
    }

    /// Partitions that are read.
    pub(super) fn flowing(&self) -> Vec<TopicPartition> {
        let is_ready = |slot: &Slot| matches!(slot.phase, Phase::Ready(_));
        let flowing = self.slots.iter().filter(|(_, slot)| is_ready(slot));
        flowing.map(|(tp, _)| tp.clone()).collect()
    }

    /// Whether every partition is read.
    pub(super) fn all_flow(&self) -> bool {
        self.slots
            .values()
            .all(|slot| matches!(slot.phase, Phase::Ready(_)))
    }

    /// The chain of partition 0 of each topic that is ours: who has it loads the topic.
    pub(super) fn first_chains(&self) -> HashMap<Arc<str>, Chain> {
        let firsts = self.slots.iter().filter(|(tp, _)| tp.partition == 0);
        firsts
            .filter_map(|(tp, slot)| match &slot.phase {
                Phase::Ready(ready) => Some((Arc::clone(&tp.topic), ready.chain.clone())),
                Phase::Locating | Phase::Stuck { .. } => None,
            })
            .collect()
    }
}

impl RebalanceListener for Partitions {
    fn assigned(
        &mut self,
        _: &Consumer,
        partitions: &[Committed],
    ) -> Vec<(TopicPartition, StartAt)> {
        self.has_been_told = true;
        self.has_changed = true;
        let begin = |committed: &Committed| {
            let tp = committed.topic_partition.clone();
            self.generations += 1;
            let slot = Slot {
                generation: self.generations,
                hint: committed.next_offset,
                phase: Phase::Locating,
            };
            self.slots.insert(tp.clone(), slot);
            self.fresh.push(tp.clone());
            // Only until the chain tells: nothing is taken in before. The end is an offset that cannot be gone.
            (tp, StartAt::End)
        };
        partitions.iter().map(begin).collect()
    }

    fn revoked(
        &mut self,
        _: &Consumer,
        partitions: &[TopicPartition],
        _lost: bool,
    ) -> Vec<TopicPartition> {
        for tp in partitions {
            self.slots.remove(tp);
            self.fresh.retain(|fresh| fresh != tp);
        }
        self.has_changed = true;
        Vec::new()
    }
}
