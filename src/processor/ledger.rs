//! Counting how the events of one transaction ended, per input partition, for the ledger and for the metrics.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::clock::UnixMs;
use crate::event::{Ending, LedgerEntry, OutcomeCount, Stage};

use super::routes::{Routes, TargetId};

/// What one transaction did with one input partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// First offset of the range.
    from: i64,
    /// First offset after it.
    to: i64,
    records: i64,
    counts: BTreeMap<(Option<TargetId>, Ending), i64>,
}

impl Tally {
    /// Of the range that begins at `from`: where the range before ended, so that ranges meet.
    pub fn starting_at(from: i64) -> Self {
        Self {
            from,
            to: from,
            records: 0,
            counts: BTreeMap::new(),
        }
    }

    /// Counts the record at `offset` in; how it ended is told by [`ended`](Tally::ended).
    pub fn read(&mut self, offset: i64) {
        self.records += 1;
        self.to = offset + 1;
    }

    /// An event ended in this way for `target` (`None`: for every destination).
    pub fn ended(&mut self, target: Option<TargetId>, ending: Ending) {
        *self.counts.entry((target, ending)).or_default() += 1;
    }

    /// First offset after the range: what to commit.
    pub fn to(&self) -> i64 {
        self.to
    }

    /// Records read in the range.
    pub fn records(&self) -> i64 {
        self.records
    }

    /// Every way events ended, with the destination (empty: for every one) and how many.
    pub fn outcomes<'a>(
        &'a self,
        routes: &'a Routes,
    ) -> impl Iterator<Item = (&'a str, Ending, i64)> {
        self.counts.iter().map(|((target, ending), count)| {
            let destination = target.map_or("", |id| &routes.target(id).destination_id);
            (destination, *ending, *count)
        })
    }

    /// The ledger's entry.
    pub fn entry<'a>(
        &self,
        topic: &'a str,
        partition: i32,
        routes: &Routes,
        instance: &'a str,
        at: UnixMs,
    ) -> LedgerEntry<'a> {
        LedgerEntry {
            stage: Cow::Borrowed(Stage::Processor.name()),
            topic: Cow::Borrowed(topic),
            partition,
            from_offset: self.from,
            to_offset: self.to,
            records: self.records,
            at,
            config_revision: routes.revision(),
            instance: Cow::Borrowed(instance),
            outcomes: self
                .outcomes(routes)
                .map(|(destination, ending, count)| OutcomeCount::of(destination, ending, count))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::parse_workspace;
    use crate::event::{FilterReason, TopicNames};

    #[test]
    fn an_entry_counts_each_ending_of_each_destination() {
        let text = "sources: [{id: web, write_key: K}]\n\
                    destinations: [{id: a, type: WEBHOOK}, {id: b, type: WEBHOOK}]\n\
                    connections: [{source: web, destination: b}]";
        let workspace = parse_workspace("test", text, 5).unwrap();
        let routes = Routes::new(&workspace, &TopicNames::new("t."));
        let b = routes.source("web").unwrap().targets[0];
        let mut tally = Tally::starting_at(10);
        for offset in [12, 13, 20] {
            tally.read(offset);
        }
        tally.ended(Some(b), Ending::Forwarded);
        tally.ended(Some(b), Ending::Forwarded);
        tally.ended(None, Ending::Filtered(FilterReason::Duplicate));
        let entry = tally.entry("t.events", 4, &routes, "i", 99);
        assert_eq!(
            (entry.from_offset, entry.to_offset, entry.records),
            (10, 21, 3)
        );
        assert_eq!(entry.config_revision, 5);
        assert_eq!(
            entry.outcomes,
            [
                OutcomeCount::of("", Ending::Filtered(FilterReason::Duplicate), 1),
                OutcomeCount::of("b", Ending::Forwarded, 2),
            ]
        );
    }
}
