//! The rows of one partition that are in no file yet, and when they become one. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::columns::TableBuffer;
use super::rows::Row;
use crate::config::BatchConfig;
use crate::kafka::Record;

/// A namespace and a table.
pub type TableKey = (Arc<str>, Arc<str>);

/// The rows of a range of one partition.
#[derive(Debug)]
pub struct Batch {
    /// The chain's end: where the range begins.
    pub start: i64,
    /// The offset after the last record taken in.
    pub next: i64,
    /// Events taken in.
    pub events: u64,
    /// Rows by table.
    pub tables: BTreeMap<TableKey, TableBuffer>,
    /// Events that cannot become rows, as they go to `dlq.warehouse`, by reason.
    pub rejected: Vec<Rejected>,
    bytes: usize,
    opened: Option<Instant>,
}

/// An event that cannot become rows.
#[derive(Debug)]
pub struct Rejected {
    /// Why, for the ledger.
    pub reason: crate::event::DeadLetterReason,
    /// The dead letter.
    pub letter: Record,
}

/// Why a batch is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Its oldest row is old enough.
    Age,
    /// It is large enough.
    Bytes,
    /// It has rows for many tables.
    Tables,
    /// Memory runs out over all partitions, and it is the largest.
    Memory,
    /// The role stops.
    Shutdown,
}

impl Cut {
    /// Word in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Bytes => "bytes",
            Self::Tables => "tables",
            Self::Memory => "memory",
            Self::Shutdown => "shutdown",
        }
    }
}

impl Batch {
    /// Nothing yet, from `start` on.
    pub fn new(start: i64) -> Self {
        Self {
            start,
            next: start,
            events: 0,
            tables: BTreeMap::new(),
            rejected: Vec::new(),
            bytes: 0,
            opened: None,
        }
    }

    /// Takes in the rows of the event at `offset`.
    pub fn add(&mut self, offset: i64, namespace: &Arc<str>, rows: &[Row<'_>], now: Instant) {
        self.advance(offset, now);
        for row in rows {
            let key = (Arc::clone(namespace), Arc::clone(&row.table));
            let buffer = self.tables.entry(key).or_default();
            self.bytes += buffer.append(row);
        }
    }

    /// Takes in an event that cannot become rows.
    pub fn reject(&mut self, offset: i64, rejected: Rejected, now: Instant) {
        self.advance(offset, now);
        self.bytes += rejected.letter.as_ref().size();
        self.rejected.push(rejected);
    }

    /// Takes in an event that is for nobody any more.
    pub fn skip(&mut self, offset: i64, now: Instant) {
        self.advance(offset, now);
    }

    fn advance(&mut self, offset: i64, now: Instant) {
        self.next = offset + 1;
        self.events += 1;
        self.opened.get_or_insert(now);
    }

    /// Whether there is nothing to write down.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Bytes of its rows.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether to cut now, by the batch's own measure.
    pub fn cut(&self, limits: &BatchConfig, now: Instant) -> Option<Cut> {
        let age = self.opened.map(|opened| now.duration_since(opened))?;
        if self.bytes >= limits.bytes_max {
            Some(Cut::Bytes)
        } else if self.tables.len() >= limits.tables_max {
            Some(Cut::Tables)
        } else if age >= limits.age_max() {
            Some(Cut::Age)
        } else {
            None
        }
    }

    /// How long until its age cuts it.
    pub fn due_in(&self, limits: &BatchConfig, now: Instant) -> Option<Duration> {
        let opened = self.opened?;
        Some((opened + limits.age_max()).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warehouse::Cell;
    use crate::warehouse::rows::Column;
    use crate::warehouse::schema::ColumnType;

    fn row(text: &str) -> Row<'_> {
        Row {
            table: "tracks".into(),
            columns: vec![Column {
                name: "id".into(),
                kind: ColumnType::String,
                cell: Cell::Text(text.into()),
            }],
        }
    }

    #[test]
    fn a_batch_is_cut_by_age_from_its_first_event_and_by_size() {
        let limits = BatchConfig {
            age_ms_max: 1_000,
            bytes_max: 100_000,
            ..BatchConfig::default()
        };
        let (now, ns) = (Instant::now(), Arc::from("ns"));
        let mut batch = Batch::new(7);
        assert_eq!(batch.cut(&limits, now + Duration::from_secs(99)), None);
        batch.add(9, &ns, &[row("a")], now);
        assert_eq!((batch.start, batch.next, batch.events), (7, 10, 1));
        assert_eq!(batch.cut(&limits, now), None);
        assert_eq!(batch.due_in(&limits, now), Some(Duration::from_secs(1)));
        let later = now + Duration::from_secs(1);
        assert_eq!(batch.cut(&limits, later), Some(Cut::Age));
        batch.add(10, &ns, &[row(&"x".repeat(100_000))], now);
        assert_eq!(batch.cut(&limits, now), Some(Cut::Bytes));
    }

    #[test]
    fn a_batch_of_events_for_nobody_is_written_down_too_or_its_partition_would_not_move() {
        let mut batch = Batch::new(0);
        batch.skip(4, Instant::now());
        assert!(!batch.is_empty());
        assert_eq!((batch.next, batch.tables.len()), (5, 0));
    }
}
