//! The partitions of `events` that are ours, as the group tells.

use std::collections::BTreeMap;

use crate::kafka::{Committed, Consumer, RebalanceListener, StartAt, TopicPartition};

use super::pipeline::{Closed, Feeder, Item};

/// The partitions that are ours, as the group told.
pub(super) struct Partitions {
    /// To the publisher.
    pub(super) feeder: Feeder,
    /// By number.
    pub(super) owned: BTreeMap<i32, Owned>,
    /// Assigned since we last looked.
    pub(super) fresh: Vec<Committed>,
    /// The group has told us our partitions at least once.
    pub(super) told: bool,
    next_ticket: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owned {
    /// Its ids are being read back under this ticket.
    Rebuilding {
        /// Tells the answer to this question from one to an older question.
        ticket: u64,
        /// Where the group goes on; `None` when it never committed.
        next: Option<i64>,
    },
    /// Its records flow.
    Flowing,
}

impl Partitions {
    /// None yet; `feeder` leads to the publisher.
    pub(super) fn new(feeder: Feeder) -> Self {
        Self {
            feeder,
            owned: BTreeMap::new(),
            fresh: Vec::new(),
            told: false,
            next_ticket: 0,
        }
    }

    /// Whether its records flow.
    pub(super) fn is_flowing(&self, partition: i32) -> bool {
        self.owned.get(&partition) == Some(&Owned::Flowing)
    }

    /// A ticket that was not given before.
    pub(super) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// How many are being read back.
    pub(super) fn rebuilding(&self) -> usize {
        self.owned
            .values()
            .filter(|owned| **owned != Owned::Flowing)
            .count()
    }
}

impl RebalanceListener for Partitions {
    fn assigned(
        &mut self,
        _: &Consumer,
        partitions: &[Committed],
    ) -> Vec<(TopicPartition, StartAt)> {
        self.told = true;
        self.fresh.extend_from_slice(partitions);
        Vec::new()
    }

    /// When this returns the partitions are given away, so first everything in flight must have ended: what commits after
    /// that would commit for somebody else. If they were lost already, its commit is refused, and it ends so.
    fn revoked(
        &mut self,
        _: &Consumer,
        partitions: &[TopicPartition],
        _lost: bool,
    ) -> Vec<TopicPartition> {
        // A publisher that has ended commits nothing either.
        let _ended: Result<(), Closed> = self.feeder.wait_for_all();
        for tp in partitions {
            self.fresh.retain(|c| c.topic_partition != *tp);
            if self.owned.remove(&tp.partition).is_some() {
                let _ended = self.feeder.put(Item::Forget(tp.partition));
            }
        }
        Vec::new()
    }
}
