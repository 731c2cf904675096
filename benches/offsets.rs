//! What the offset map costs a record that goes through it, and what a commit costs that says which of thousands are done out
//! of order.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sluice::kafka::offsets::{METADATA_BYTES_MAX, MapCommit, OffsetMap};

/// Records of a partition that are held at a time.
const HELD: i64 = 8_192;

/// A map with `HELD` records, all started, of which none is done.
fn full(from: i64) -> OffsetMap {
    let mut map = OffsetMap::new(from);
    for offset in from..from + HELD {
        map.see(offset);
        map.try_start(offset, METADATA_BYTES_MAX);
    }
    map
}

/// Every offset of `HELD` once, in an order that looks like none.
fn shuffled() -> Vec<i64> {
    let mut offsets: Vec<i64> = (0..HELD).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut offsets);
    offsets
}

/// A map whose first record is slow, and behind which each record is done of which `is_done` says so.
fn behind_a_slow_one(is_done: impl Fn(i64) -> bool) -> OffsetMap {
    let mut map = full(0);
    for offset in (1..HELD).filter(|offset| is_done(*offset)) {
        map.complete(offset);
    }
    map
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("offsets");

    group.throughput(Throughput::Elements(HELD.unsigned_abs()));
    group.bench_function("see, start and finish in order", |b| {
        b.iter(|| {
            let mut map = OffsetMap::new(0);
            for offset in 0..HELD {
                map.see(black_box(offset));
                map.try_start(offset, METADATA_BYTES_MAX);
                map.complete(offset);
            }
            map.next_offset()
        });
    });
    group.bench_function("see and start thousands", |b| b.iter(|| full(black_box(0))));
    let (begun, order) = (full(0), shuffled());
    group.bench_function("finish thousands out of order", |b| {
        b.iter_batched_ref(
            || begun.clone(),
            |map| {
                for offset in &order {
                    map.complete(black_box(*offset));
                }
                map.next_offset()
            },
            BatchSize::LargeInput,
        );
    });

    group.throughput(Throughput::Elements(1));
    // Whether one more may start is asked for each record, also while the map is as full as a commit can say.
    let mut fragmented = behind_a_slow_one(|offset| offset % 2 == 1);
    fragmented.see(HELD);
    group.bench_function("may one more start, 4096 runs", |b| {
        b.iter(|| {
            let may = fragmented.try_start(black_box(HELD), METADATA_BYTES_MAX);
            fragmented.stop(HELD);
            may
        });
    });

    let mut random = fastrand::Rng::with_seed(11);
    let picks: Vec<bool> = (0..HELD).map(|_| random.bool()).collect();
    let is_picked = |offset: i64| usize::try_from(offset).is_ok_and(|at| picks[at]);
    for (name, map) in [
        ("one run", behind_a_slow_one(|_| true)),
        (
            "every 64th slow",
            behind_a_slow_one(|offset| offset % 64 != 0),
        ),
        ("half of them, at random", behind_a_slow_one(is_picked)),
    ] {
        let commit = map.next_commit(METADATA_BYTES_MAX);
        assert!(!commit.is_cut, "{name}");
        let MapCommit {
            next_offset,
            metadata,
            ..
        } = commit;
        let bytes = metadata.len();
        group.bench_function(format!("commit of 8192, {name} ({bytes} bytes)"), |b| {
            b.iter(|| black_box(&map).next_commit(METADATA_BYTES_MAX));
        });
        group.bench_function(format!("resume from it, {name}"), |b| {
            b.iter(|| OffsetMap::resume(next_offset, black_box(&metadata)));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
