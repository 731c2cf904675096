//! When a destination as a whole is left alone, and when it is asked again. Pure.
//!
//! ```text
//!            failures in a row, over several keys      time for a probe
//!   Closed ────────────────────────────────────▶ Open ────────────────▶ Probing
//!     ▲      or: too many refusals                 ▲                       │
//!     │                                            └───── it failed ───────┤
//!     └────────────────────────── it succeeded ────────────────────────────┘
//! ```
//!
//! One key that fails again and again says little about the destination; it is blocked by itself. The breaker opens when
//! the failures are not one key's: nothing could connect at all ([`Cause::Down`] after a few tries, whoever's), several
//! keys failed in a row, or nearly everything is refused for good ([`Cause::Flood`]: a revoked credential or a wrong URL
//! would otherwise empty the backlog into the dead letters within minutes).
//!
//! While it is open nothing is dead-lettered and the retry window stands still ([`Breaker::down_for`]): the events are not
//! at fault. After it closes the concurrency grows with each success, so that a server that just came back is not hit by
//! all keys at once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::retry::Backoff;

use super::order::KeyId;

/// When to open, and how to probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Retryable failures in a row that open it, if they are of at least `keys` keys.
    pub failures: u32,
    /// See `failures`.
    pub keys: usize,
    /// Failures to connect in a row that open it, of whichever key.
    pub unreachable: u32,
    /// Refusals in a row that open it.
    pub refusals: u32,
    /// Share of refusals among the last `recent` outcomes that opens it; above 1, never.
    pub refusal_share: f64,
    /// How many outcomes `refusal_share` is taken of; until there are as many, it is not looked at.
    pub recent: usize,
    /// Time between probes.
    pub probe: Backoff,
}

/// Why it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The destination does not answer, or answers with failures.
    Down,
    /// The destination refuses nearly everything for good.
    Flood,
}

impl Cause {
    /// Word in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Flood => "refuses_nearly_everything",
        }
    }
}

/// What one attempt said about the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It took the event (or left it out on purpose).
    Success,
    /// It may take the same event later.
    Failure {
        /// No connection could be made.
        unreachable: bool,
        /// How long it asked us to wait.
        after: Option<Duration>,
    },
    /// It will never take this event.
    Refusal,
    /// Nothing: the event was not sent.
    None,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Opened.
    Opened(Cause),
    /// Closed.
    Closed,
}

/// How many deliveries may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// Up to this many.
    Run(usize),
    /// One, as a probe; tell [`Breaker::probe_started`].
    Probe,
    /// None before this time (`None`: until the probe under way has ended).
    Wait(Option<Instant>),
}

/// Marks an attempt with the state it was started in: an answer to a question from before the last change says nothing
/// about now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u64);

/// The breaker of one destination.
#[derive(Debug)]
pub struct Breaker {
    rules: Rules,
    state: State,
    epoch: u64,
    down_before: Duration,
}

#[derive(Debug)]
enum State {
    Closed(Closed),
    Open(Open, Instant),
    Probing(Open),
}

#[derive(Debug, Default)]
struct Closed {
    failures: u32,
    unreachable: u32,
    keys: Vec<KeyId>,
    refusals: u32,
    /// The last outcomes; true for refusals.
    recent: VecDeque<bool>,
    /// Successes since it closed; `None` if it was never open.
    regained: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    cause: Cause,
    since: Instant,
    probes: u32,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            state: State::Closed(Closed::default()),
            epoch: 0,
            down_before: Duration::ZERO,
        }
    }

    /// A closed breaker in place of this one, for which attempts that are under way count no more.
    pub fn renewed(&self, rules: Rules) -> Self {
        Self {
            epoch: self.epoch + 1,
            ..Self::new(rules)
        }
    }

    /// Whether deliveries flow.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }

    /// Why it is open, when it is.
    pub fn cause(&self) -> Option<Cause> {
        match &self.state {
            State::Closed(_) => None,
            State::Open(open, _) | State::Probing(open) => Some(open.cause),
        }
    }

    /// How long it has been open in total: the time by which retry windows stand still.
    pub fn down_for(&self, now: Instant) -> Duration {
        match &self.state {
            State::Closed(_) => self.down_before,
            State::Open(open, _) | State::Probing(open) => {
                self.down_before + now.saturating_duration_since(open.since)
            }
        }
    }

    /// Marks an attempt that is started now.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// How many deliveries may be in flight, of at most `limit`.
    pub fn allowance(&self, limit: usize, now: Instant) -> Allowance {
        match &self.state {
            State::Closed(Closed { regained: None, .. }) => Allowance::Run(limit),
            // One more than twice what has passed doubles with each round of answers.
            State::Closed(Closed {
                regained: Some(n), ..
            }) => Allowance::Run(limit.min(n.saturating_mul(2).saturating_add(1))),
            State::Open(_, at) if *at <= now => Allowance::Probe,
            State::Open(_, at) => Allowance::Wait(Some(*at)),
            State::Probing(_) => Allowance::Wait(None),
        }
    }

    /// Says that the probe that [`allowance`](Breaker::allowance) granted is on its way; mark it with the epoch after this.
    pub fn probe_started(&mut self) {
        if let State::Open(open, _) = self.state {
            self.epoch += 1;
            self.state = State::Probing(open);
        }
    }

    /// Takes in what an attempt said.
    pub fn observe(
        &mut self,
        epoch: Epoch,
        key: KeyId,
        sign: Sign,
        now: Instant,
    ) -> Option<Change> {
        if epoch.0 != self.epoch {
            return None;
        }
        match &mut self.state {
            State::Closed(closed) => {
                let (cause, after) = closed.observe(&self.rules, key, sign)?;
                self.open(cause, after, now);
                Some(Change::Opened(cause))
            }
            // Outcomes of this epoch come from the probe alone, and it is not under way.
            State::Open(..) => None,
            State::Probing(open) => {
                let open = *open;
                self.probed(open, sign, now)
            }
        }
    }

    fn open(&mut self, cause: Cause, after: Option<Duration>, now: Instant) {
        self.epoch += 1;
        let open = Open {
            cause,
            since: now,
            probes: 1,
        };
        self.state = State::Open(open, now + self.pause(1, after));
    }

    fn probed(&mut self, open: Open, sign: Sign, now: Instant) -> Option<Change> {
        self.epoch += 1;
        match sign {
            Sign::Success => {
                self.down_before += now.saturating_duration_since(open.since);
                self.state = State::Closed(Closed {
                    regained: Some(1),
                    ..Closed::default()
                });
                return Some(Change::Closed);
            }
            Sign::None => self.state = State::Open(open, now),
            Sign::Failure { after, .. } => self.probe_later(open, after, now),
            Sign::Refusal => self.probe_later(open, None, now),
        }
        None
    }

    fn probe_later(&mut self, open: Open, after: Option<Duration>, now: Instant) {
        let probes = open.probes.saturating_add(1);
        let pause = self.pause(probes, after);
        self.state = State::Open(Open { probes, ..open }, now + pause);
    }

    fn pause(&self, probes: u32, after: Option<Duration>) -> Duration {
        self.rules
            .probe
            .delay(probes)
            .max(after.unwrap_or_default())
    }
}

impl Closed {
    /// Counts; returns why to open.
    fn observe(
        &mut self,
        rules: &Rules,
        key: KeyId,
        sign: Sign,
    ) -> Option<(Cause, Option<Duration>)> {
        match sign {
            Sign::None => None,
            Sign::Success => {
                self.failures = 0;
                self.unreachable = 0;
                self.keys.clear();
                self.refusals = 0;
                self.remember(rules, false);
                if let Some(regained) = &mut self.regained {
                    *regained = regained.saturating_add(1);
                }
                None
            }
            Sign::Failure { unreachable, after } => {
                self.failures = self.failures.saturating_add(1);
                self.unreachable = if unreachable { self.unreachable + 1 } else { 0 };
                if self.keys.len() < rules.keys && !self.keys.contains(&key) {
                    self.keys.push(key);
                }
                let of_many = self.failures >= rules.failures && self.keys.len() >= rules.keys;
                (of_many || self.unreachable >= rules.unreachable).then_some((Cause::Down, after))
            }
            Sign::Refusal => {
                self.refusals = self.refusals.saturating_add(1);
                self.remember(rules, true);
                let refused = self.recent.iter().filter(|r| **r).count();
                let is_flood = self.recent.len() >= rules.recent
                    && refused as f64 >= rules.refusal_share * self.recent.len() as f64;
                (is_flood || self.refusals >= rules.refusals).then_some((Cause::Flood, None))
            }
        }
    }

    fn remember(&mut self, rules: &Rules, refused: bool) {
        if self.recent.len() >= rules.recent {
            self.recent.pop_front();
        }
        self.recent.push_back(refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURE: Sign = Sign::Failure {
        unreachable: false,
        after: None,
    };
    const UNREACHABLE: Sign = Sign::Failure {
        unreachable: true,
        after: None,
    };

    fn rules() -> Rules {
        Rules {
            failures: 10,
            keys: 3,
            unreachable: 5,
            refusals: 20,
            refusal_share: 0.5,
            recent: 50,
            probe: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
        }
    }

    struct Run {
        breaker: Breaker,
        now: Instant,
    }

    impl Run {
        fn new() -> Self {
            Self {
                breaker: Breaker::new(rules()),
                now: Instant::now(),
            }
        }

        fn sign(&mut self, key: u128, sign: Sign) -> Option<Change> {
            let epoch = self.breaker.epoch();
            self.breaker.observe(epoch, KeyId(key), sign, self.now)
        }

        fn probe(&mut self, sign: Sign) -> Option<Change> {
            self.now += Duration::from_secs(60);
            assert_eq!(self.breaker.allowance(9, self.now), Allowance::Probe);
            self.breaker.probe_started();
            assert_eq!(self.breaker.allowance(9, self.now), Allowance::Wait(None));
            self.sign(1, sign)
        }

        fn down() -> Self {
            let mut run = Self::new();
            let changes: Vec<_> = (0..5).filter_map(|_| run.sign(1, UNREACHABLE)).collect();
            assert_eq!(changes, [Change::Opened(Cause::Down)]);
            run
        }
    }

    #[test]
    fn one_key_that_fails_for_ever_does_not_stop_the_others() {
        let mut run = Run::new();
        for _ in 0..1000 {
            assert_eq!(run.sign(1, FAILURE), None);
        }
        for _ in 0..1000 {
            run.sign(2, FAILURE);
            assert_eq!(run.sign(3, Sign::Success), None);
        }
        assert_eq!(run.breaker.allowance(9, run.now), Allowance::Run(9));
    }

    #[test]
    fn failures_of_several_keys_open_it_and_a_probe_closes_it() {
        let mut run = Run::new();
        let changes: Vec<_> = (0..10).filter_map(|i| run.sign(i % 3, FAILURE)).collect();
        assert_eq!(changes, [Change::Opened(Cause::Down)]);
        let Allowance::Wait(Some(at)) = run.breaker.allowance(9, run.now) else {
            panic!("it must wait before it asks");
        };
        assert!(at > run.now && at <= run.now + Duration::from_secs(1));
        assert_eq!(run.probe(FAILURE), None);
        assert!(!run.breaker.is_closed());
        assert_eq!(run.probe(Sign::Success), Some(Change::Closed));
        assert_eq!(run.breaker.down_for(run.now), Duration::from_secs(120));
    }

    #[test]
    fn after_it_closed_the_load_grows_with_the_answers() {
        let mut run = Run::down();
        run.probe(Sign::Success);
        let mut seen = Vec::new();
        for _ in 0..5 {
            let Allowance::Run(n) = run.breaker.allowance(100, run.now) else {
                panic!("closed")
            };
            seen.push(n);
            (0..n).for_each(|_| assert_eq!(run.sign(1, Sign::Success), None));
        }
        assert_eq!(seen, [3, 9, 27, 81, 100]);
    }

    #[test]
    fn answers_to_questions_from_before_it_opened_change_nothing() {
        let mut run = Run::new();
        let before = run.breaker.epoch();
        let changes = (0..5).filter_map(|_| run.sign(1, UNREACHABLE)).count();
        assert_eq!(changes, 1);
        let late = run
            .breaker
            .observe(before, KeyId(9), Sign::Success, run.now);
        assert_eq!(late, None);
        assert_eq!(run.breaker.cause(), Some(Cause::Down));
    }

    #[test]
    fn a_flood_of_refusals_opens_it_instead_of_emptying_the_backlog_into_the_dead_letters() {
        let mut run = Run::new();
        let mut refused = 0;
        while run.breaker.is_closed() {
            run.sign(refused, Sign::Refusal);
            refused += 1;
        }
        assert_eq!(refused, 20, "in a row");
        assert_eq!(run.breaker.cause(), Some(Cause::Flood));
        assert_eq!(run.probe(Sign::Refusal), None);
        assert_eq!(run.probe(Sign::Success), Some(Change::Closed));

        let mut run = Run::new();
        for i in 0..1000 {
            run.sign(
                i,
                if i % 3 == 0 {
                    Sign::Refusal
                } else {
                    Sign::Success
                },
            );
        }
        assert!(run.breaker.is_closed(), "a third is bearable");
        let mut more = 0;
        while run.breaker.is_closed() {
            run.sign(
                0,
                if more % 2 == 0 {
                    Sign::Refusal
                } else {
                    Sign::Success
                },
            );
            more += 1;
        }
        assert!(more <= 50, "half is not");
    }

    #[test]
    fn a_probe_comes_no_sooner_than_the_server_asked() {
        let mut run = Run::new();
        let asks = Sign::Failure {
            unreachable: false,
            after: Some(Duration::from_secs(600)),
        };
        let changes = (0..10).filter_map(|i| run.sign(i, asks)).count();
        assert_eq!(changes, 1);
        let wanted = run.now + Duration::from_secs(600);
        assert_eq!(
            run.breaker.allowance(9, run.now),
            Allowance::Wait(Some(wanted))
        );
    }

    #[test]
    fn a_probe_that_was_not_sent_is_repeated_at_once() {
        let mut run = Run::down();
        assert_eq!(run.probe(Sign::None), None);
        assert_eq!(run.breaker.allowance(9, run.now), Allowance::Probe);
    }
}
