//! Which events of a partition were accepted before: a window of ids in memory, exact over restarts.
//!
//! ```text
//!            ◀──────────── window (1 h) ────────────▶ now
//!   bucket   │ 12:00 │ 12:05 │ 12:10 │ …  │ 12:55 │ 13:00 ◀── ids of the transaction under way go here too,
//!   goes ◀───┘                                              and are taken out again if it does not commit
//! ```
//!
//! An event's key is 128 bits of hash; its partition is fixed by its ordering key, so partitions know nothing of each other.
//! Time is the processor's, as in RudderStack: an id is remembered from the moment it was accepted. The ids that a
//! transaction accepts are also one record of the topic `seen` in that transaction, which is what [`super::seen`] reads
//! back when the partition moves or the process restarts; what is in memory is therefore never ahead of what is committed,
//! but for the transaction under way.
//!
//! Decisions are made one transaction at a time and in the order of the log, after the transaction before has ended. So no
//! decision ever rests on an outcome that may still change, and an abort takes back the ids of one transaction only.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use smallvec::SmallVec;

use crate::clock::UnixMs;
use crate::config::DedupConfig;
use crate::event::{Envelope, event_key};

/// The key under which an event is remembered.
///
/// RudderStack's is the message id with the job run; ours adds the source, so that two sources cannot silence each other,
/// and the replay, so that a deliberate replay is not taken for a duplicate of what it replays.
pub fn key(envelope: &Envelope<'_>) -> u128 {
    if envelope.job_run_id.is_empty() && envelope.replay_id.is_empty() {
        return event_key(&envelope.source_id, &envelope.message_id);
    }
    let id = [
        &envelope.message_id,
        &envelope.job_run_id,
        &envelope.replay_id,
    ]
    .map(AsRef::as_ref)
    .join("\0");
    event_key(&envelope.source_id, &id)
}

/// The keys are hashes already.
#[derive(Debug, Default, Clone, Copy)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

type Keys = HashSet<u128, BuildHasherDefault<Identity>>;

/// What was accepted in one stretch of time.
#[derive(Debug)]
struct Bucket {
    /// Time divided by the length of a bucket.
    number: i64,
    keys: Keys,
}

impl Bucket {
    /// The table behind a set of capacity `c` has the next power of two above 8/7 `c` slots, of a key and a byte each.
    fn memory_bytes(&self) -> usize {
        match self.keys.capacity() {
            0 => 0,
            capacity => (capacity * 8 / 7).next_power_of_two() * (size_of::<u128>() + 1),
        }
    }
}

/// The window of one partition.
#[derive(Debug, Default)]
pub struct Window {
    /// Oldest first.
    buckets: VecDeque<Bucket>,
    /// Accepted by the transaction under way, in order; they are in the newest bucket too.
    pending: Vec<u128>,
    /// Number of the youngest bucket that memory made us forget early.
    forgotten_early: Option<i64>,
}

impl Window {
    /// Remembers `key`, accepted at `at` and committed. For reading back: times must not go backwards by more than the
    /// window.
    pub fn remember(&mut self, at: UnixMs, key: u128, bucket_ms: i64) {
        self.bucket(at.div_euclid(bucket_ms)).keys.insert(key);
    }

    /// The bucket `number`, or the newest if that is younger: a clock that was set back makes no new old bucket.
    fn bucket(&mut self, number: i64) -> &mut Bucket {
        if self.buckets.back().is_none_or(|b| b.number < number) {
            self.buckets.push_back(Bucket {
                number,
                keys: Keys::default(),
            });
        }
        self.buckets
            .back_mut()
            .expect("a bucket was just pushed if there was none")
    }

    fn accept(&mut self, key: u128) -> bool {
        let Some((newest, older)) = self.buckets.make_contiguous().split_last_mut() else {
            unreachable!("begin makes a bucket for every partition")
        };
        // Duplicates are mostly young: a client that retries.
        if older.iter().rev().any(|bucket| bucket.keys.contains(&key)) || !newest.keys.insert(key) {
            return false;
        }
        self.pending.push(key);
        true
    }

    fn abort(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if let Some(newest) = self.buckets.back_mut() {
            for key in pending {
                newest.keys.remove(&key);
            }
        }
    }

    /// How many ids it remembers.
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.keys.len()).sum()
    }

    /// Whether it remembers nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory it takes.
    pub fn memory_bytes(&self) -> usize {
        self.buckets.iter().map(Bucket::memory_bytes).sum()
    }

    /// Forgets the oldest bucket before its time; false when only the newest is left.
    pub fn forget_oldest(&mut self) -> bool {
        if self.buckets.len() < 2 {
            return false;
        }
        let oldest = self.buckets.pop_front().map(|bucket| bucket.number);
        self.forgotten_early = self.forgotten_early.max(oldest);
        true
    }
}

/// The windows of the partitions that are ours.
#[derive(Debug)]
pub struct Dedup {
    window_ms: i64,
    bucket_ms: i64,
    memory_bytes_max: usize,
    partitions: HashMap<i32, Window>,
}

impl Dedup {
    /// Without partitions.
    pub fn new(config: &DedupConfig) -> Self {
        Self {
            window_ms: i64::try_from(config.window_ms).unwrap_or(i64::MAX),
            bucket_ms: i64::try_from(config.bucket_ms).unwrap_or(i64::MAX).max(1),
            memory_bytes_max: config.memory_bytes_max,
            partitions: HashMap::new(),
        }
    }

    /// Takes over a partition with what was read back for it.
    pub fn adopt(&mut self, partition: i32, window: Window) {
        self.partitions.insert(partition, window);
        self.keep_within_memory();
    }

    /// Drops a partition that went elsewhere.
    pub fn forget(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// Begins a transaction at `now`: buckets that left the window go.
    pub fn begin(&mut self, now: UnixMs) {
        let number = now.div_euclid(self.bucket_ms);
        let horizon = now.saturating_sub(self.window_ms);
        for window in self.partitions.values_mut() {
            while window.buckets.len() > 1
                && window.buckets[0]
                    .number
                    .saturating_add(1)
                    .saturating_mul(self.bucket_ms)
                    <= horizon
            {
                window.buckets.pop_front();
            }
            window.bucket(number);
        }
    }

    /// Whether the event is new; if so it is remembered, for good once the transaction has committed. A partition that was
    /// not adopted remembers nothing.
    pub fn accept(&mut self, partition: i32, key: u128) -> bool {
        self.partitions
            .get_mut(&partition)
            .is_none_or(|window| window.accept(key))
    }

    /// What the transaction under way accepted of `partition`, in order.
    pub fn accepted(&self, partition: i32) -> &[u128] {
        self.partitions
            .get(&partition)
            .map_or(&[], |window| &window.pending)
    }

    /// The transaction has committed.
    pub fn commit(&mut self) {
        for window in self.partitions.values_mut() {
            window.pending.clear();
        }
        self.keep_within_memory();
    }

    /// The transaction has not committed: nothing of it was ever seen.
    pub fn abort(&mut self) {
        for window in self.partitions.values_mut() {
            window.abort();
        }
    }

    /// How far back every partition remembers at `now`, in milliseconds: the configured window unless memory was short.
    pub fn window_ms(&self, now: UnixMs) -> i64 {
        let forgotten = self.partitions.values().filter_map(|w| w.forgotten_early);
        forgotten.max().map_or(self.window_ms, |number| {
            let remembered_from = number.saturating_add(1).saturating_mul(self.bucket_ms);
            now.saturating_sub(remembered_from).clamp(0, self.window_ms)
        })
    }

    /// Ids remembered.
    pub fn len(&self) -> usize {
        self.partitions.values().map(Window::len).sum()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory they take.
    pub fn memory_bytes(&self) -> usize {
        self.partitions.values().map(Window::memory_bytes).sum()
    }

    /// Forgets the oldest buckets of all partitions until the rest fits. The newest ones stay whatever they take: they
    /// hold the transaction under way.
    fn keep_within_memory(&mut self) {
        let mut taken = self.memory_bytes();
        while taken > self.memory_bytes_max {
            let Some(window) = self
                .partitions
                .values_mut()
                .filter(|window| window.buckets.len() > 1)
                .min_by_key(|window| window.buckets[0].number)
            else {
                return;
            };
            taken -= window.buckets[0].memory_bytes();
            window.forget_oldest();
        }
    }
}

/// Packs keys as they lie on `seen`: 16 bytes each, big endian.
pub fn pack(keys: &[u128]) -> Vec<u8> {
    keys.iter().flat_map(|key| key.to_be_bytes()).collect()
}

/// Unpacks a record of `seen`; `None` when its length is no multiple of 16.
pub fn unpack(bytes: &[u8]) -> Option<SmallVec<[u128; 8]>> {
    let (keys, rest) = bytes.as_chunks::<16>();
    rest.is_empty()
        .then(|| keys.iter().map(|key| u128::from_be_bytes(*key)).collect())
}

#[cfg(test)]
#[path = "dedup_tests.rs"]
mod tests;
