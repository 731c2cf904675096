//! Says what a run lost, doubled, reordered or invented, in the way of Jepsen's queue checker. Pure.
//!
//! Every input has a producer with a sequence number, an id, and a key with a sequence number of its own. Three questions
//! are asked of what came out: of a log (`deliver.*`, read committed), of a table (a set of ids), and of a webhook, where
//! duplicates are allowed within a bound and only under one idempotency key.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// How many findings of a kind are printed.
const SHOWN_MAX: usize = 10;

/// One event that was accepted: the obligation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Who sent it.
    pub producer: u32,
    /// Number among that producer's events, from 0.
    pub seq: u64,
    /// Message id, unique over the run.
    pub id: String,
    /// Ordering key.
    pub key: String,
    /// Number among the key's events, from 0.
    pub key_seq: u64,
}

/// One record found in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Message id.
    pub id: String,
    /// Ordering key.
    pub key: String,
    /// Where it lies.
    pub partition: i32,
    /// Where it lies.
    pub offset: i64,
}

/// One request that a destination got, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Message id.
    pub id: String,
    /// Ordering key.
    pub key: String,
    /// `Idempotency-Key` as received; `None` when it was missing.
    pub idempotency_key: Option<String>,
    /// Whether the destination answered with success. Only those must be bounded; every one must carry the same key.
    pub accepted: bool,
}

/// What was wrong, by kind. Empty means that the run kept the promise.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many inputs there were.
    pub inputs: usize,
    /// How many outputs were looked at.
    pub outputs: usize,
    /// Accepted, never seen.
    pub lost: Vec<String>,
    /// Seen more often than allowed.
    pub duplicated: Vec<String>,
    /// Seen out of their key's order, or one key in two partitions.
    pub reordered: Vec<String>,
    /// Seen, never accepted: an aborted write that became visible, or damage.
    pub phantom: Vec<String>,
    /// Idempotency keys that are missing, differ for one event or are shared by two.
    pub idempotency: Vec<String>,
    /// Repetitions that were within the bound; not wrong, but worth knowing.
    pub tolerated: usize,
}

impl Report {
    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.kinds().iter().all(|(_, found)| found.is_empty())
    }

    /// # Panics
    /// With the first findings of every kind, unless the report is clean.
    #[track_caller]
    pub fn assert_clean(&self, of: &str) {
        assert!(self.is_clean(), "{of}: {self}");
    }

    fn kinds(&self) -> [(&'static str, &Vec<String>); 5] {
        [
            ("lost", &self.lost),
            ("duplicated", &self.duplicated),
            ("reordered", &self.reordered),
            ("phantom", &self.phantom),
            ("idempotency", &self.idempotency),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in, {} out", self.inputs, self.outputs)?;
        for (kind, found) in self.kinds() {
            write!(f, ", {} {kind}", found.len())?;
        }
        write!(f, ", {} repeated within the bound", self.tolerated)?;
        for (kind, found) in self.kinds() {
            for one in found.iter().take(SHOWN_MAX) {
                write!(f, "\n  {kind}: {one}")?;
            }
            if found.len() > SHOWN_MAX {
                write!(f, "\n  {kind}: … and {} more", found.len() - SHOWN_MAX)?;
            }
        }
        Ok(())
    }
}

/// Checks one log (all partitions of one topic, as a read-committed consumer sees them): each input exactly once, each
/// key in one partition and in order.
pub fn check_log(inputs: &[Input], logged: &[Logged]) -> Report {
    let expected = Expected::of(inputs);
    let mut report = expected.report(logged.len());
    let mut places: HashMap<&str, Vec<&Logged>> = HashMap::new();
    for one in logged {
        places.entry(&one.id).or_default().push(one);
    }
    for input in inputs {
        match places.get(input.id.as_str()).map_or(&[][..], Vec::as_slice) {
            [] => report.lost.push(expected.describe(&input.id)),
            [_] => {}
            many => report.duplicated.push(format!(
                "{} at {}",
                expected.describe(&input.id),
                many.iter()
                    .map(|l| format!("{}@{}", l.partition, l.offset))
                    .collect::<Vec<_>>()
                    .join(" and ")
            )),
        }
    }

    let homes = homes(logged);
    let mut sorted: Vec<&Logged> = logged.iter().collect();
    sorted.sort_by_key(|l| (l.partition, l.offset));
    let mut order = Order::default();
    for one in sorted {
        let Some(input) = expected.by_id.get(one.id.as_str()) else {
            report.phantom.push(format!(
                "{} (key {}) at {}@{}",
                one.id, one.key, one.partition, one.offset
            ));
            continue;
        };
        if input.key != one.key {
            report.reordered.push(format!(
                "{} lies under key {}",
                expected.describe(&one.id),
                one.key
            ));
            continue;
        }
        let home = homes[one.key.as_str()];
        if home == one.partition {
            order.see(input, &mut report);
        } else {
            report.reordered.push(format!(
                "{} lies in partition {}, most of its key in {home}",
                expected.describe(&one.id),
                one.partition
            ));
        }
    }
    report
}

/// Checks one table: each input exactly one row.
pub fn check_rows<'a>(inputs: &[Input], ids: impl IntoIterator<Item = &'a str>) -> Report {
    let expected = Expected::of(inputs);
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut rows = 0;
    for id in ids {
        *seen.entry(id).or_default() += 1;
        rows += 1;
    }
    let mut report = expected.report(rows);
    for input in inputs {
        match seen.get(input.id.as_str()) {
            None => report.lost.push(expected.describe(&input.id)),
            Some(1) => {}
            Some(n) => report
                .duplicated
                .push(format!("{} in {n} rows", expected.describe(&input.id))),
        }
    }
    let mut strange: Vec<&str> = seen
        .into_keys()
        .filter(|id| !expected.by_id.contains_key(id))
        .collect();
    strange.sort_unstable();
    report.phantom = strange.into_iter().map(str::to_owned).collect();
    report
}

/// Checks what one destination got, in order of arrival: each input accepted at least once; accepted again at most
/// `repeats_max` times over the whole run; all tries of an event under one idempotency key, which no other event has; the
/// first tries of a key's events in order.
pub fn check_arrivals(inputs: &[Input], arrivals: &[Arrival], repeats_max: usize) -> Report {
    let expected = Expected::of(inputs);
    let mut report = expected.report(arrivals.len());
    let mut accepted: HashMap<&str, usize> = HashMap::new();
    let mut started: HashSet<&str> = HashSet::new();
    let mut keys: HashMap<&str, &str> = HashMap::new();
    let mut owners: HashMap<&str, &str> = HashMap::new();
    let mut order = Order::default();
    for one in arrivals {
        let Some(input) = expected.by_id.get(one.id.as_str()) else {
            report.phantom.push(format!("{} (key {})", one.id, one.key));
            continue;
        };
        if one.accepted {
            *accepted.entry(&input.id).or_default() += 1;
        }
        // Order is judged by first tries: a repetition after a crash may come behind a later event of its key.
        if started.insert(&input.id) {
            order.see(input, &mut report);
        }
        let Some(key) = one.idempotency_key.as_deref() else {
            report
                .idempotency
                .push(format!("{} without a key", expected.describe(&one.id)));
            continue;
        };
        let before = *keys.entry(&input.id).or_insert(key);
        if before != key {
            report.idempotency.push(format!(
                "{} under {before:?} and {key:?}",
                expected.describe(&one.id)
            ));
        }
        let owner = *owners.entry(key).or_insert(&input.id);
        if owner != input.id {
            report.idempotency.push(format!(
                "{key:?} is shared by {} and {}",
                expected.describe(owner),
                expected.describe(&one.id)
            ));
        }
    }
    let mut repeated = Vec::new();
    for input in inputs {
        match accepted.get(input.id.as_str()) {
            None => report.lost.push(expected.describe(&input.id)),
            Some(1) => {}
            Some(n) => repeated.extend(std::iter::repeat_n(
                format!("{} accepted {n} times", expected.describe(&input.id)),
                n - 1,
            )),
        }
    }
    if repeated.len() > repeats_max {
        report.duplicated = repeated;
    } else {
        report.tolerated = repeated.len();
    }
    report
}

/// The partition that holds most of each key's records: between partitions there is no order to judge by.
fn homes(logged: &[Logged]) -> HashMap<&str, i32> {
    let mut counts: BTreeMap<(&str, i32), usize> = BTreeMap::new();
    for one in logged {
        *counts.entry((&one.key, one.partition)).or_default() += 1;
    }
    let mut best: HashMap<&str, (usize, i32)> = HashMap::new();
    for ((key, partition), count) in counts {
        let home = best.entry(key).or_insert((count, partition));
        if count > home.0 {
            *home = (count, partition);
        }
    }
    best.into_iter()
        .map(|(key, (_, partition))| (key, partition))
        .collect()
}

struct Expected<'a> {
    by_id: HashMap<&'a str, &'a Input>,
}

impl<'a> Expected<'a> {
    fn of(inputs: &'a [Input]) -> Self {
        let by_id: HashMap<&str, &Input> = inputs.iter().map(|i| (i.id.as_str(), i)).collect();
        assert_eq!(by_id.len(), inputs.len(), "the test used an id twice");
        Self { by_id }
    }

    fn report(&self, outputs: usize) -> Report {
        Report {
            inputs: self.by_id.len(),
            outputs,
            ..Report::default()
        }
    }

    fn describe(&self, id: &str) -> String {
        match self.by_id.get(id) {
            Some(i) => format!(
                "{id} (producer {} #{}, key {} #{})",
                i.producer, i.seq, i.key, i.key_seq
            ),
            None => id.to_owned(),
        }
    }
}

/// Follows each key's sequence.
#[derive(Default)]
struct Order<'a> {
    last: BTreeMap<&'a str, u64>,
}

impl<'a> Order<'a> {
    /// A gap is no disorder: what is missing is counted as lost. An equal number is a duplicate.
    fn see(&mut self, input: &'a Input, report: &mut Report) {
        let last = self.last.entry(&input.key).or_insert(input.key_seq);
        if input.key_seq < *last {
            report.reordered.push(format!(
                "{} (key {} #{}) after #{last}",
                input.id, input.key, input.key_seq
            ));
        }
        *last = (*last).max(input.key_seq);
    }
}

/// A checker that finds nothing is only worth something if it finds each kind of damage.
mod tests {
    use super::*;

    fn inputs() -> Vec<Input> {
        (0..12)
            .map(|n| Input {
                producer: 0,
                seq: n,
                id: format!("m{n}"),
                key: format!("k{}", n % 3),
                key_seq: n / 3,
            })
            .collect()
    }

    /// Key n in partition n.
    fn log(inputs: &[Input]) -> Vec<Logged> {
        inputs
            .iter()
            .map(|i| Logged {
                id: i.id.clone(),
                key: i.key.clone(),
                partition: i.key[1..].parse().unwrap(),
                offset: i64::try_from(i.key_seq).unwrap() * 2,
            })
            .collect()
    }

    fn arrivals(inputs: &[Input]) -> Vec<Arrival> {
        inputs
            .iter()
            .map(|i| Arrival {
                id: i.id.clone(),
                key: i.key.clone(),
                idempotency_key: Some(format!("{}:d", i.id)),
                accepted: true,
            })
            .collect()
    }

    fn counts(r: &Report) -> [usize; 5] {
        r.kinds().map(|(_, found)| found.len())
    }

    #[test]
    fn an_undamaged_run_is_clean() {
        let inputs = inputs();
        check_log(&inputs, &log(&inputs)).assert_clean("log");
        check_rows(&inputs, inputs.iter().map(|i| i.id.as_str())).assert_clean("rows");
        check_arrivals(&inputs, &arrivals(&inputs), 0).assert_clean("webhook");
    }

    #[test]
    fn a_lost_event_is_found_everywhere() {
        let inputs = inputs();
        let mut log = log(&inputs);
        log.remove(4);
        assert_eq!(counts(&check_log(&inputs, &log)), [1, 0, 0, 0, 0]);
        let rows = inputs.iter().skip(1).map(|i| i.id.as_str());
        assert_eq!(counts(&check_rows(&inputs, rows)), [1, 0, 0, 0, 0]);
        let mut got = arrivals(&inputs);
        got.pop();
        assert_eq!(counts(&check_arrivals(&inputs, &got, 9)), [1, 0, 0, 0, 0]);
    }

    #[test]
    fn an_event_that_was_only_refused_is_lost() {
        let inputs = inputs();
        let mut got = arrivals(&inputs);
        got[3].accepted = false;
        assert_eq!(counts(&check_arrivals(&inputs, &got, 0)), [1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_doubled_event_is_found_in_a_log_and_in_a_table_and_bounded_at_a_webhook() {
        let inputs = inputs();
        let mut log = log(&inputs);
        let again = Logged {
            offset: 99,
            ..log[11].clone()
        };
        log.push(again);
        assert_eq!(counts(&check_log(&inputs, &log)), [0, 1, 0, 0, 0]);
        let rows = inputs
            .iter()
            .chain(&inputs[..2])
            .map(|i| i.id.as_str())
            .collect::<Vec<_>>();
        assert_eq!(counts(&check_rows(&inputs, rows)), [0, 2, 0, 0, 0]);
        let mut got = arrivals(&inputs);
        got.push(got[0].clone());
        got.push(got[0].clone());
        let within = check_arrivals(&inputs, &got, 2);
        assert!(within.is_clean() && within.tolerated == 2, "{within}");
        assert_eq!(counts(&check_arrivals(&inputs, &got, 1)), [0, 2, 0, 0, 0]);
    }

    #[test]
    fn a_swap_within_a_key_is_found() {
        let inputs = inputs();
        let mut log = log(&inputs);
        let (a, b) = (log[0].offset, log[3].offset);
        (log[0].offset, log[3].offset) = (b, a);
        assert_eq!(counts(&check_log(&inputs, &log)), [0, 0, 1, 0, 0]);
        let mut got = arrivals(&inputs);
        got.swap(0, 3);
        assert_eq!(counts(&check_arrivals(&inputs, &got, 0)), [0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_key_in_two_partitions_or_under_another_name_is_found() {
        let inputs = inputs();
        let mut log = log(&inputs);
        log[11].partition = 0;
        log[11].offset = 99;
        assert_eq!(counts(&check_log(&inputs, &log)), [0, 0, 1, 0, 0]);
        log[11].partition = 2;
        log[11].key = "k0".into();
        assert_eq!(counts(&check_log(&inputs, &log)), [0, 0, 1, 0, 0]);
    }

    #[test]
    fn what_was_never_accepted_is_found() {
        let inputs = inputs();
        let (seen, all) = (&inputs[..11], &inputs);
        assert_eq!(counts(&check_log(seen, &log(all))), [0, 0, 0, 1, 0]);
        let rows = all.iter().map(|i| i.id.as_str());
        assert_eq!(counts(&check_rows(seen, rows)), [0, 0, 0, 1, 0]);
        let got = arrivals(all);
        assert_eq!(counts(&check_arrivals(seen, &got, 0)), [0, 0, 0, 1, 0]);
    }

    #[test]
    fn an_idempotency_key_that_is_missing_changed_or_shared_is_found() {
        let inputs = inputs();
        let mut missing = arrivals(&inputs);
        missing[5].idempotency_key = None;
        assert_eq!(
            counts(&check_arrivals(&inputs, &missing, 0)),
            [0, 0, 0, 0, 1]
        );
        let mut changed = arrivals(&inputs);
        changed.push(Arrival {
            idempotency_key: Some("other".into()),
            ..changed[0].clone()
        });
        assert_eq!(
            counts(&check_arrivals(&inputs, &changed, 1)),
            [0, 0, 0, 0, 1]
        );
        let mut shared = arrivals(&inputs);
        shared[1].idempotency_key = shared[0].idempotency_key.clone();
        assert_eq!(
            counts(&check_arrivals(&inputs, &shared, 0)),
            [0, 0, 0, 0, 1]
        );
    }

    #[test]
    fn a_report_shows_the_first_of_many() {
        let report = check_rows(&inputs(), []);
        let text = report.to_string();
        assert!(text.contains("12 lost"), "{text}");
        assert!(text.contains("m0 (producer 0 #0, key k0 #0)"), "{text}");
        assert!(text.contains("lost: … and 2 more"), "{text}");
    }
}
