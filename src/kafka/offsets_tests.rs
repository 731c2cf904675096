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
