//! Which deliveries may go now: strict order within a key, none between keys. Pure.
//!
//! Every ordering key has a queue; only its head may be in flight. Keys of one destination form a *group*, which is served
//! in turns: a key that was served goes to the back.
//!
//! ```text
//!   group "webhook"                       ready ──▶ [b] [d]          start() takes b
//!     a:  a1* a2 a3      in flight        blocked   c until 12:00:05
//!     b:  b1 b2          ready
//!     c:  c1 c2          blocked          A failure of c1 holds c2 and nothing else.
//!     d:  d1             ready
//!     e:  e1             held            until there is room to say that it is done
//! ```
//!
//! A head leaves by [`finish`](Order::finish) alone (delivered, filtered, dead-lettered); [`retry`](Order::retry) keeps it
//! in front of its key and blocks the key for a while. The caller carries time, limits and what an outcome means.
//!
//! The caller may refuse a head that is about to start. Its key is then *held*, and asked for again before all others, the
//! lowest place of each partition first. Whoever never refuses the lowest of a partition never holds all of it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Instant;

/// An ordering key within its destination and partition, hashed to 128 bits. Two keys that met in one hash would wait for
/// each other, nothing worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u128);

/// Number of a group, as given by the caller from 0 upwards.
pub type Group = usize;

/// What a delivery has.
pub trait Placed {
    /// Its place in its partition; later ones of a key have higher ones.
    fn place(&self) -> i64;
}

/// Queues of keys. `T` is one delivery.
#[derive(Debug)]
pub struct Order<T> {
    keys: HashMap<KeyId, Key<T>, BuildHasherDefault<Passed>>,
    groups: Vec<Lists>,
}

#[derive(Debug)]
struct Key<T> {
    group: Group,
    partition: i32,
    state: State,
    head: T,
    /// Behind the head. Most keys have one delivery waiting, and then this allocates nothing.
    rest: VecDeque<T>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Held,
    InFlight,
    Blocked { until: Instant },
}

#[derive(Debug, Default)]
struct Lists {
    ready: VecDeque<KeyId>,
    /// By partition and place.
    held: BTreeSet<(i32, i64, KeyId)>,
    /// The partition whose held keys were served last.
    held_turn: i32,
    blocked: BTreeSet<(Instant, KeyId)>,
    in_flight: usize,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self {
            keys: HashMap::default(),
            groups: Vec::new(),
        }
    }
}

impl<T: Placed> Order<T> {
    /// Adds a delivery behind all others of its key. `group` and `partition` are the key's.
    pub fn push(&mut self, key: KeyId, group: Group, partition: i32, item: T) {
        if let Some(known) = self.keys.get_mut(&key) {
            known.rest.push_back(item);
            return;
        }
        let fresh = Key {
            group,
            partition,
            state: State::Ready,
            head: item,
            rest: VecDeque::new(),
        };
        self.keys.insert(key, fresh);
        self.lists(group).ready.push_back(key);
    }

    /// Puts the next delivery of `group` in flight that `admit` lets go: of the keys that are held, else the head of the key
    /// that has been ready longest. What `admit` lets go is started. `None` when every key is in flight, blocked or held.
    pub fn start(
        &mut self,
        group: Group,
        now: Instant,
        mut admit: impl FnMut(&T) -> bool,
    ) -> Option<(KeyId, &mut T)> {
        self.release(group, Some(now));
        let key = self.next_waiting(group, &mut admit)?;
        self.fly(key)
    }

    /// Like [`start`](Order::start), but when nothing else may go takes the key whose block ends first, however far that
    /// is: to ask a destination that is down whether it is back.
    pub fn start_probe(
        &mut self,
        group: Group,
        now: Instant,
        mut admit: impl FnMut(&T) -> bool,
    ) -> Option<(KeyId, &mut T)> {
        self.release(group, Some(now));
        let mut key = self.next_waiting(group, &mut admit);
        while key.is_none() {
            let (_, blocked) = self.groups[group].blocked.pop_first()?;
            // One that is refused waits no longer for its time: while a destination is down, time only says who is first.
            key = self.admitted(blocked, &mut admit);
        }
        self.fly(key?)
    }

    fn next_waiting(&mut self, group: Group, admit: &mut impl FnMut(&T) -> bool) -> Option<KeyId> {
        if let Some(key) = self.next_held(group, admit) {
            return Some(key);
        }
        while let Some(ready) = self.groups[group].ready.pop_front() {
            if let Some(key) = self.admitted(ready, admit) {
                return Some(key);
            }
        }
        None
    }

    /// Asks for the lowest held key of each partition, the partitions in turns.
    fn next_held(&mut self, group: Group, admit: &mut impl FnMut(&T) -> bool) -> Option<KeyId> {
        let lists = &mut self.groups[group];
        let last = lists.held_turn;
        let lowest = (i64::MIN, KeyId(0));
        let mut wrapped = false;
        let mut from = last.checked_add(1).unwrap_or(i32::MIN);
        loop {
            let next = lists.held.range((from, lowest.0, lowest.1)..).next();
            match next.copied() {
                Some(found @ (partition, _, key)) if !wrapped || partition <= last => {
                    if self.keys.get(&key).is_some_and(|k| admit(&k.head)) {
                        lists.held.remove(&found);
                        lists.held_turn = partition;
                        return Some(key);
                    }
                    from = partition.checked_add(1)?;
                }
                _ if wrapped => return None,
                _ => {
                    wrapped = true;
                    from = i32::MIN;
                }
            }
        }
    }

    /// The key, if its head may go; else it is held.
    fn admitted(&mut self, key: KeyId, admit: &mut impl FnMut(&T) -> bool) -> Option<KeyId> {
        let known = self.keys.get_mut(&key)?;
        if admit(&known.head) {
            return Some(key);
        }
        known.state = State::Held;
        let held = (known.partition, known.head.place(), key);
        self.groups[known.group].held.insert(held);
        None
    }

    fn fly(&mut self, key: KeyId) -> Option<(KeyId, &mut T)> {
        let known = self.keys.get_mut(&key)?;
        known.state = State::InFlight;
        self.groups[known.group].in_flight += 1;
        Some((key, &mut known.head))
    }

    /// The delivery of `key` that is in flight; `None` when its partition was taken away meanwhile.
    pub fn in_flight_mut(&mut self, key: KeyId) -> Option<&mut T> {
        let known = self.keys.get_mut(&key)?;
        (known.state == State::InFlight).then_some(&mut known.head)
    }

    /// Ends the delivery of `key` that is in flight; the next of the key becomes ready.
    pub fn finish(&mut self, key: KeyId) -> Option<T> {
        let known = self.landed(key)?;
        let Some(next) = known.rest.pop_front() else {
            return self.keys.remove(&key).map(|k| k.head);
        };
        known.state = State::Ready;
        let group = known.group;
        let done = std::mem::replace(&mut known.head, next);
        self.lists(group).ready.push_back(key);
        Some(done)
    }

    /// Keeps the delivery of `key` that was in flight in front, and the whole key still until `until`.
    pub fn retry(&mut self, key: KeyId, until: Instant) {
        if let Some(known) = self.landed(key) {
            known.state = State::Blocked { until };
            let group = known.group;
            self.lists(group).blocked.insert((until, key));
        }
    }

    /// Takes the delivery of `key` back as if it had not been started; its key is served next.
    pub fn put_back(&mut self, key: KeyId) {
        if let Some(known) = self.landed(key) {
            known.state = State::Ready;
            let group = known.group;
            self.lists(group).ready.push_front(key);
        }
    }

    /// The key, if it is in flight; then it is not any more.
    fn landed(&mut self, key: KeyId) -> Option<&mut Key<T>> {
        let known = self.keys.get_mut(&key)?;
        if known.state != State::InFlight {
            return None;
        }
        self.groups[known.group].in_flight -= 1;
        Some(known)
    }

    /// Makes every blocked key of `group` ready, in the order in which their blocks would have ended.
    pub fn release_all(&mut self, group: Group) {
        self.release(group, None);
    }

    /// Makes keys ready whose block has ended by `now` (all, without one).
    fn release(&mut self, group: Group, now: Option<Instant>) {
        self.lists(group);
        let lists = &mut self.groups[group];
        while let Some(&(until, key)) = lists.blocked.first() {
            if now.is_some_and(|now| until > now) {
                break;
            }
            lists.blocked.pop_first();
            lists.ready.push_back(key);
            if let Some(known) = self.keys.get_mut(&key) {
                known.state = State::Ready;
            }
        }
    }

    /// Forgets everything of `partition`, in flight or not, and returns it, each key's in order.
    pub fn remove_partition(&mut self, partition: i32) -> Vec<T> {
        self.take_out(partition, |_| false)
    }

    /// Forgets what `partition` has waiting, but leaves what is in flight to end.
    pub fn keep_in_flight_only(&mut self, partition: i32) -> Vec<T> {
        let mut removed = Vec::new();
        for key in self.keys.values_mut().filter(|k| k.partition == partition) {
            removed.extend(key.rest.drain(..));
        }
        removed.extend(self.take_out(partition, |state| state == State::InFlight));
        removed
    }

    /// Takes the keys of `partition` out, but those in a state that stays.
    fn take_out(&mut self, partition: i32, stays: impl Fn(State) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        let gone = self
            .keys
            .extract_if(|_, key| key.partition == partition && !stays(key.state));
        for (id, key) in gone {
            let lists = &mut self.groups[key.group];
            match key.state {
                State::Ready => {}
                State::Held => {
                    lists.held.remove(&(key.partition, key.head.place(), id));
                }
                State::InFlight => lists.in_flight -= 1,
                State::Blocked { until } => {
                    lists.blocked.remove(&(until, id));
                }
            }
            removed.push(key.head);
            removed.extend(key.rest);
        }
        for lists in &mut self.groups {
            lists.ready.retain(|id| self.keys.contains_key(id));
        }
        removed
    }

    /// Keys that could be started at once.
    pub fn ready(&self, group: Group) -> usize {
        self.groups.get(group).map_or(0, |l| l.ready.len())
    }

    /// Keys that were refused and wait to be asked for again.
    pub fn held(&self, group: Group) -> usize {
        self.groups.get(group).map_or(0, |l| l.held.len())
    }

    /// Keys that wait after a failure.
    pub fn blocked(&self, group: Group) -> usize {
        self.groups.get(group).map_or(0, |l| l.blocked.len())
    }

    /// Deliveries under way.
    pub fn in_flight(&self, group: Group) -> usize {
        self.groups.get(group).map_or(0, |l| l.in_flight)
    }

    /// When the next block of `group` ends.
    pub fn next_release(&self, group: Group) -> Option<Instant> {
        let lists = self.groups.get(group)?;
        lists.blocked.first().map(|(until, _)| *until)
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn lists(&mut self, group: Group) -> &mut Lists {
        if group >= self.groups.len() {
            self.groups.resize_with(group + 1, Lists::default);
        }
        &mut self.groups[group]
    }
}

/// The keys are hashes already.
#[derive(Debug, Default)]
pub struct Passed(u64);

impl Hasher for Passed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, value: u128) {
        // Folding keeps both halves: which bits a map looks at is its own business.
        self.0 = (value >> 64) as u64 ^ value as u64;
    }
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
