//! Where a request's records go. Pure.
//!
//! ```text
//!            Kafka is away, or does not acknowledge                     little is left
//!   direct ────────────────────────────────────────▶ spilling ────────────────────────▶ closing
//!     ▲                                                  ▲                                  │
//!     │                                                  └──── Kafka is away again ─────────┤
//!     └────────────────────────── nothing is left ──────────────────────────────────────────┘
//! ```
//! As long as a record waits in the spill, later ones go behind it: so the events of a user keep their order. Under steady
//! load that would never end, because something new always waits; so when little is left, new requests are held for the
//! moment that it takes to send the rest (*closing*), and then go to Kafka directly.

/// What new requests do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// They go to Kafka.
    Direct,
    /// They go to the spill.
    Spilling,
    /// They wait for one of the others.
    Closing,
}

/// The bytes that may lie in the spill are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// What is in the spill, and what that means for new requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flow {
    mode: Mode,
    records: u64,
    bytes: u64,
    bytes_max: u64,
    others: u64,
}

impl Flow {
    /// A spill that holds `records` in `bytes` from an earlier life.
    pub(super) fn new(records: u64, bytes: u64, bytes_max: u64) -> Self {
        Self {
            mode: if records == 0 {
                Mode::Direct
            } else {
                Mode::Spilling
            },
            records,
            bytes,
            bytes_max,
            others: 0,
        }
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Records taken and not yet settled.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of the folder: taken, and not released by the deletion of their segment; and the other files there.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.saturating_add(self.others)
    }

    /// Whether `bytes` more could be taken.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.bytes().saturating_add(bytes) <= self.bytes_max
    }

    /// Takes a request's records into the spill; from here on all others go behind them.
    pub(super) fn take(&mut self, records: u64, bytes: u64) -> Result<(), Full> {
        if !self.has_room(bytes) {
            return Err(Full);
        }
        self.bytes += bytes;
        self.records += records;
        if self.mode == Mode::Direct && records > 0 {
            self.mode = Mode::Spilling;
        }
        Ok(())
    }

    /// Records are not the spill's business any more: Kafka has them, or the disk refused them, or they are kept aside.
    pub(super) fn settle(&mut self, records: u64) {
        self.records = self.records.saturating_sub(records);
        if self.records == 0 {
            self.mode = Mode::Direct;
        }
    }

    /// Bytes that are not on the disk any more.
    pub(super) fn release(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Bytes of files in the folder that are no segments: what was kept aside for the operator.
    pub(super) fn others(&mut self, bytes: u64) {
        self.others = bytes;
    }

    /// Kafka takes records; holds new requests back when there is little left.
    pub(super) fn close(&mut self, little: u64) {
        if self.mode == Mode::Spilling && self.records <= little {
            self.mode = Mode::Closing;
        }
    }

    /// Kafka does not take records after all.
    pub(super) fn reopen(&mut self) {
        if self.mode == Mode::Closing {
            self.mode = Mode::Spilling;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_outage_from_the_first_record_to_the_last() {
        let mut flow = Flow::new(0, 0, 100);
        flow.close(10);
        assert_eq!(flow.mode(), Mode::Direct);
        flow.take(20, 20).unwrap();
        assert_eq!(flow.mode(), Mode::Spilling);
        flow.close(10);
        assert_eq!(flow.mode(), Mode::Spilling, "much is left");
        flow.settle(15);
        flow.close(10);
        assert_eq!(flow.mode(), Mode::Closing);
        // A request that was sent to Kafka before and got no acknowledgement.
        flow.take(1, 1).unwrap();
        assert_eq!(flow.mode(), Mode::Closing);
        flow.reopen();
        assert_eq!(flow.mode(), Mode::Spilling);
        flow.settle(6);
        assert_eq!(flow.mode(), Mode::Direct);
        assert_eq!(flow.bytes(), 21, "the file is still there");
        flow.release(21);
        assert_eq!(flow.bytes(), 0);
    }

    #[test]
    fn what_is_kept_aside_counts_against_the_room() {
        let mut flow = Flow::new(0, 0, 100);
        flow.others(60);
        assert_eq!(flow.take(1, 50), Err(Full));
        assert_eq!(flow.mode(), Mode::Direct);
        flow.others(0);
        flow.take(1, 50).unwrap();
    }

    #[test]
    fn what_an_earlier_life_left_goes_first() {
        assert_eq!(Flow::new(1, 10, 100).mode(), Mode::Spilling);
        assert_eq!(Flow::new(0, 10, 100).mode(), Mode::Direct);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Take(u64),
        Settle(u64),
        Close,
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..20_u64).prop_map(Step::Take),
            (1..20_u64).prop_map(Step::Settle),
            Just(Step::Close),
            Just(Step::Reopen),
        ]
    }

    proptest! {
        #[test]
        fn requests_go_directly_exactly_while_nothing_waits(steps in prop::collection::vec(step(), 0..200)) {
            let mut flow = Flow::new(0, 0, 300);
            let mut waiting = 0;
            for step in steps {
                match step {
                    Step::Take(n) => if flow.take(n, n).is_ok() { waiting += n },
                    Step::Settle(n) => {
                        let n = n.min(waiting);
                        waiting -= n;
                        flow.settle(n);
                    }
                    Step::Close => flow.close(5),
                    Step::Reopen => flow.reopen(),
                }
                prop_assert_eq!(flow.records(), waiting);
                prop_assert_eq!(flow.mode() == Mode::Direct, waiting == 0);
                prop_assert!(flow.bytes() <= 300);
            }
        }
    }
}
