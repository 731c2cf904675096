//! How the rows of staging files fit a table: which columns to add, and what each cell becomes. Pure.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;

use super::cell::Cell;
use super::columns::{self, Stored};
use super::files::{self, FileError};
use super::manifest::StagedColumn;
use super::schema::{ColumnType, TableSchema, diff};

/// Rows that are decoded at once.
const ROWS_AT_ONCE: usize = 1024;
/// Filled at load time.
pub const UUID_TS: &str = "uuid_ts";

/// What a table needs and what it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePlan {
    /// Columns to add before the rows, by name. All of them if the table is new.
    pub add: TableSchema,
    /// Columns that the rows have values for, with the table's types.
    pub columns: Vec<(String, ColumnType)>,
    /// Columns that the table has no room for; their values are discarded.
    pub refused: Vec<String>,
}

/// Plans for a table with columns `existing` (none for a new one) and staging files with columns `staged`, in the order in
/// which their values came.
pub fn plan<'s>(
    existing: &TableSchema,
    staged: impl IntoIterator<Item = &'s StagedColumn>,
    columns_max: usize,
) -> TablePlan {
    let mut incoming = TableSchema::new();
    for column in staged {
        let kind = column.stored.column_type();
        incoming
            .entry(column.name.clone())
            .and_modify(|first| *first = first.widen(kind))
            .or_insert(kind);
    }
    let wanted = incoming.clone();
    incoming.insert(UUID_TS.to_owned(), ColumnType::Datetime);
    let diff = diff(existing, &incoming, columns_max);
    let columns = wanted
        .into_iter()
        .filter(|(name, _)| !diff.refused.contains(name))
        .map(|(name, kind)| {
            let kind = existing.get(&name).copied().unwrap_or(kind);
            (name, kind)
        })
        .collect();
    TablePlan {
        add: diff.add,
        columns,
        refused: diff.refused,
    }
}

/// A value that did not fit; a row of `rudder_discards`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discard {
    /// `id` of the row that it was taken out of.
    pub row_id: String,
    /// The row's `received_at`, in milliseconds since the Unix epoch.
    pub received_at: i64,
    /// Column it did not fit.
    pub column: String,
    /// The value as text.
    pub value: String,
    /// Why.
    pub reason: String,
}

/// Rows of a staging file that fit a plan.
#[derive(Debug)]
pub struct Piece {
    batch: RecordBatch,
    /// Per planned column, the file's columns that hold its values.
    sources: Vec<Vec<(usize, Stored)>>,
    kinds: Vec<ColumnType>,
    names: Vec<String>,
    refused: Vec<(usize, Stored, String)>,
    id: Option<usize>,
    received_at: Option<usize>,
}

/// The rows of `file`, in pieces.
///
/// # Errors
/// The file cannot be read.
pub fn pieces<'p>(
    file: Bytes,
    plan: &'p TablePlan,
) -> Result<impl Iterator<Item = Result<Piece, FileError>> + Send + use<'p>, FileError> {
    let reader = files::decode(file, ROWS_AT_ONCE)?;
    Ok(reader.map(move |batch| Ok(Piece::new(batch?, plan))))
}

impl Piece {
    fn new(batch: RecordBatch, plan: &TablePlan) -> Self {
        let mut by_column: HashMap<String, Vec<(usize, Stored)>> = HashMap::new();
        for (at, field) in batch.schema().fields().iter().enumerate() {
            if let Some((name, stored)) = columns::warehouse_column(field) {
                let sources = by_column.entry(name.to_owned()).or_default();
                sources.push((at, stored));
            }
        }
        let sources = plan
            .columns
            .iter()
            .map(|(name, _)| by_column.get(name).cloned().unwrap_or_default())
            .collect();
        let refused = plan
            .refused
            .iter()
            .flat_map(|name| {
                let sources = by_column.get(name).cloned().unwrap_or_default();
                sources
                    .into_iter()
                    .map(move |(at, stored)| (at, stored, name.clone()))
            })
            .collect();
        let named = |wanted: &str| {
            plan.columns
                .iter()
                .position(|(name, _)| name.eq_ignore_ascii_case(wanted))
        };
        Self {
            sources,
            refused,
            kinds: plan.columns.iter().map(|&(_, kind)| kind).collect(),
            names: plan.columns.iter().map(|(name, _)| name.clone()).collect(),
            id: named("id"),
            received_at: named("received_at"),
            batch,
        }
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The cells of a row in the order of the plan's columns; what does not fit is null and in `discards`.
    pub fn row<'b>(&'b self, row: usize, discards: &mut Vec<Discard>) -> Vec<Option<Cell<'b>>> {
        let mut misfits: Vec<(&str, Cell<'b>, String)> = Vec::new();
        let mut cells = Vec::with_capacity(self.sources.len());
        for (at, sources) in self.sources.iter().enumerate() {
            let found = sources
                .iter()
                .find_map(|&(column, stored)| cell(self.batch.column(column), stored, row));
            let fits = match found {
                None => None,
                Some(value) => match value.clone().coerce(self.kinds[at]) {
                    Ok(fits) => Some(fits),
                    Err(misfit) => {
                        misfits.push((&self.names[at], value, misfit.to_string()));
                        None
                    }
                },
            };
            cells.push(fits);
        }
        for (column, stored, name) in &self.refused {
            if let Some(value) = cell(self.batch.column(*column), *stored, row) {
                misfits.push((
                    name,
                    value,
                    "the table has no room for more columns".to_owned(),
                ));
            }
        }
        if !misfits.is_empty() {
            self.discard(&cells, misfits, discards);
        }
        cells
    }

    /// Only rows with an id and a time have discards, as in RudderStack: nothing else would say whose they are.
    fn discard(
        &self,
        cells: &[Option<Cell<'_>>],
        misfits: Vec<(&str, Cell<'_>, String)>,
        discards: &mut Vec<Discard>,
    ) {
        let at = |index: Option<usize>| index.and_then(|at| cells[at].clone());
        let (Some(id), Some(Cell::Datetime(received_at))) = (at(self.id), at(self.received_at))
        else {
            return;
        };
        let id = id.into_text();
        discards.extend(misfits.into_iter().map(|(column, value, reason)| Discard {
            row_id: id.to_string(),
            received_at,
            column: column.to_owned(),
            value: value.into_text().into_owned(),
            reason,
        }));
    }
}

fn cell<'b>(column: &'b ArrayRef, stored: Stored, row: usize) -> Option<Cell<'b>> {
    if column.is_null(row) {
        return None;
    }
    let text = || column.as_string::<i32>().value(row);
    Some(match stored {
        Stored::Int => Cell::Int(column.as_primitive::<Int64Type>().value(row)),
        Stored::Float => Cell::Float(column.as_primitive::<Float64Type>().value(row)),
        Stored::Boolean => Cell::Bool(column.as_boolean().value(row)),
        Stored::Datetime => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            Cell::Datetime(micros.div_euclid(1000))
        }
        Stored::String | Stored::Text => Cell::Text(text().into()),
        Stored::Json => Cell::Json(text().into()),
        Stored::Array => Cell::Array(text().into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warehouse::columns::TableBuffer;
    use crate::warehouse::rows::{Column, Row};

    fn column(name: &str, stored: Stored) -> StagedColumn {
        StagedColumn {
            name: name.to_owned(),
            stored,
        }
    }

    fn file(rows: &[&[(&str, ColumnType, Cell<'static>)]]) -> Bytes {
        let mut buffer = TableBuffer::new();
        for row in rows {
            let columns = row.iter().cloned().map(|(name, kind, cell)| Column {
                name: name.into(),
                kind,
                cell,
            });
            buffer.append(&Row {
                table: "t".into(),
                columns: columns.collect(),
            });
        }
        files::encode(&buffer.finish().unwrap()).unwrap()
    }

    #[test]
    fn a_new_table_takes_the_first_type_of_each_column_and_uuid_ts() {
        let staged = [
            column("id", Stored::String),
            column("plan", Stored::Int),
            column("plan", Stored::String),
            column("tags", Stored::Array),
        ];
        let plan = plan(&TableSchema::new(), &staged, 100);
        let kinds: Vec<_> = plan
            .columns
            .iter()
            .map(|(n, k)| format!("{n}:{k}"))
            .collect();
        assert_eq!(kinds, ["id:string", "plan:int", "tags:string"]);
        assert_eq!(plan.add.len(), 4);
        assert_eq!(plan.add[UUID_TS], ColumnType::Datetime);
    }

    #[test]
    fn the_warehouses_type_decides_and_what_does_not_fit_is_discarded_while_its_row_stays() {
        let existing: TableSchema = [
            ("id".to_owned(), ColumnType::String),
            ("plan".to_owned(), ColumnType::Int),
        ]
        .into();
        let staged = [
            column("id", Stored::String),
            column("received_at", Stored::Datetime),
            column("plan", Stored::String),
            column("plan", Stored::Int),
        ];
        let plan = plan(&existing, &staged, 100);
        let id = |id: &'static str| ("id", ColumnType::String, Cell::Text(id.into()));
        let at = |ms| ("received_at", ColumnType::Datetime, Cell::Datetime(ms));
        let file = file(&[
            &[
                id("a"),
                at(1),
                ("plan", ColumnType::String, Cell::Text("pro".into())),
            ],
            &[id("b"), at(2), ("plan", ColumnType::Int, Cell::Int(7))],
        ]);
        let mut discards = Vec::new();
        let pieces: Vec<Piece> = pieces(file, &plan).unwrap().map(Result::unwrap).collect();
        let rows: Vec<_> = (0..2)
            .map(|row| pieces[0].row(row, &mut discards))
            .collect();
        // Columns of the plan are in the order of their names.
        assert_eq!(plan.columns[1].0, "plan");
        assert_eq!(rows[0][1], None);
        assert_eq!(rows[1][1], Some(Cell::Int(7)));
        let expected = Discard {
            row_id: "a".into(),
            received_at: 1,
            column: "plan".into(),
            value: "pro".into(),
            reason: "incompatible schema conversion from int to string".into(),
        };
        assert_eq!(discards, [expected]);
    }

    #[test]
    fn values_without_room_for_their_column_are_discarded() {
        let staged = [
            column("a", Stored::Int),
            column("id", Stored::String),
            column("received_at", Stored::Datetime),
            column("z", Stored::Int),
        ];
        let existing: TableSchema = [(UUID_TS.to_owned(), ColumnType::Datetime)].into();
        let plan = plan(&existing, &staged, 4);
        assert_eq!(plan.refused, ["z"]);
        let file = file(&[&[
            ("a", ColumnType::Int, Cell::Int(1)),
            ("id", ColumnType::String, Cell::Text("x".into())),
            ("received_at", ColumnType::Datetime, Cell::Datetime(5)),
            ("z", ColumnType::Int, Cell::Int(9)),
        ]]);
        let mut discards = Vec::new();
        for piece in pieces(file, &plan).unwrap() {
            piece.unwrap().row(0, &mut discards);
        }
        assert_eq!((discards.len(), discards[0].value.as_str()), (1, "9"));
    }
}
