use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A log as a reader sees it: increasing offsets with gaps.
fn log() -> impl Strategy<Value = Vec<i64>> {
    (
        0i64..1_000_000,
        prop::collection::vec(
            prop_oneof![8 => Just(1i64), 1 => 2i64..5, 1 => 50i64..400],
            1..400,
        ),
    )
        .prop_map(|(start, steps)| {
            steps
                .into_iter()
                .scan(start, |at, step| {
                    let offset = *at;
                    *at += step;
                    Some(offset)
                })
                .collect()
        })
}

/// A log, and which of its records are finished. Some samples are nearly all finished, some nearly none.
fn work() -> impl Strategy<Value = Vec<(i64, bool)>> {
    (log(), 0.0f64..=1.0).prop_flat_map(|(log, share)| {
        let done = prop::collection::vec(prop::bool::weighted(share), log.len());
        done.prop_map(move |done| log.iter().copied().zip(done).collect())
    })
}

fn map_of(work: &[(i64, bool)]) -> OffsetMap {
    let mut map = OffsetMap::new(work[0].0);
    for (offset, _) in work {
        assert_eq!(map.see(*offset), Seen::New);
    }
    for (offset, done) in work.iter().rev() {
        assert!(!done || map.complete(*offset));
    }
    map
}

/// What a successor works on again, given what was committed.
fn done_again(work: &[(i64, bool)], commit: &MapCommit) -> Vec<i64> {
    let mut map = OffsetMap::resume(commit.next_offset, &commit.metadata);
    work.iter()
        .map(|(offset, _)| *offset)
        .filter(|offset| *offset >= commit.next_offset)
        .filter(|offset| map.see(*offset) == Seen::New)
        .collect()
}

fn unfinished(work: &[(i64, bool)]) -> Vec<i64> {
    work.iter()
        .filter(|(_, done)| !done)
        .map(|(o, _)| *o)
        .collect()
}

proptest! {
    #[test]
    fn a_successor_works_on_exactly_what_was_unfinished(work in work()) {
        let commit = map_of(&work).next_commit(usize::MAX / 8);
        prop_assert!(!commit.is_cut);
        prop_assert_eq!(done_again(&work, &commit), unfinished(&work));
    }

    #[test]
    fn a_cut_does_more_again_but_passes_nothing_unfinished(work in work(), limit in 0usize..120) {
        let commit = map_of(&work).next_commit(limit);
        prop_assert!(commit.metadata.len() <= limit);
        let again = done_again(&work, &commit);
        for offset in unfinished(&work) {
            prop_assert!(again.contains(&offset), "{} was skipped", offset);
        }
        if !commit.is_cut {
            prop_assert_eq!(again, unfinished(&work));
        }
        prop_assert_eq!(commit.is_cut, commit.needed_bytes > limit);
    }

    #[test]
    fn the_committed_offset_never_passes_an_unfinished_one(work in work(), order in any::<u64>()) {
        let mut map = OffsetMap::new(work[0].0);
        let mut rng = fastrand::Rng::with_seed(order);
        let mut pending: Vec<i64> = Vec::new();
        let mut before = map.next_offset();
        for (offset, _) in &work {
            map.see(*offset);
            pending.push(*offset);
            while !pending.is_empty() && rng.u8(..) < 140 {
                let done = pending.swap_remove(rng.usize(..pending.len()));
                prop_assert!(map.complete(done));
                prop_assert!(!map.complete(done));
            }
            let lowest = pending.iter().min().copied().unwrap_or(offset + 1);
            prop_assert_eq!(map.next_offset(), lowest);
            prop_assert!(map.next_offset() >= before);
            prop_assert_eq!(map.unfinished(), pending.len());
            before = map.next_offset();
        }
    }

    #[test]
    fn a_second_crash_before_all_is_read_again_forgets_nothing(work in work(), read in 0usize..400) {
        let first = map_of(&work).next_commit(usize::MAX / 8);
        let mut successor = OffsetMap::resume(first.next_offset, &first.metadata);
        for (offset, _) in work.iter().filter(|(o, _)| *o >= first.next_offset).take(read) {
            successor.see(*offset);
        }
        let second = successor.next_commit(usize::MAX / 8);
        prop_assert_eq!(done_again(&work, &second), unfinished(&work));
    }

    #[test]
    fn metadata_of_another_offset_is_ignored(work in work(), shift in 1i64..1000) {
        let commit = map_of(&work).next_commit(usize::MAX / 8);
        let elsewhere = commit.next_offset + shift;
        prop_assert_eq!(OffsetMap::resume(elsewhere, &commit.metadata), OffsetMap::new(elsewhere));
    }

    #[test]
    fn any_text_is_survived(base in any::<i64>(), text in ".{0,200}", raw in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(OffsetMap::resume(base, &text), OffsetMap::new(base));
        prop_assert_eq!(OffsetMap::resume(base, &BASE64.encode(&raw)), OffsetMap::new(base));
        // With a right checksum, nonsense may mean anything but must not panic.
        for version in [RUNS, BITS] {
            let mut map = OffsetMap::resume(base.min(i64::MAX / 2), &frame(base.min(i64::MAX / 2), version, &raw));
            map.see(base.min(i64::MAX / 2));
            map.next_commit(METADATA_BYTES_MAX);
        }
    }
}

#[test]
fn the_example_of_the_essay_is_as_it_says() {
    let mut map = OffsetMap::new(100);
    for offset in [100, 101, 102, 103, 104, 106, 107, 108] {
        map.see(offset);
    }
    for offset in [108, 100, 104, 101, 103, 107] {
        map.complete(offset);
    }
    let commit = map.next_commit(METADATA_BYTES_MAX);
    assert_eq!(commit.next_offset, 102);
    assert_eq!(decode(102, &commit.metadata).unwrap(), [103..106, 107..109]);
    assert_eq!((map.unfinished(), map.span()), (2, 7));
}

#[test]
fn a_partition_at_rest_needs_no_metadata() {
    let mut map = OffsetMap::new(5);
    map.see(5);
    map.see(9);
    map.complete(9);
    map.complete(5);
    let commit = map.next_commit(METADATA_BYTES_MAX);
    assert_eq!((commit.next_offset, commit.metadata.as_str()), (10, ""));
}

#[test]
fn a_record_that_comes_again_after_a_seek_back_is_not_started_twice() {
    let mut map = OffsetMap::new(0);
    map.see(0);
    map.see(1);
    map.complete(1);
    assert_eq!(map.see(0), Seen::Pending);
    assert_eq!(map.see(1), Seen::Done);
    assert_eq!(map.see(2), Seen::New);
}

#[test]
fn two_thousand_scattered_unfinished_records_fit_into_a_commit() {
    let mut map = OffsetMap::new(0);
    let mut rng = fastrand::Rng::with_seed(7);
    for offset in 0..20_000 {
        map.see(offset);
    }
    let kept: BTreeSet<i64> = (0..2_000).map(|_| rng.i64(0..20_000)).collect();
    for offset in (0..20_000).filter(|offset| !kept.contains(offset)) {
        map.complete(offset);
    }
    let commit = map.next_commit(METADATA_BYTES_MAX);
    assert!(!commit.is_cut, "{} bytes", commit.needed_bytes);
}

/// Counts anew what the map keeps count of.
fn assert_counts(map: &OffsetMap) {
    let all: Vec<(i64, bool)> = map.unfinished.iter().map(|(o, f)| (*o, *f)).collect();
    let ends = all.iter().skip(1).map(|(o, _)| *o).chain([map.seen_to]);
    let runs: Vec<u64> = all
        .iter()
        .zip(ends)
        .filter(|((_, is_followed), _)| *is_followed)
        .map(|((offset, _), end)| length(&(offset + 1..end)))
        .collect();
    assert_eq!((map.runs, map.covered), (runs.len(), runs.iter().sum()));
    assert_eq!(
        map.covered_before,
        map.done_before.iter().map(length).sum::<u64>()
    );
    assert!(map.done_before.iter().all(|run| run.start >= map.seen_to));
    assert_eq!(map.reserved, map.started.values().filter(|r| **r).count());
}

#[derive(Debug, Clone)]
enum Op {
    Read {
        records: u8,
    },
    Start {
        which: u16,
    },
    /// Starts the lowest that are not under way, in order: what a router mostly does.
    StartNext {
        records: u8,
    },
    End {
        which: u16,
        is_done: bool,
    },
    Crash,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (1..20u8).prop_map(|records| Op::Read { records }),
        6 => any::<u16>().prop_map(|which| Op::Start { which }),
        3 => (1..20u8).prop_map(|records| Op::StartNext { records }),
        12 => (any::<u16>(), prop::bool::weighted(0.8)).prop_map(|(which, is_done)| Op::End { which, is_done }),
        1 => Just(Op::Crash),
    ];
    prop::collection::vec(op, 1..400)
}

/// A reader with a log, and what a destination got.
struct Model {
    map: OffsetMap,
    log: Vec<i64>,
    read: usize,
    waiting: Vec<i64>,
    started: Vec<i64>,
    done: BTreeSet<i64>,
    limit: usize,
}

impl Model {
    fn new(log: Vec<i64>, limit: usize) -> Self {
        Self {
            map: OffsetMap::new(log[0]),
            log,
            read: 0,
            waiting: Vec::new(),
            started: Vec::new(),
            done: BTreeSet::new(),
            limit,
        }
    }

    fn read(&mut self) {
        let Some(offset) = self.log.get(self.read) else {
            return;
        };
        self.read += 1;
        let seen = self.map.see(*offset);
        let is_done = self.done.contains(offset);
        assert_eq!(seen == Seen::Done, is_done, "{offset} is {seen:?}");
        if seen == Seen::New {
            self.waiting.push(*offset);
        }
    }

    fn start(&mut self, which: usize) -> bool {
        let offset = self.waiting[which];
        if !self.map.try_start(offset, self.limit) {
            assert_ne!(offset, self.map.next_offset(), "the lowest must never wait");
            return false;
        }
        self.waiting.remove(which);
        self.started.push(offset);
        true
    }

    fn end(&mut self, which: usize, is_done: bool) {
        let offset = self.started.swap_remove(which);
        if is_done {
            assert!(self.map.complete(offset));
            self.done.insert(offset);
        } else {
            self.map.stop(offset);
            let at = self.waiting.partition_point(|w| *w < offset);
            self.waiting.insert(at, offset);
        }
    }

    fn crash(&mut self) {
        let commit = self.map.next_commit(self.limit);
        self.map = OffsetMap::resume(commit.next_offset, &commit.metadata);
        self.read = self.log.partition_point(|o| *o < commit.next_offset);
        self.waiting.clear();
        self.started.clear();
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Read { records } => (0..records).for_each(|_| self.read()),
            Op::Start { which } if !self.waiting.is_empty() => {
                self.start(usize::from(which) % self.waiting.len());
            }
            Op::StartNext { records } => {
                let mut at = 0;
                for _ in 0..records {
                    if at < self.waiting.len() && !self.start(at) {
                        at += 1;
                    }
                }
            }
            Op::End { which, is_done } if !self.started.is_empty() => {
                self.end(usize::from(which) % self.started.len(), is_done);
            }
            Op::Crash => self.crash(),
            Op::Start { .. } | Op::End { .. } => {}
        }
    }

    /// Whatever of what is under way ends now can be said, and is known after a crash.
    fn assert_can_say_all(&self, seed: u64) {
        assert_counts(&self.map);
        let mut rng = fastrand::Rng::with_seed(seed);
        for share in [0, 128, 255] {
            let mut map = self.map.clone();
            for offset in &self.started {
                if rng.u8(..) <= share {
                    map.complete(*offset);
                }
            }
            let commit = map.next_commit(self.limit);
            assert!(!commit.is_cut, "{map:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_ends_of_what_was_let_start_can_be_said_and_nothing_stops_for_ever(
        log in log(), ops in ops(), limit in prop_oneof![12usize..60, 60usize..300], seed in any::<u64>()
    ) {
        let mut model = Model::new(log, limit);
        for (n, op) in ops.iter().enumerate() {
            model.apply(op);
            model.assert_can_say_all(seed ^ n as u64);
        }
        // From here on nothing fails, and so all comes to its end, though the map may be full.
        while model.done.len() < model.log.len() {
            (0..20).for_each(|_| model.read());
            let mut at = 0;
            while at < model.waiting.len() {
                at += usize::from(!model.start(at));
            }
            if model.started.is_empty() {
                prop_assert!(model.waiting.is_empty(), "nothing may go: {:?}", model.map);
                // What was read was all done before a crash.
                continue;
            }
            let which = (seed % model.started.len() as u64) as usize;
            model.end(which, true);
            model.assert_can_say_all(seed);
        }
        // After a crash what is done has to be read again before nothing is left to say.
        (0..model.log.len()).for_each(|_| model.read());
        let commit = model.map.next_commit(limit);
        prop_assert_eq!(commit.metadata, "");
    }

    #[test]
    fn no_map_takes_more_bytes_than_its_shape_says(work in work()) {
        let map = map_of(&work);
        let (base, done) = (map.next_offset(), map.done_runs());
        let Some(last) = done.last() else { return Ok(()) };
        let reach = last.end.abs_diff(base);
        let covered: u64 = done.iter().map(length).sum();
        let runs = done.len() as u64;
        let most = numbers_bytes_max(runs, reach - covered) + numbers_bytes_max(runs, covered);
        prop_assert!(encode_runs(base, &done, 0).needed as u64 <= most);
        prop_assert!(map.holes() >= reach - covered);
        prop_assert_eq!(map.runs, done.len());
    }
}

#[test]
fn every_second_user_failing_is_held_back_before_a_commit_is_full() {
    const RECORDS: i64 = 60_000;
    let mut map = OffsetMap::new(0);
    (0..RECORDS).for_each(|offset| assert_eq!(map.see(offset), Seen::New));
    let mut unasked = map.clone();
    (1..RECORDS)
        .step_by(2)
        .for_each(|offset| assert!(unasked.complete(offset)));
    assert!(
        unasked.next_commit(METADATA_BYTES_MAX).is_cut,
        "what this is about"
    );

    let mut held = Vec::new();
    for offset in 0..RECORDS {
        if !map.try_start(offset, METADATA_BYTES_MAX) {
            held.push(offset);
        } else if offset % 2 == 0 {
            map.stop(offset);
        } else {
            map.complete(offset);
        }
    }
    let commit = map.next_commit(METADATA_BYTES_MAX);
    assert!(!commit.is_cut && commit.needed_bytes > METADATA_BYTES_MAX * 95 / 100);
    assert_eq!(
        held.first(),
        Some(&24_536),
        "one bit each of what 4096 bytes hold"
    );
    // The failed ones may all be tried again at once: their ends only make the map smaller.
    for offset in (0..held[0]).step_by(2) {
        assert!(map.try_start(offset, METADATA_BYTES_MAX), "{offset}");
    }
    (0..held[0])
        .step_by(2)
        .for_each(|offset| assert!(map.complete(offset)));
    for offset in held {
        assert!(map.try_start(offset, METADATA_BYTES_MAX) && map.complete(offset));
    }
    assert_eq!(map.next_offset(), RECORDS);
}

#[test]
fn a_user_that_is_blocked_for_hours_holds_up_nobody() {
    let mut map = OffsetMap::new(0);
    assert_eq!(map.see(0), Seen::New);
    // As many side by side as the settings say, ending in the worst order, with a marker of a transaction now and then.
    let offsets: Vec<i64> = (1..1_000_000).filter(|offset| offset % 7 != 0).collect();
    for side_by_side in offsets.chunks(256) {
        for offset in side_by_side {
            assert_eq!(map.see(*offset), Seen::New);
            assert!(map.try_start(*offset, METADATA_BYTES_MAX), "{offset}");
        }
        for offset in side_by_side
            .iter()
            .step_by(2)
            .chain(side_by_side.iter().skip(1).step_by(2))
        {
            assert!(map.complete(*offset));
        }
    }
    assert!(map.next_commit(METADATA_BYTES_MAX).needed_bytes < 20);
}

#[test]
fn gaps_between_records_that_wait_need_not_be_said() {
    let mut map = OffsetMap::new(0);
    for offset in (0..100_000).step_by(2) {
        map.see(offset);
    }
    assert_eq!(map.next_commit(METADATA_BYTES_MAX).needed_bytes, 0);
    assert!(map.try_start(50_000, METADATA_BYTES_MAX) && map.complete(50_000));
    let commit = map.next_commit(METADATA_BYTES_MAX);
    let done = decode(0, &commit.metadata).unwrap();
    assert_eq!(done.first(), Some(&(49_999..50_001)));
    assert_eq!(done.len(), 1);
}
