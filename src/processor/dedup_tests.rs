use proptest::prelude::*;

use super::*;

const MINUTE: i64 = 60_000;

fn config() -> DedupConfig {
    DedupConfig {
        window_ms: 60 * MINUTE as u64,
        bucket_ms: 5 * MINUTE as u64,
        ..DedupConfig::default()
    }
}

fn dedup() -> Dedup {
    let mut dedup = Dedup::new(&config());
    dedup.adopt(0, Window::default());
    dedup
}

#[test]
fn an_id_is_a_duplicate_within_its_transaction_and_after_it() {
    let mut d = dedup();
    d.begin(0);
    assert!(d.accept(0, 1));
    assert!(!d.accept(0, 1), "twice in one transaction");
    assert_eq!(d.accepted(0), [1]);
    d.commit();
    d.begin(MINUTE);
    assert!(!d.accept(0, 1), "committed before");
    assert!(
        d.accepted(0).is_empty(),
        "a duplicate is not accepted again"
    );
}

#[test]
fn an_aborted_transaction_leaves_no_id_behind() {
    let mut d = dedup();
    d.begin(0);
    assert!(d.accept(0, 1));
    d.commit();
    d.begin(1);
    assert!(!d.accept(0, 1));
    assert!(d.accept(0, 2));
    d.abort();
    assert_eq!(d.len(), 1);
    d.begin(2);
    assert!(d.accept(0, 2), "it was never seen");
    assert!(!d.accept(0, 1), "the abort took only its own ids");
}

#[test]
fn an_id_is_forgotten_after_the_window_and_not_before() {
    let mut d = dedup();
    d.begin(0);
    assert!(d.accept(0, 1));
    d.commit();
    d.begin(60 * MINUTE - 1);
    assert!(!d.accept(0, 1), "an instant before the window ends");
    d.commit();
    d.begin(65 * MINUTE);
    assert!(d.accept(0, 1), "a bucket after the window's end");
}

#[test]
fn partitions_know_nothing_of_each_other_and_leave_alone() {
    let mut d = dedup();
    d.adopt(1, Window::default());
    d.begin(0);
    assert!(d.accept(0, 7));
    assert!(d.accept(1, 7));
    d.commit();
    d.forget(0);
    assert_eq!(d.len(), 1);
    d.begin(1);
    assert!(!d.accept(1, 7));
}

#[test]
fn short_memory_forgets_the_oldest_and_says_how_far_back_it_goes() {
    let mut d = Dedup::new(&DedupConfig {
        memory_bytes_max: 1 << 20,
        ..config()
    });
    d.adopt(0, Window::default());
    let mut key = 0;
    for minute in (0..60).step_by(5) {
        d.begin(minute * MINUTE);
        for _ in 0..10_000 {
            key += 1;
            d.accept(0, key);
        }
        d.commit();
        assert!(d.memory_bytes() <= 1 << 20, "{}", d.memory_bytes());
    }
    let now = 56 * MINUTE;
    let window = d.window_ms(now);
    assert!(window < 60 * MINUTE && window > 5 * MINUTE, "{window}");
    d.begin(now);
    assert!(!d.accept(0, key), "the youngest is remembered");
    assert!(d.accept(0, 1), "the oldest is not");
    // Once the forgotten stretch has left the window by itself, nothing is missing any more.
    assert_eq!(d.window_ms(now + 120 * MINUTE), 60 * MINUTE);
}

#[test]
fn a_clock_that_was_set_back_does_not_lose_ids() {
    let mut d = dedup();
    d.begin(30 * MINUTE);
    assert!(d.accept(0, 1));
    d.commit();
    d.begin(10 * MINUTE);
    assert!(!d.accept(0, 1));
    assert!(d.accept(0, 2));
    d.abort();
    assert!(d.accept(0, 2));
}

#[test]
fn a_replay_is_no_duplicate_of_what_it_replays() {
    let original = Envelope {
        source_id: "s".into(),
        message_id: "m".into(),
        ..Envelope::default()
    };
    let replayed = Envelope {
        replay_id: "r1".into(),
        ..original.clone()
    };
    let job = Envelope {
        job_run_id: "r1".into(),
        ..original.clone()
    };
    assert_eq!(key(&original), event_key("s", "m"));
    assert_ne!(key(&original), key(&replayed));
    assert_ne!(key(&job), key(&replayed));
    assert_eq!(key(&replayed), key(&replayed.clone()));
}

#[derive(Debug, Clone)]
enum Step {
    Accept(u8),
    Commit,
    Abort,
    Advance(u8),
    /// The partition moves: what was committed is read back.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..20).prop_map(Step::Accept),
        2 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => (0u8..40).prop_map(Step::Advance),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Against a plain list of (time, id): what is committed within the window is a duplicate, what was never committed is
    /// not, and in between (a bucket's length) either is right.
    #[test]
    fn it_decides_as_a_list_of_committed_ids_would(steps in prop::collection::vec(step(), 1..200)) {
        let (window, slack) = (60 * MINUTE, 5 * MINUTE);
        let mut d = dedup();
        let mut committed: Vec<(i64, u128)> = Vec::new();
        let mut pending: Vec<u128> = Vec::new();
        let mut now = 0;
        d.begin(now);
        for step in steps {
            match step {
                Step::Accept(id) => {
                    let id = u128::from(id);
                    let found_new = d.accept(0, id);
                    let age = committed.iter().filter(|(_, k)| *k == id).map(|(at, _)| now - at).min();
                    if pending.contains(&id) || age.is_some_and(|age| age < window) {
                        prop_assert!(!found_new, "{id} was accepted {age:?} ago");
                    } else if age.is_none_or(|age| age >= window + slack) {
                        prop_assert!(found_new, "{id} was not accepted, or {age:?} ago");
                    }
                    if found_new {
                        pending.push(id);
                    }
                    prop_assert_eq!(d.accepted(0), &pending[..]);
                }
                Step::Commit => {
                    d.commit();
                    committed.extend(pending.drain(..).map(|id| (now, id)));
                    d.begin(now);
                }
                Step::Abort => {
                    d.abort();
                    pending.clear();
                    d.begin(now);
                }
                Step::Advance(minutes) => {
                    d.commit();
                    committed.extend(pending.drain(..).map(|id| (now, id)));
                    now += i64::from(minutes) * MINUTE;
                    d.begin(now);
                }
                Step::Restart => {
                    pending.clear();
                    let mut read_back = Window::default();
                    for (at, id) in &committed {
                        if now - at <= window {
                            read_back.remember(*at, *id, slack);
                        }
                    }
                    d = Dedup::new(&config());
                    d.adopt(0, read_back);
                    d.begin(now);
                }
            }
        }
    }

    #[test]
    fn packed_keys_are_read_back(keys in prop::collection::vec(any::<u128>(), 0..50)) {
        prop_assert_eq!(unpack(&pack(&keys)).unwrap().to_vec(), keys);
    }

    #[test]
    fn a_record_of_another_length_is_refused(len in 0usize..100) {
        prop_assert_eq!(unpack(&vec![0; len]).is_some(), len % 16 == 0);
    }
}
