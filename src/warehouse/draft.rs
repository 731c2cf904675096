//! A row while it is written: later writes win.

use std::sync::Arc;

use super::cell::Cell;
use super::rows::{Column, EventType};
use super::schema::ColumnType;

type Write<'a> = (Arc<str>, Option<(ColumnType, Cell<'a>)>);

/// Writes in order; `None` takes a column out again.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft<'a> {
    writes: Vec<Write<'a>>,
}

impl<'a> Draft<'a> {
    /// Writes a column over whatever it was.
    pub(super) fn set(&mut self, name: Arc<str>, kind: ColumnType, cell: Cell<'a>) {
        self.writes.push((name, Some((kind, cell))));
    }

    /// Takes a column out. (Matters where a reserved word made a user's key and a default column meet after all.)
    pub(super) fn remove(&mut self, name: Arc<str>) {
        self.writes.push((name, None));
    }

    /// Writes columns over this draft.
    pub(super) fn extend(&mut self, later: Vec<Column<'a>>) {
        self.writes.extend(
            later
                .into_iter()
                .map(|column| (column.name, Some((column.kind, column.cell)))),
        );
    }

    /// The columns that remain, sorted by name.
    pub(super) fn finish(self) -> Vec<Column<'a>> {
        let mut writes = self.writes;
        // Stable, so that of one column's writes the last stays last.
        writes.sort_by(|a, b| a.0.cmp(&b.0));
        let mut columns: Vec<Column<'a>> = Vec::with_capacity(writes.len());
        let mut writes = writes.into_iter().peekable();
        while let Some((name, value)) = writes.next() {
            if writes.peek().is_some_and(|(next, _)| *next == name) {
                continue;
            }
            if let Some((kind, cell)) = value {
                columns.push(Column { name, kind, cell });
            }
        }
        columns
    }
}

const EVERY: [&str; 11] = [
    "id",
    "anonymous_id",
    "user_id",
    "sent_at",
    "timestamp",
    "received_at",
    "original_timestamp",
    "channel",
    "context_ip",
    "context_request_ip",
    "context_passed_ip",
];

/// Whether a column is written by rules for this event type, so that a user's key of that name is dropped.
pub(super) fn is_default(kind: EventType, column: &str) -> bool {
    let (common, own): (&[&str], &[&str]) = match kind {
        EventType::Track => (&EVERY, &["event_text", "record_id"]),
        EventType::Identify => (&EVERY, &[]),
        EventType::Page | EventType::Screen => (&EVERY, &["name"]),
        EventType::Group => (&EVERY, &["group_id"]),
        EventType::Alias => (&EVERY, &["previous_id"]),
        EventType::Extract => (&[], &["id", "received_at", "event"]),
        EventType::Merge => (&[], &[]),
    };
    common
        .iter()
        .chain(own)
        .any(|known| known.eq_ignore_ascii_case(column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_of_a_column_wins_even_when_it_removes() {
        let mut draft = Draft::default();
        let name = |text: &str| Arc::<str>::from(text);
        draft.set(name("b"), ColumnType::Int, Cell::Int(1));
        draft.set(name("a"), ColumnType::Int, Cell::Int(2));
        draft.set(name("b"), ColumnType::Int, Cell::Int(3));
        draft.set(name("c"), ColumnType::Int, Cell::Int(4));
        draft.remove(name("c"));
        let columns = draft.finish();
        let cells: Vec<_> = columns.iter().map(|c| (&*c.name, &c.cell)).collect();
        assert_eq!(cells, [("a", &Cell::Int(2)), ("b", &Cell::Int(3))]);
    }
}
