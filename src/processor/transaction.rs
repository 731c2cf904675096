//! One transaction: everything that a range of events leads to, from the first delivery to the commit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::clock::UnixMs;
use crate::event::{DeadLetterReason, Ending, FilterReason, SchemaName, codec};
use crate::kafka::{
    GroupMetadata, KafkaError, Message, OffsetCommit, RecordRef, TopicPartition, TxnReport,
};

use super::dead_letter::Failure;
use super::decode::{Event, Planned};
use super::dedup::{Dedup, pack};
use super::ledger::Tally;
use super::output::{Interrupt, Output};
use super::plan::{Plan, Way};
use super::routes::Routes;

/// What a transaction decides by, beside the events themselves.
pub(super) struct Context<'a> {
    /// Where the range of each partition begins.
    pub(super) next: &'a HashMap<i32, i64>,
    /// What was accepted before; `None` when dedup is off.
    pub(super) dedup: Option<&'a mut Dedup>,
    /// Up to this revision a source that we do not know is waited for no longer.
    pub(super) waited_for: i64,
}

/// A transaction that is being collected.
#[derive(Debug)]
pub(super) struct Transaction {
    routes: Arc<Routes>,
    tallies: BTreeMap<i32, Tally>,
    since: Instant,
    now: UnixMs,
    records: usize,
    bytes: usize,
    oldest: Option<UnixMs>,
}

impl Transaction {
    /// Begins at `now` under `routes`.
    pub(super) fn begin(routes: Arc<Routes>, now: UnixMs) -> Self {
        Self {
            routes,
            tallies: BTreeMap::new(),
            since: Instant::now(),
            now,
            records: 0,
            bytes: 0,
            oldest: None,
        }
    }

    /// Since when it collects.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Records taken in.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Their keys and payloads.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest of them was written to `events`.
    pub(super) fn oldest(&self) -> Option<UnixMs> {
        self.oldest
    }

    /// What it did with each partition.
    pub(super) fn tallies(&self) -> &BTreeMap<i32, Tally> {
        &self.tallies
    }

    /// The configuration its events were planned under; a ledger entry names one only.
    pub(super) fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Decides on every event of `chunk`, in order, and writes what follows from it.
    ///
    /// # Errors
    /// When the transaction cannot go on.
    pub(super) fn take_in(
        &mut self,
        chunk: &Planned,
        context: Context<'_>,
        out: &mut Output,
    ) -> Result<(), Interrupt> {
        let Context {
            next,
            mut dedup,
            waited_for,
        } = context;
        for (message, event) in chunk.messages.iter().zip(&chunk.events) {
            let partition = message.partition;
            self.records += 1;
            self.bytes += message.size();
            self.oldest = match (self.oldest, message.timestamp) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let is_new = |key: u128| {
                dedup
                    .as_deref_mut()
                    .is_none_or(|dedup| dedup.accept(partition, key))
            };
            let tally = self.tallies.entry(partition).or_insert_with(|| {
                Tally::starting_at(next.get(&partition).copied().unwrap_or(message.offset))
            });
            tally.read(message.offset);
            if let Event::Unresolved(why) = event {
                return Err(Interrupt::NotNow(why.clone()));
            }
            if let Event::Decoded {
                plan: Plan::TooNew(revision),
                ..
            } = event
                && *revision > waited_for
            {
                return Err(Interrupt::TooNew(*revision));
            }
            follow(message, event, is_new, &self.routes, self.now, tally, out)?;
        }
        Ok(())
    }

    /// Writes the accepted ids and the ledger, and commits all of it with the input's offsets.
    ///
    /// # Errors
    /// When the transaction did not commit.
    pub(super) fn commit(
        &self,
        dedup: Option<&Dedup>,
        out: &mut Output,
        membership: impl FnOnce() -> Result<GroupMetadata, KafkaError>,
        now: UnixMs,
        with_offsets: bool,
    ) -> Result<TxnReport, Interrupt> {
        let seen = Arc::clone(&out.names.seen);
        for partition in self.tallies.keys() {
            let accepted = dedup.map_or(&[][..], |dedup| dedup.accepted(*partition));
            if !accepted.is_empty() {
                let key = partition.to_string();
                out.note(RecordRef {
                    partition: Some(*partition),
                    ..RecordRef::new(&seen, key.as_bytes(), &pack(accepted))
                })?;
            }
        }
        self.write_ledger(out, now)?;
        if !with_offsets {
            return Ok(out.txn.commit_without_offsets()?);
        }
        let offsets: Vec<OffsetCommit> = self
            .tallies
            .iter()
            .map(|(partition, tally)| {
                let place = TopicPartition::new(Arc::clone(&out.names.events), *partition);
                OffsetCommit::new(place, tally.to())
            })
            .collect();
        let group = membership().map_err(|error| Interrupt::NotNow(error.to_string()))?;
        Ok(out.txn.commit(&offsets, &group)?)
    }

    fn write_ledger(&self, out: &mut Output, now: UnixMs) -> Result<(), Interrupt> {
        let instance = out.txn.id().to_owned();
        let (events, ledger) = (Arc::clone(&out.names.events), Arc::clone(&out.names.ledger));
        let framing = out.schemas.framing(SchemaName::LedgerEntry);
        for (partition, tally) in &self.tallies {
            let entry = tally.entry(&events, *partition, &self.routes, &instance, now);
            let mut payload = Vec::with_capacity(256);
            codec::encode_ledger(&entry, framing, &mut payload)?;
            let key = entry.key();
            out.note(RecordRef::new(&ledger, key.as_bytes(), &payload))?;
        }
        Ok(())
    }
}

/// Follows what was decided of one event: writes, counts.
fn follow(
    message: &Message,
    event: &Event,
    is_new: impl FnOnce(u128) -> bool,
    routes: &Routes,
    now: UnixMs,
    tally: &mut Tally,
    out: &mut Output,
) -> Result<(), Interrupt> {
    let failure = |reason, text: &str| Failure {
        reason,
        message: text.to_owned(),
        destination_id: "",
    };
    match event {
        // Does not come here: the transaction was given up.
        Event::Unresolved(why) => return Err(Interrupt::NotNow(why.clone())),
        Event::Undecodable(why) => {
            let failure = failure(DeadLetterReason::Undecodable, why);
            tally.ended(None, out.give_up(message, failure, now)?);
        }
        // Its id does not count as accepted: put back after a correction, it must not pass for a duplicate.
        Event::Decoded {
            plan: Plan::Unreadable(why),
            ..
        } => {
            let failure = failure(DeadLetterReason::InvalidEvent, why);
            tally.ended(None, out.give_up(message, failure, now)?);
        }
        Event::Decoded { key, .. } if !is_new(*key) => {
            tally.ended(None, Ending::Filtered(FilterReason::Duplicate));
        }
        Event::Decoded {
            plan: Plan::Ends(reason),
            ..
        } => tally.ended(None, Ending::Filtered(*reason)),
        Event::Decoded {
            plan: Plan::TooNew(_),
            ..
        } => tally.ended(None, Ending::Filtered(FilterReason::SourceUnknown)),
        Event::Decoded {
            plan: Plan::Fans(ways),
            ..
        } => {
            for way in ways {
                let ending = send_on(message, way, routes, now, out)?;
                tally.ended(Some(way.target), ending);
            }
        }
    }
    Ok(())
}

fn send_on(
    message: &Message,
    way: &Way,
    routes: &Routes,
    now: UnixMs,
    out: &mut Output,
) -> Result<Ending, Interrupt> {
    match way.filtered {
        Some(reason) => Ok(Ending::Filtered(reason)),
        None => out.forward(message, routes.target(way.target), routes.revision(), now),
    }
}
