//! Rows into Arrow columns.
//!
//! A table of a batch is a set of growing columns; nothing is written before the batch is cut, because an idle Parquet
//! writer costs 0.7 MB and there is one table per event name. The type of a *warehouse* column is not known here: another
//! process may have created it. So a value keeps the type that it was inferred with, and a column that meets two types
//! becomes two Arrow columns, `plan` and `plan:int`. The loader, which knows the warehouse, brings them together
//! ([`super::load`]); nothing is lost or discarded before that.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::compute::{SortOptions, sort_to_indices, take};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use super::cell::Cell;
use super::rows::Row;
use super::schema::ColumnType;
use crate::clock::UnixMs;

/// How a value is stored in a file: a column type, and the one case where text is more than its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stored {
    /// 64-bit integer.
    Int,
    /// Double-precision number.
    Float,
    /// Text of type string.
    String,
    /// Text of type text.
    Text,
    /// Boolean.
    Boolean,
    /// Microseconds since the Unix epoch, UTC.
    Datetime,
    /// JSON text.
    Json,
    /// JSON text of an array, of type string.
    Array,
}

impl Stored {
    fn of(kind: ColumnType, cell: &Cell<'_>) -> Self {
        match cell {
            Cell::Int(_) => Self::Int,
            Cell::Float(_) => Self::Float,
            Cell::Bool(_) => Self::Boolean,
            Cell::Datetime(_) => Self::Datetime,
            Cell::Json(_) => Self::Json,
            Cell::Array(_) if kind == ColumnType::Text => Self::Text,
            Cell::Array(_) => Self::Array,
            Cell::Text(_) if kind == ColumnType::Text => Self::Text,
            Cell::Text(_) => Self::String,
        }
    }

    /// The type of a new warehouse column for such values.
    pub fn column_type(self) -> ColumnType {
        match self {
            Self::Int => ColumnType::Int,
            Self::Float => ColumnType::Float,
            Self::String | Self::Array => ColumnType::String,
            Self::Text => ColumnType::Text,
            Self::Boolean => ColumnType::Boolean,
            Self::Datetime => ColumnType::Datetime,
            Self::Json => ColumnType::Json,
        }
    }

    /// Word in file and manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Float => "float",
            Self::String => "string",
            Self::Text => "text",
            Self::Boolean => "boolean",
            Self::Datetime => "datetime",
            Self::Json => "json",
            Self::Array => "array",
        }
    }

    /// The word's meaning.
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "int" => Self::Int,
            "float" => Self::Float,
            "string" => Self::String,
            "text" => Self::Text,
            "boolean" => Self::Boolean,
            "datetime" => Self::Datetime,
            "json" => Self::Json,
            "array" => Self::Array,
            _ => return None,
        })
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Boolean => DataType::Boolean,
            Self::Datetime => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            Self::String | Self::Text | Self::Json | Self::Array => DataType::Utf8,
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Field metadata: the warehouse column that a file's column belongs to.
const COLUMN_KEY: &str = "sluice.column";
/// Field metadata: [`Stored::as_str`].
const STORED_KEY: &str = "sluice.stored";
/// The column that every row has and files are sorted by, in any case.
pub const RECEIVED_AT: &str = "received_at";

/// The warehouse column that a file's column belongs to, and how its values are stored; `None` for a foreign column.
pub fn warehouse_column(field: &Field) -> Option<(&str, Stored)> {
    let name = field.metadata().get(COLUMN_KEY)?;
    let stored = Stored::parse(field.metadata().get(STORED_KEY)?)?;
    Some((name, stored))
}

/// The rows of one table of one batch.
#[derive(Debug)]
pub struct TableBuffer {
    rows: usize,
    bytes: usize,
    columns: Vec<Growing>,
    at: HashMap<(Arc<str>, Stored), usize>,
}

#[derive(Debug)]
struct Growing {
    name: Arc<str>,
    stored: Stored,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Int(Int64Builder),
    Float(Float64Builder),
    Boolean(BooleanBuilder),
    Datetime(TimestampMicrosecondBuilder),
    Text(StringBuilder),
}

impl TableBuffer {
    /// No rows yet.
    pub fn new() -> Self {
        Self {
            rows: 0,
            bytes: 0,
            columns: Vec::new(),
            at: HashMap::new(),
        }
    }

    /// Rows appended.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that the columns hold, without what their vectors keep in reserve.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a row and returns by how many bytes the buffer grew.
    pub fn append(&mut self, row: &Row<'_>) -> usize {
        let before = self.bytes;
        for column in &row.columns {
            let stored = Stored::of(column.kind, &column.cell);
            let at = self.column(&column.name, stored);
            let growing = &mut self.columns[at];
            let missing = self.rows - growing.values.len();
            growing.values.append_nulls(missing);
            growing.values.append(&column.cell);
            self.bytes += missing * stored.null_bytes() + column.cell.size() + stored.null_bytes();
        }
        self.rows += 1;
        self.bytes - before
    }

    fn column(&mut self, name: &Arc<str>, stored: Stored) -> usize {
        if let Some(&at) = self.at.get(&(name.clone(), stored)) {
            return at;
        }
        let at = self.columns.len();
        self.columns.push(Growing {
            name: name.clone(),
            stored,
            values: Values::new(stored),
        });
        self.at.insert((name.clone(), stored), at);
        self.bytes += COLUMN_BYTES;
        at
    }

    /// The rows as one batch, sorted by `received_at`, and the buffer is empty again.
    ///
    /// Columns stand in the order in which their first value came: of one warehouse column the first is the one that decides
    /// its type if it is new.
    ///
    /// # Errors
    /// Arrow refuses the columns, which would be a bug here.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let columns = std::mem::take(&mut self.columns);
        self.at.clear();
        self.bytes = 0;
        let mut fields = Vec::with_capacity(columns.len());
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
        let mut seen: HashSet<Arc<str>> = HashSet::with_capacity(columns.len());
        for mut growing in columns {
            let missing = rows - growing.values.len();
            growing.values.append_nulls(missing);
            let in_file = if seen.insert(growing.name.clone()) {
                growing.name.to_string()
            } else {
                format!("{}:{}", growing.name, growing.stored)
            };
            fields.push(
                Field::new(in_file, growing.stored.data_type(), true).with_metadata(HashMap::from(
                    [
                        (COLUMN_KEY.to_owned(), growing.name.to_string()),
                        (STORED_KEY.to_owned(), growing.stored.as_str().to_owned()),
                    ],
                )),
            );
            arrays.push(growing.values.finish());
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
        sorted_by_received_at(batch)
    }
}

impl Default for TableBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// What a column costs before its first value: builder, name, index entry.
const COLUMN_BYTES: usize = 512;

impl Stored {
    /// What a null costs: a fixed-width slot or an offset, and its bit.
    fn null_bytes(self) -> usize {
        match self {
            Self::Int | Self::Float | Self::Datetime => 9,
            Self::Boolean => 1,
            Self::String | Self::Text | Self::Json | Self::Array => 5,
        }
    }
}

impl Values {
    fn new(stored: Stored) -> Self {
        match stored {
            Stored::Int => Self::Int(Int64Builder::new()),
            Stored::Float => Self::Float(Float64Builder::new()),
            Stored::Boolean => Self::Boolean(BooleanBuilder::new()),
            Stored::Datetime => {
                Self::Datetime(TimestampMicrosecondBuilder::new().with_timezone("+00:00"))
            }
            Stored::String | Stored::Text | Stored::Json | Stored::Array => {
                // Small, because most tables of a batch have a handful of rows.
                Self::Text(StringBuilder::with_capacity(16, 256))
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Int(b) => b.len(),
            Self::Float(b) => b.len(),
            Self::Boolean(b) => b.len(),
            Self::Datetime(b) => b.len(),
            Self::Text(b) => b.len(),
        }
    }

    fn append_nulls(&mut self, n: usize) {
        match self {
            Self::Int(b) => b.append_nulls(n),
            Self::Float(b) => b.append_nulls(n),
            Self::Boolean(b) => b.append_nulls(n),
            Self::Datetime(b) => b.append_nulls(n),
            Self::Text(b) => b.append_nulls(n),
        }
    }

    fn append(&mut self, cell: &Cell<'_>) {
        match (self, cell) {
            (Self::Int(b), Cell::Int(int)) => b.append_value(*int),
            (Self::Float(b), Cell::Float(float)) => b.append_value(*float),
            (Self::Boolean(b), Cell::Bool(flag)) => b.append_value(*flag),
            (Self::Datetime(b), Cell::Datetime(ms)) => b.append_value(micros(*ms)),
            (Self::Text(b), Cell::Text(text) | Cell::Json(text) | Cell::Array(text)) => {
                b.append_value(text);
            }
            // A column is chosen by the value's own storage, so this would be a bug; a null keeps the columns aligned.
            (other, _) => {
                debug_assert!(false, "value and column disagree");
                other.append_nulls(1);
            }
        }
    }

    fn finish(mut self) -> ArrayRef {
        match &mut self {
            Self::Int(b) => Arc::new(b.finish()),
            Self::Float(b) => Arc::new(b.finish()),
            Self::Boolean(b) => Arc::new(b.finish()),
            Self::Datetime(b) => Arc::new(b.finish()),
            Self::Text(b) => Arc::new(b.finish()),
        }
    }
}

/// Times lie within the years 1 to 9999, so that microseconds fit.
fn micros(ms: UnixMs) -> i64 {
    ms.saturating_mul(1000)
}

fn sorted_by_received_at(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let at = schema.fields().iter().position(|field| {
        field.name().eq_ignore_ascii_case(RECEIVED_AT)
            && matches!(field.data_type(), DataType::Timestamp(_, _))
    });
    let Some(at) = at else {
        return Ok(batch);
    };
    let options = SortOptions {
        descending: false,
        nulls_first: true,
    };
    let order = sort_to_indices(batch.column(at), Some(options), None)?;
    if order.values().is_sorted() {
        return Ok(batch);
    }
    let columns = batch
        .columns()
        .iter()
        .map(|column| take(column, &order, None))
        .collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema, columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warehouse::rows::Column;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

    fn row(columns: Vec<(&str, ColumnType, Cell<'static>)>) -> Row<'static> {
        Row {
            table: "t".into(),
            columns: columns
                .into_iter()
                .map(|(name, kind, cell)| Column {
                    name: name.into(),
                    kind,
                    cell,
                })
                .collect(),
        }
    }

    fn at(ms: i64) -> (&'static str, ColumnType, Cell<'static>) {
        ("received_at", ColumnType::Datetime, Cell::Datetime(ms))
    }

    #[test]
    fn a_column_that_appears_late_is_null_before_and_one_that_stops_is_null_after() {
        let mut buffer = TableBuffer::new();
        buffer.append(&row(vec![at(1), ("a", ColumnType::Int, Cell::Int(1))]));
        buffer.append(&row(vec![at(2), ("b", ColumnType::Int, Cell::Int(2))]));
        let batch = buffer.finish().unwrap();
        let column = |name: &str| {
            let array = batch.column_by_name(name).unwrap();
            array.as_primitive::<Int64Type>().iter().collect::<Vec<_>>()
        };
        assert_eq!(column("a"), [Some(1), None]);
        assert_eq!(column("b"), [None, Some(2)]);
        assert_eq!((buffer.rows(), buffer.bytes()), (0, 0));
    }

    #[test]
    fn a_column_of_two_types_keeps_both_under_one_name() {
        let mut buffer = TableBuffer::new();
        buffer.append(&row(vec![
            at(1),
            ("plan", ColumnType::String, Cell::Text("pro".into())),
        ]));
        buffer.append(&row(vec![at(2), ("plan", ColumnType::Int, Cell::Int(7))]));
        let batch = buffer.finish().unwrap();
        let schema = batch.schema();
        let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["received_at", "plan", "plan:int"]);
        let variant = schema.field_with_name("plan:int").unwrap();
        assert_eq!(variant.metadata()[COLUMN_KEY], "plan");
        assert_eq!(variant.metadata()[STORED_KEY], "int");
    }

    #[test]
    fn rows_leave_sorted_by_received_at_with_their_columns_still_beside_each_other() {
        let mut buffer = TableBuffer::new();
        for ms in [3, 1, 2] {
            buffer.append(&row(vec![
                at(ms),
                ("n", ColumnType::Int, Cell::Int(ms * 10)),
            ]));
        }
        let batch = buffer.finish().unwrap();
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let numbers = batch.column(1).as_primitive::<Int64Type>();
        assert_eq!(times.values().as_ref(), [1000, 2000, 3000]);
        assert_eq!(numbers.values().as_ref(), [10, 20, 30]);
        assert_eq!(numbers.null_count(), 0);
    }

    #[test]
    fn the_size_grows_with_every_value_and_every_null() {
        let mut buffer = TableBuffer::new();
        let first = buffer.append(&row(vec![at(1)]));
        let second = buffer.append(&row(vec![
            at(2),
            ("s", ColumnType::String, Cell::Text("x".repeat(1000).into())),
        ]));
        assert!(first > 0 && second > 1000);
        assert_eq!(buffer.bytes(), first + second);
    }
}
