//! Everything of one lane that is in memory: what is held, in which order it goes, what ended. No Kafka client here; the
//! lane's thread feeds it records and outcomes and takes commits from it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::clock::{Clock, UnixMs};
use crate::control::Workspace;
use crate::destinations::{Accepted, DeliveryError, Destination};
use crate::event::{
    AddressedKind, DeadLetterReason, Ending, FilterReason, Framing, SchemaName, codec,
};
use crate::kafka::{Committed, Message, TopicPartition};
use crate::registry::{RegistryError, Schemas};

use super::breaker::{Allowance, Change};
use super::dead_letter::{self, Failure};
use super::deliver::{Courier, Landed, Parcel, Ticket};
use super::metrics::LaneMetrics;
use super::order::{Group, KeyId, Order, Placed};
use super::partition::{Partition, Snapshot};
use super::target::{Maker, Service, Target};
use super::verdict::{self, Failures, Verdict};
use super::window::{self, Limits};

/// Time between looks whether a destination that a newer workspace knows has appeared in ours.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Keys that a destination that is down must have waiting for its probes before reading stops: with none but failed ones a
/// healthy destination could look down for ever.
const PROBE_CANDIDATES: usize = 16;

/// One delivery that is held.
#[derive(Debug)]
struct Item {
    message: Message,
    bytes: usize,
    target: Group,
    /// Workspace that the processor addressed it under.
    revision: i64,
    arrived: Instant,
    sent: u32,
    failed: u32,
    first_failure: Option<FirstFailure>,
}

impl Placed for Item {
    fn place(&self) -> i64 {
        self.message.offset
    }
}

#[derive(Debug, Clone, Copy)]
struct FirstFailure {
    at_ms: UnixMs,
    at: Instant,
    /// How long the destination had been down by then.
    down: Duration,
}

/// What the desk is made with.
pub(super) struct DeskParts {
    pub(super) lane: Arc<str>,
    pub(super) maker: Maker,
    pub(super) courier: Courier,
    pub(super) workspace: Arc<Workspace>,
    pub(super) dead_letters: Arc<str>,
    pub(super) instance: String,
    pub(super) metrics: LaneMetrics,
    pub(super) schemas: Schemas,
    pub(super) clock: Arc<dyn Clock>,
}

/// A lane's memory.
pub(super) struct Desk {
    parts: DeskParts,
    limits: Limits,
    uncommitted_max: u64,
    unknown_wait: Duration,
    metadata_bytes_max: usize,
    /// Index is the group in `order`; the first stands for what cannot be read.
    targets: Vec<Target>,
    by_id: HashMap<Arc<str>, Group>,
    order: Order<Item>,
    partitions: BTreeMap<i32, Partition>,
    flights: HashMap<KeyId, AbortHandle>,
    assignments: u64,
    /// Ended and handed over to a commit whose outcome is not known yet.
    committing: u64,
    /// Which target is served first, in turns.
    turn: usize,
}

impl Desk {
    pub(super) fn new(parts: DeskParts) -> Self {
        let config = &parts.maker.config.0;
        Self {
            limits: Limits::of(config),
            uncommitted_max: config.uncommitted_records_max,
            unknown_wait: Duration::from_millis(config.unknown_destination_wait_ms),
            metadata_bytes_max: crate::kafka::offsets::METADATA_BYTES_MAX,
            targets: vec![Target::unreadable(&parts.maker)],
            by_id: HashMap::new(),
            order: Order::default(),
            partitions: BTreeMap::new(),
            flights: HashMap::new(),
            assignments: 0,
            committing: 0,
            turn: 0,
            parts,
        }
    }

    /// Works with `workspace` from now on.
    pub(super) fn refresh(&mut self, workspace: Arc<Workspace>) {
        for (group, target) in self.targets.iter_mut().enumerate().skip(1) {
            if target.refresh(&workspace, &self.parts.maker) {
                self.order.release_all(group);
            }
        }
        self.parts.workspace = workspace;
    }

    /// How ledger entries name their schema.
    pub(super) fn ledger_framing(&self) -> Framing {
        self.parts.schemas.framing(SchemaName::LedgerEntry)
    }

    /// Revision of the workspace in force.
    pub(super) fn revision(&self) -> i64 {
        self.parts.workspace.revision
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Deliveries under way.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Records that ended and may not be committed: after a crash, those are delivered again.
    fn uncommitted(&self) -> u64 {
        self.committing + self.partitions.values().map(Partition::ended).sum::<u64>()
    }

    /// Whether a commit should not wait for its time.
    pub(super) fn is_commit_urgent(&self, dead_letters_max: usize) -> bool {
        let dead: usize = self.partitions.values().map(Partition::dead_letters).sum();
        let ended: u64 = self.partitions.values().map(Partition::ended).sum();
        dead >= dead_letters_max || ended >= self.uncommitted_max / 2
    }

    /// Whether anything ended since the last commit.
    pub(super) fn has_ended(&self) -> bool {
        self.partitions.values().any(|p| p.ended() > 0)
    }

    /// Takes records over.
    ///
    /// # Errors
    /// When only the schema registry knows what one of them is, and does not say. None may overtake it.
    pub(super) fn take(&mut self, messages: Vec<Message>) -> Result<(), RegistryError> {
        let arrived = Instant::now();
        for message in messages {
            let Some(partition) = self.partitions.get_mut(&message.partition) else {
                continue;
            };
            let bytes = message.size();
            if partition.is_leaving {
                continue;
            }
            if !partition.see(message.offset, bytes) {
                self.parts.metrics.skipped.inc();
                continue;
            }
            let payload = message.payload.as_deref().unwrap_or_default();
            let admitted = self.parts.schemas.admit(SchemaName::Delivery, payload)?;
            let decoded =
                admitted.and_then(|()| codec::decode_addressed(AddressedKind::Delivery, payload));
            let (target, revision) = match decoded {
                Ok(delivery) => {
                    let id = delivery.destination_id.as_ref();
                    let known = self.by_id.get(id).copied();
                    let target = known.unwrap_or_else(|| {
                        add_target(&mut self.targets, &mut self.by_id, &self.parts, id)
                    });
                    (target, delivery.processed_revision)
                }
                Err(_) => (0, 0),
            };
            let item = Item {
                bytes,
                target,
                revision,
                arrived,
                sent: 0,
                failed: 0,
                first_failure: None,
                message,
            };
            let key = key_of(&item);
            self.order.push(key, target, item.message.partition, item);
        }
        Ok(())
    }

    /// Starts what may be started.
    pub(super) fn start(&mut self, now: Instant) {
        let held_back = self.uncommitted() + self.flights.len() as u64;
        let mut budget = self.uncommitted_max.saturating_sub(held_back);
        let count = self.targets.len();
        self.turn = (self.turn + 1) % count;
        for n in 0..count {
            let group = (self.turn + n) % count;
            match &self.targets[group].service {
                Service::Ready(service) => {
                    let service = Arc::clone(service);
                    self.start_ready(group, &service, &mut budget, now);
                }
                Service::Gone | Service::Unreadable => self.end_unsent(group, &mut budget, now),
                Service::Unusable(_) => {}
            }
        }
    }

    fn start_ready(
        &mut self,
        group: Group,
        service: &Arc<dyn Destination>,
        budget: &mut u64,
        now: Instant,
    ) {
        while *budget > 0 {
            let target = &mut self.targets[group];
            let started = {
                let admit = admission(&mut self.partitions, self.metadata_bytes_max);
                match target.breaker.allowance(target.concurrency, now) {
                    Allowance::Run(most) if self.order.in_flight(group) < most => {
                        self.order.start(group, now, admit)
                    }
                    Allowance::Probe => {
                        let started = self.order.start_probe(group, now, admit);
                        if started.is_some() {
                            target.breaker.probe_started();
                        }
                        started
                    }
                    Allowance::Run(_) | Allowance::Wait(_) => None,
                }
            };
            let Some((key, item)) = started else {
                return;
            };
            let Some(partition) = self.partitions.get_mut(&item.message.partition) else {
                return;
            };
            *budget -= 1;
            item.sent = item.sent.saturating_add(1);
            partition.in_flight += 1;
            let flight = self.parts.courier.send(Parcel {
                ticket: Ticket {
                    key,
                    partition: item.message.partition,
                    assignment: partition.epoch,
                    epoch: target.breaker.epoch(),
                },
                payload: item.message.payload.clone().unwrap_or_default(),
                service: Arc::clone(service),
                number: item.sent,
                timeout: target.timeout,
                metrics: target.metrics.clone(),
            });
            self.flights.insert(key, flight);
        }
    }

    /// Ends, in order, what is not sent at all: records that cannot be read, and those for a destination that is gone.
    fn end_unsent(&mut self, group: Group, budget: &mut u64, now: Instant) {
        while *budget > 0 {
            let started = {
                let admit = admission(&mut self.partitions, self.metadata_bytes_max);
                self.order.start(group, now, admit)
            };
            let Some((key, item)) = started else {
                return;
            };
            if group != 0 && self.parts.workspace.revision < item.revision {
                // The processor has seen a workspace that we have not: the destination may be a new one.
                if now.duration_since(item.arrived) < self.unknown_wait {
                    if let Some(partition) = self.partitions.get_mut(&item.message.partition) {
                        partition.stop(item.message.offset);
                    }
                    self.order.retry(key, now + LOOK_AGAIN);
                    continue;
                }
            }
            *budget -= 1;
            if group != 0 {
                let gone = Ending::Filtered(FilterReason::DestinationGone);
                self.end(key, gone, None);
                continue;
            }
            let payload = item.message.payload.as_deref().unwrap_or_default();
            let read = self
                .parts
                .schemas
                .check(SchemaName::Delivery, payload)
                .and_then(|()| codec::decode_addressed(AddressedKind::Delivery, payload));
            if let Err(error) = read {
                let error = DeliveryError::Undecodable(error);
                self.end_dead(key, DeadLetterReason::Undecodable, &error);
            }
        }
    }

    /// Takes in what came of an attempt.
    pub(super) fn land(&mut self, landed: Landed, now: Instant) {
        let ticket = landed.ticket;
        let Some(partition) = self.partitions.get_mut(&ticket.partition) else {
            return;
        };
        if partition.epoch != ticket.assignment {
            return;
        }
        let Some(item) = self.order.in_flight_mut(ticket.key) else {
            return;
        };
        partition.in_flight -= 1;
        partition.stop(item.message.offset);
        self.flights.remove(&ticket.key);
        let is_leaving = partition.is_leaving;
        let group = item.target;
        let target = &mut self.targets[group];
        let sign = landed
            .outcome
            .as_ref()
            .map_or(super::breaker::Sign::None, verdict::sign);
        if let Some(change) = target.breaker.observe(ticket.epoch, ticket.key, sign, now) {
            target.announce(change, now);
            if change == Change::Closed {
                self.order.release_all(group);
            }
        }
        let Some(outcome) = landed.outcome else {
            item_not_sent(&mut self.order, ticket.key, is_leaving);
            return;
        };
        self.judge(ticket.key, &outcome, is_leaving, now);
    }

    fn judge(
        &mut self,
        key: KeyId,
        outcome: &Result<Accepted, DeliveryError>,
        is_leaving: bool,
        now: Instant,
    ) {
        let Some(item) = self.order.in_flight_mut(key) else {
            return;
        };
        let target = &self.targets[item.target];
        let failures = match outcome {
            Ok(_) => Failures {
                count: 0,
                lasting: Duration::ZERO,
            },
            Err(_) => {
                item.failed_again(now, self.parts.clock.now_ms(), target.breaker.down_for(now))
            }
        };
        let is_open = !target.breaker.is_closed();
        match (
            verdict::decide(outcome, failures, is_open, &target.patience),
            outcome,
        ) {
            (Verdict::End(ending), _) => self.end(key, ending, None),
            (Verdict::DeadLetter(reason), Err(error)) => self.end_dead(key, reason, error),
            // A successor tries it; nothing of it is left here.
            (Verdict::Retry(_), _) if is_leaving => drop(self.order.finish(key)),
            (Verdict::Retry(wait), _) => self.order.retry(key, now + wait),
            (Verdict::DeadLetter(_), Ok(_)) => {
                debug_assert!(false, "a delivery that succeeded is no dead letter");
            }
        }
    }

    fn end_dead(&mut self, key: KeyId, reason: DeadLetterReason, error: &DeliveryError) {
        let now_ms = self.parts.clock.now_ms();
        let Some(item) = self.order.in_flight_mut(key) else {
            return;
        };
        let failure = Failure {
            reason,
            message: error.to_string(),
            http_status: error.http_status(),
            attempts: item.sent,
            first_failed_at: item.first_failure.map_or(now_ms, |f| f.at_ms),
            last_failed_at: now_ms,
        };
        self.end(key, Ending::DeadLettered(reason), Some(failure));
    }

    fn end(&mut self, key: KeyId, ending: Ending, failure: Option<Failure>) {
        let Some(item) = self.order.finish(key) else {
            return;
        };
        let Some(partition) = self.partitions.get_mut(&item.message.partition) else {
            return;
        };
        let target = &self.targets[item.target];
        target.metrics.ended(ending);
        let offset = item.message.offset;
        let dead_letter = failure.map(|failure| {
            let topic = &self.parts.dead_letters;
            dead_letter::record(topic, item.message, failure, &self.parts.instance)
        });
        partition.end(offset, item.bytes, &target.id, ending, dead_letter);
    }

    /// Takes what ended since the last commit, of the partitions that `of` names. They count as uncommitted until
    /// [`settle`](Desk::settle).
    pub(super) fn snapshots(&mut self, of: impl Fn(i32) -> bool) -> Vec<Snapshot> {
        let most = self.metadata_bytes_max;
        let chosen = self.partitions.iter_mut().filter(|(n, _)| of(**n));
        let snapshots: Vec<Snapshot> = chosen.filter_map(|(_, p)| p.snapshot(most)).collect();
        self.committing += snapshots.iter().map(Snapshot::records).sum::<u64>();
        for snapshot in snapshots.iter().filter(|snapshot| snapshot.is_cut) {
            tracing::error!(partition = %snapshot.of, "more is done out of order than a commit's metadata can say, which should never be; after a crash the rest is delivered again");
            self.parts.metrics.progress_cut.inc();
        }
        snapshots
    }

    /// Takes note of what became of a snapshot.
    pub(super) fn settle(&mut self, snapshot: Snapshot, is_committed: bool) {
        self.committing -= snapshot.records();
        let known = self.partitions.get_mut(&snapshot.of.partition);
        // Of a partition that was taken away meanwhile the successor knows more.
        if let Some(partition) = known.filter(|p| p.epoch == snapshot.epoch) {
            partition.settled(snapshot, is_committed);
        }
    }

    /// Takes partitions over, with what the group has committed for them.
    pub(super) fn assign(&mut self, partitions: &[Committed]) {
        for committed in partitions {
            self.assignments += 1;
            let number = committed.topic_partition.partition;
            let fresh = Partition::new(committed, self.assignments);
            if self.partitions.insert(number, fresh).is_some() {
                self.forget(number);
            }
        }
    }

    /// Starts nothing more of a partition; what is in flight may end.
    pub(super) fn leave(&mut self, partition: i32) {
        if let Some(known) = self.partitions.get_mut(&partition) {
            known.is_leaving = true;
            self.order.keep_in_flight_only(partition);
        }
    }

    /// Deliveries of partitions that are being taken away which are still under way.
    pub(super) fn in_flight_leaving(&self) -> usize {
        let leaving = self.partitions.values().filter(|p| p.is_leaving);
        leaving.map(|p| p.in_flight).sum()
    }

    /// Gives a partition up with all that is in memory of it.
    pub(super) fn release(&mut self, partition: i32) {
        self.partitions.remove(&partition);
        self.forget(partition);
    }

    fn forget(&mut self, partition: i32) {
        for item in self.order.remove_partition(partition) {
            // The connection closes, which is the most that can be done about a request on its way.
            if let Some(flight) = self.flights.remove(&key_of(&item)) {
                flight.abort();
            }
        }
    }

    /// Which partitions to pause and to resume now.
    pub(super) fn flow(&mut self) -> (Vec<TopicPartition>, Vec<TopicPartition>) {
        let is_down = self.is_down();
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        let mut fullest = 0;
        for partition in self.partitions.values_mut() {
            let fullness = window::fullness(&partition.window(), &self.limits);
            fullest = fullest.max(fullness);
            let wanted = is_down || window::is_paused(fullness, partition.is_paused);
            if wanted != partition.is_paused {
                partition.is_paused = wanted;
                let list = if wanted { &mut pause } else { &mut resume };
                list.push(partition.of.clone());
            }
        }
        self.parts
            .metrics
            .window_use_percent
            .set(i64::try_from(fullest).unwrap_or(i64::MAX));
        (pause, resume)
    }

    /// Whether to read no further because the lane's only destination is down. Others of the lane would starve.
    fn is_down(&self) -> bool {
        let [_, only] = self.targets.as_slice() else {
            return false;
        };
        let was_paused = self.partitions.values().any(|p| p.is_paused);
        let waiting = self.order.ready(1);
        let enough = if was_paused {
            waiting > 0
        } else {
            waiting >= PROBE_CANDIDATES
        };
        !only.breaker.is_closed() && enough
    }

    /// When something falls due by itself: a key's wait ends, a probe may go out.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let releases = (0..self.targets.len()).filter_map(|group| {
            let breaker = &self.targets[group].breaker;
            match breaker.allowance(1, now) {
                Allowance::Run(_) => self.order.next_release(group),
                Allowance::Wait(at) => at,
                Allowance::Probe => None,
            }
        });
        releases.min()
    }

    /// Sets the gauges.
    pub(super) fn observe(&self) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        for (group, target) in self.targets.iter().enumerate().skip(1) {
            let metrics = &target.metrics;
            metrics.in_flight.set(gauge(self.order.in_flight(group)));
            metrics.blocked_keys.set(gauge(self.order.blocked(group)));
            metrics.held_keys.set(gauge(self.order.held(group)));
        }
        let partitions = self.partitions.values();
        let (mut records, mut bytes, mut paused) = (0, 0, 0);
        for partition in partitions {
            records += partition.held_records;
            bytes += partition.held_bytes;
            paused += usize::from(partition.is_paused);
        }
        let metrics = &self.parts.metrics;
        metrics.window_records.set(gauge(records));
        metrics.window_bytes.set(gauge(bytes));
        metrics.paused_partitions.set(gauge(paused));
        metrics.partitions.set(gauge(self.partitions.len()));
    }

    /// The lane's name.
    pub(super) fn lane(&self) -> &str {
        &self.parts.lane
    }
}

impl Drop for Desk {
    /// Whatever ends the lane, its requests end with it.
    fn drop(&mut self) {
        for flight in self.flights.values() {
            flight.abort();
        }
    }
}

impl Item {
    fn failed_again(&mut self, now: Instant, now_ms: UnixMs, down: Duration) -> Failures {
        self.failed = self.failed.saturating_add(1);
        let first = *self.first_failure.get_or_insert(FirstFailure {
            at_ms: now_ms,
            at: now,
            down,
        });
        let down_since = down.saturating_sub(first.down);
        Failures {
            count: self.failed,
            lasting: now
                .saturating_duration_since(first.at)
                .saturating_sub(down_since),
        }
    }
}

/// What may start: see [`Partition::admit`].
fn admission(
    partitions: &mut BTreeMap<i32, Partition>,
    metadata_bytes_max: usize,
) -> impl FnMut(&Item) -> bool {
    move |item| {
        let partition = partitions.get_mut(&item.message.partition);
        partition.is_none_or(|p| p.admit(item.message.offset, metadata_bytes_max))
    }
}

fn item_not_sent(order: &mut Order<Item>, key: KeyId, is_leaving: bool) {
    if is_leaving {
        order.finish(key);
    } else if let Some(item) = order.in_flight_mut(key) {
        item.sent = item.sent.saturating_sub(1);
        order.put_back(key);
    }
}

fn add_target(
    targets: &mut Vec<Target>,
    by_id: &mut HashMap<Arc<str>, Group>,
    parts: &DeskParts,
    id: &str,
) -> Group {
    let id: Arc<str> = id.into();
    let group = targets.len();
    targets.push(Target::of(Arc::clone(&id), &parts.workspace, &parts.maker));
    by_id.insert(id, group);
    group
}

/// Order is kept within a destination, a partition and a Kafka key. A record without a key has no order to keep.
fn key_of(item: &Item) -> KeyId {
    use twox_hash::XxHash3_128 as Hash;
    let place = (item.target as u64) << 32 | u64::from(item.message.partition.cast_unsigned());
    KeyId(match &item.message.key {
        Some(key) => Hash::oneshot_with_seed(place, key),
        None => Hash::oneshot_with_seed(!place, &item.message.offset.to_be_bytes()),
    })
}
