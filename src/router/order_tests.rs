use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

impl Placed for &'static str {
    fn place(&self) -> i64 {
        0
    }
}

impl Placed for u32 {
    fn place(&self) -> i64 {
        i64::from(*self)
    }
}

fn key(n: u128) -> KeyId {
    KeyId(n)
}

fn any<T>(_: &T) -> bool {
    true
}

#[test]
fn a_failing_key_does_not_hold_up_others() {
    let now = Instant::now();
    let mut order = Order::default();
    for (k, item) in [(1, "a1"), (1, "a2"), (2, "b1")] {
        order.push(key(k), 0, 0, item);
    }
    let (a, item) = order.start(0, now, any).unwrap();
    assert_eq!(*item, "a1");
    order.retry(a, now + Duration::from_secs(5));
    let (b, item) = order.start(0, now, any).unwrap();
    assert_eq!(*item, "b1");
    assert!(order.start(0, now, any).is_none(), "a2 waits for a1");
    assert_eq!(order.finish(b), Some("b1"));
    assert_eq!(order.next_release(0), Some(now + Duration::from_secs(5)));
    let (_, item) = order.start(0, now + Duration::from_secs(5), any).unwrap();
    assert_eq!(*item, "a1", "the failed one first");
}

#[test]
fn a_probe_takes_a_ready_key_before_the_one_that_failed() {
    let now = Instant::now();
    let later = now + Duration::from_secs(60);
    let mut order = Order::default();
    order.push(key(1), 0, 0, "failed");
    let (failed, _) = order.start(0, now, any).unwrap();
    order.retry(failed, later);
    order.push(key(2), 0, 0, "fresh");
    assert_eq!(*order.start_probe(0, now, any).unwrap().1, "fresh");
    assert_eq!(*order.start_probe(0, now, any).unwrap().1, "failed");
    assert!(order.start_probe(0, now, any).is_none());
}

#[test]
fn a_revoked_partition_leaves_only_what_is_in_flight() {
    let now = Instant::now();
    let mut order = Order::default();
    for (k, partition, item) in [(1, 0, "a1"), (1, 0, "a2"), (2, 0, "b1"), (3, 1, "c1")] {
        order.push(key(k), 0, partition, item);
    }
    let (a, _) = order.start(0, now, any).unwrap();
    let mut waiting = order.keep_in_flight_only(0);
    waiting.sort_unstable();
    assert_eq!(waiting, ["a2", "b1"]);
    assert_eq!((order.in_flight(0), order.ready(0)), (1, 1));
    assert_eq!(order.finish(a), Some("a1"));
    assert_eq!(order.remove_partition(1), ["c1"]);
    assert!(order.is_empty());
    assert_eq!(
        order.finish(a),
        None,
        "an outcome that comes too late changes nothing"
    );
}

#[test]
fn a_key_that_is_refused_is_asked_for_again_before_others_the_lowest_of_each_partition_in_turns() {
    let now = Instant::now();
    let mut order: Order<u32> = Order::default();
    for (k, partition, item) in [(1, 0, 12), (2, 0, 10), (3, 1, 11), (4, 1, 13), (5, 0, 14)] {
        order.push(key(k), 0, partition, item);
    }
    assert!(order.start(0, now, |_| false).is_none());
    assert_eq!((order.held(0), order.ready(0)), (5, 0));
    order.push(key(6), 0, 0, 15);
    let asked = Cell::new(Vec::new());
    let refuse_low = |item: &u32| {
        let mut list = asked.take();
        list.push(*item);
        asked.set(list);
        *item >= 15
    };
    assert_eq!(*order.start(0, now, refuse_low).unwrap().1, 15);
    let mut first = asked.take();
    first.sort_unstable();
    assert_eq!(first, [10, 11, 15], "of each partition only the lowest");
    assert_eq!(order.remove_partition(0).len(), 4);
    let mut started = Vec::new();
    order.push(key(7), 0, 0, 16);
    while let Some((_, item)) = order.start(0, now, any) {
        started.push(*item);
    }
    assert_eq!(started, [11, 13, 16]);
    assert_eq!((order.held(0), order.in_flight(0)), (0, 3));
}

#[derive(Debug, Clone)]
enum Op {
    Push {
        key: u8,
    },
    Start {
        group: bool,
    },
    Probe {
        group: bool,
    },
    Finish {
        which: u8,
    },
    Retry {
        which: u8,
        wait: u8,
    },
    PutBack {
        which: u8,
    },
    Wait {
        ticks: u8,
    },
    ReleaseAll {
        group: bool,
    },
    Revoke {
        partition: u8,
        all: bool,
    },
    /// From now on only items below it may go.
    Admit {
        below: u32,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0..12u8).prop_map(|key| Op::Push { key }),
        6 => prop::arbitrary::any::<bool>().prop_map(|group| Op::Start { group }),
        1 => prop::arbitrary::any::<bool>().prop_map(|group| Op::Probe { group }),
        4 => prop::arbitrary::any::<u8>().prop_map(|which| Op::Finish { which }),
        2 => (prop::arbitrary::any::<u8>(), 0..20u8).prop_map(|(which, wait)| Op::Retry { which, wait }),
        1 => prop::arbitrary::any::<u8>().prop_map(|which| Op::PutBack { which }),
        2 => (0..10u8).prop_map(|ticks| Op::Wait { ticks }),
        1 => prop::arbitrary::any::<bool>().prop_map(|group| Op::ReleaseAll { group }),
        1 => (0..3u8, prop::arbitrary::any::<bool>()).prop_map(|(partition, all)| Op::Revoke { partition, all }),
        2 => (0..400u32).prop_map(|below| Op::Admit { below }),
    ];
    prop::collection::vec(op, 1..400)
}

/// The model: a list per key, the set in flight, and until when each key is blocked.
#[derive(Default)]
struct Model {
    queues: HashMap<u8, VecDeque<u32>>,
    flying: Vec<u8>,
    blocked: HashMap<u8, Instant>,
    below: u32,
}

fn group_of(key: u8) -> usize {
    usize::from(key % 2)
}

fn partition_of(key: u8) -> i32 {
    i32::from(key % 3)
}

impl Model {
    fn startable(&self, group: usize, now: Option<Instant>) -> HashSet<u8> {
        let waits = |k: &u8| {
            self.blocked
                .get(k)
                .is_some_and(|until| now.is_some_and(|n| *until > n))
        };
        self.queues
            .keys()
            .filter(|k| group_of(**k) == group && !self.flying.contains(k) && !waits(k))
            .filter(|k| self.queues[*k][0] < self.below)
            .copied()
            .collect()
    }

    /// A probe that finds nothing else asks for blocked keys in the order of their times. Those that are refused wait on, but
    /// no longer for their time.
    fn probed(&mut self, group: usize, started: Option<u8>) {
        let place = |k: u8, until: Instant| (until, KeyId(k.into()));
        let up_to = started.and_then(|k| Some(place(k, *self.blocked.get(&k)?)));
        self.blocked.retain(|k, until| {
            group_of(*k) != group || up_to.is_some_and(|up_to| place(*k, *until) > up_to)
        });
    }

    fn pick(&self, which: u8) -> Option<u8> {
        (!self.flying.is_empty()).then(|| self.flying[usize::from(which) % self.flying.len()])
    }

    fn started(&mut self, id: KeyId, item: u32) {
        let k = u8::try_from(id.0).unwrap();
        assert_eq!(
            self.queues[&k].front(),
            Some(&item),
            "not the oldest of its key"
        );
        assert!(!self.flying.contains(&k), "two of one key in flight");
        self.flying.push(k);
        self.blocked.remove(&k);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn order_is_strict_within_a_key_and_no_key_starves(ops in ops()) {
        let mut now = Instant::now();
        let mut order: Order<u32> = Order::default();
        let mut model = Model { below: u32::MAX, ..Model::default() };
        let mut next = 0;
        for op in ops {
            match op {
                Op::Push { key: k } => {
                    order.push(key(k.into()), group_of(k), partition_of(k), next);
                    model.queues.entry(k).or_default().push_back(next);
                    next += 1;
                }
                Op::Start { group } => {
                    let group = usize::from(group);
                    let may = model.startable(group, Some(now));
                    match order.start(group, now, |item| *item < model.below) {
                        Some((id, item)) => {
                            prop_assert!(may.contains(&u8::try_from(id.0).unwrap()));
                            let item = *item;
                            model.started(id, item);
                        }
                        None => prop_assert!(may.is_empty(), "{may:?} could start"),
                    }
                }
                Op::Probe { group } => {
                    let group = usize::from(group);
                    let ready = model.startable(group, Some(now));
                    let is_last_resort = ready.is_empty();
                    let may = if is_last_resort { model.startable(group, None) } else { ready };
                    let started = order.start_probe(group, now, |item| *item < model.below);
                    let started = started.map(|(id, item)| (id, *item));
                    if is_last_resort {
                        model.probed(group, started.map(|(id, _)| u8::try_from(id.0).unwrap()));
                    }
                    match started {
                        Some((id, item)) => {
                            prop_assert!(may.contains(&u8::try_from(id.0).unwrap()));
                            model.started(id, item);
                        }
                        None => prop_assert!(may.is_empty()),
                    }
                }
                Op::Finish { which } => {
                    let Some(k) = model.pick(which) else { continue };
                    let done = order.finish(key(k.into()));
                    let queue = model.queues.get_mut(&k).unwrap();
                    prop_assert_eq!(done, queue.pop_front());
                    if queue.is_empty() {
                        model.queues.remove(&k);
                    }
                    model.flying.retain(|f| *f != k);
                }
                Op::Retry { which, wait } => {
                    let Some(k) = model.pick(which) else { continue };
                    let until = now + Duration::from_millis(wait.into());
                    order.retry(key(k.into()), until);
                    model.blocked.insert(k, until);
                    model.flying.retain(|f| *f != k);
                }
                Op::PutBack { which } => {
                    let Some(k) = model.pick(which) else { continue };
                    order.put_back(key(k.into()));
                    model.flying.retain(|f| *f != k);
                }
                Op::Wait { ticks } => now += Duration::from_millis(ticks.into()),
                Op::ReleaseAll { group } => {
                    order.release_all(usize::from(group));
                    model.blocked.retain(|k, _| group_of(*k) != usize::from(group));
                }
                Op::Admit { below } => model.below = below,
                Op::Revoke { partition, all } => {
                    let partition = i32::from(partition);
                    let of = |k: &u8| partition_of(*k) == partition;
                    let removed = if all {
                        order.remove_partition(partition)
                    } else {
                        order.keep_in_flight_only(partition)
                    };
                    let mut expected = Vec::new();
                    model.queues.retain(|k, queue| {
                        if !of(k) {
                            return true;
                        }
                        let stays = usize::from(!all && model.flying.contains(k));
                        expected.extend(queue.drain(stays..));
                        stays == 1
                    });
                    if all {
                        model.flying.retain(|k| !of(k));
                    }
                    model.blocked.retain(|k, _| !of(k));
                    let mut removed = removed;
                    removed.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(removed, expected);
                }
            }
            for group in 0..2 {
                let flying = model.flying.iter().filter(|k| group_of(**k) == group).count();
                prop_assert_eq!(order.in_flight(group), flying);
                prop_assert_eq!(order.ready(group) + order.held(group) + order.blocked(group) + flying,
                    model.queues.keys().filter(|k| group_of(**k) == group).count());
            }
        }

        // Whatever happened, once time passes everything drains, each key in order, in turns.
        now += Duration::from_secs(60);
        model.below = u32::MAX;
        for k in std::mem::take(&mut model.flying) {
            order.put_back(key(k.into()));
        }
        for group in 0..2 {
            let mut left = model.startable(group, None).len();
            let mut turn = HashSet::new();
            while let Some((id, item)) = order.start(group, now, any) {
                let item = *item;
                model.started(id, item);
                let k = u8::try_from(id.0).unwrap();
                if turn.len() == left {
                    turn.clear();
                }
                prop_assert!(turn.insert(k), "a key was served twice while others waited");
                prop_assert_eq!(order.finish(id), Some(item));
                model.flying.clear();
                let queue = model.queues.get_mut(&k).unwrap();
                queue.pop_front();
                if queue.is_empty() {
                    model.queues.remove(&k);
                    turn.remove(&k);
                    left -= 1;
                }
            }
        }
        prop_assert!(order.is_empty() && model.queues.is_empty());
    }
}
