//! One value of a row: how it is typed, and what becomes of it when the column has another type.

use std::borrow::Cow;

use serde_json::Value;

use super::datetime;
use super::schema::ColumnType;
use crate::clock::UnixMs;

/// A value as it goes into a column. Text borrows from the event that it came with.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// An integral number that fits a 64-bit column.
    Int(i64),
    /// Any other number, an integral one beyond 64 bits included.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// Text.
    Text(Cow<'a, str>),
    /// An instant, in milliseconds since the Unix epoch.
    Datetime(UnixMs),
    /// JSON text of a value that a JSON path points at.
    Json(Cow<'a, str>),
    /// JSON text of an array. Typed `string`, but kept as JSON by a column that can.
    Array(Cow<'a, str>),
}

/// Why a value does not go into its column; the text of `rudder_discards.reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// The types do not convert.
    Type {
        /// Type of the column.
        column: ColumnType,
        /// Type of the value.
        value: ColumnType,
    },
    /// The types convert, this number does not fit 64 bits.
    OutOfRange,
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // RudderStack's text, which is what people search their discards for.
            Self::Type { column, value } => {
                write!(f, "incompatible schema conversion from {column} to {value}")
            }
            Self::OutOfRange => write!(f, "number out of the range of a 64-bit integer"),
        }
    }
}

impl<'a> Cell<'a> {
    /// The value and its type; `None` for null. Objects do not come here: they are flattened or written as JSON text.
    pub fn infer(value: &'a Value) -> Option<(ColumnType, Self)> {
        Some(match value {
            Value::Null => return None,
            Value::Bool(b) => (ColumnType::Boolean, Self::Bool(*b)),
            Value::Number(n) => number(n),
            Value::String(s) => text(s),
            Value::Array(_) | Value::Object(_) => {
                (ColumnType::String, Self::Array(json_text(value).into()))
            }
        })
    }

    /// The type that the value has by itself.
    pub fn kind(&self) -> ColumnType {
        match self {
            Self::Int(_) => ColumnType::Int,
            Self::Float(_) => ColumnType::Float,
            Self::Bool(_) => ColumnType::Boolean,
            Self::Text(_) | Self::Array(_) => ColumnType::String,
            Self::Datetime(_) => ColumnType::Datetime,
            Self::Json(_) => ColumnType::Json,
        }
    }

    /// The value as a column of type `column` stores it.
    ///
    /// The table is RudderStack's (warehouse reference §1.9). A fraction in an integer column is truncated there, silently;
    /// so it is here, because rows must come out alike.
    ///
    /// # Errors
    /// The value belongs into `rudder_discards`.
    pub fn coerce(self, column: ColumnType) -> Result<Self, Misfit> {
        let misfit = |value| Err(Misfit::Type { column, value });
        match column {
            ColumnType::String | ColumnType::Text => Ok(Self::Text(self.into_text())),
            ColumnType::Json => Ok(Self::Json(match self {
                Self::Text(text) => quoted(&text).into(),
                Self::Datetime(ms) => quoted(&datetime::format(ms)).into(),
                Self::Json(text) | Self::Array(text) => text,
                Self::Int(_) | Self::Float(_) | Self::Bool(_) => self.into_text(),
            })),
            ColumnType::Int => match self {
                Self::Int(_) => Ok(self),
                Self::Float(float) => truncated(float).map(Self::Int).ok_or(Misfit::OutOfRange),
                other => misfit(other.kind()),
            },
            ColumnType::Float => match self {
                Self::Float(_) => Ok(self),
                // Beyond 2^53 the neighbours of an integer collapse, as they do in RudderStack's own float64.
                Self::Int(int) => Ok(Self::Float(int as f64)),
                other => misfit(other.kind()),
            },
            ColumnType::Boolean => match self {
                Self::Bool(_) => Ok(self),
                other => misfit(other.kind()),
            },
            ColumnType::Datetime => match self {
                Self::Datetime(_) => Ok(self),
                other => misfit(other.kind()),
            },
        }
    }

    /// The value as text: what a string column and `rudder_discards.column_value` hold.
    pub fn into_text(self) -> Cow<'a, str> {
        match self {
            Self::Int(int) => int.to_string().into(),
            Self::Float(float) => float_text(float).into(),
            Self::Bool(b) => if b { "true" } else { "false" }.into(),
            Self::Text(text) | Self::Json(text) | Self::Array(text) => text,
            Self::Datetime(ms) => datetime::format(ms).into(),
        }
    }

    /// Bytes that the value holds, for memory limits.
    pub fn size(&self) -> usize {
        match self {
            Self::Int(_) | Self::Float(_) | Self::Datetime(_) => 8,
            Self::Bool(_) => 1,
            Self::Text(text) | Self::Json(text) | Self::Array(text) => text.len(),
        }
    }
}

/// The JSON text of a value, with keys in byte order and nothing escaped that need not be.
pub(super) fn json_text(value: &Value) -> String {
    value.to_string()
}

/// A string as a value: an instant if it looks like one.
pub(super) fn text(text: &str) -> (ColumnType, Cell<'_>) {
    match datetime::parse(text) {
        Some(ms) => (ColumnType::Datetime, Cell::Datetime(ms)),
        None => (ColumnType::String, Cell::Text(text.into())),
    }
}

fn number<'a>(n: &serde_json::Number) -> (ColumnType, Cell<'a>) {
    if let Some(int) = n.as_i64() {
        return (ColumnType::Int, Cell::Int(int));
    }
    let float = n.as_f64().unwrap_or_default();
    if float.fract() != 0.0 {
        return (ColumnType::Float, Cell::Float(float));
    }
    match truncated(float) {
        Some(int) => (ColumnType::Int, Cell::Int(int)),
        None => (ColumnType::Int, Cell::Float(float)),
    }
}

/// The integral part, if 64 bits hold it.
fn truncated(float: f64) -> Option<i64> {
    // Both bounds are exact as f64; the upper one is 2^63, the first value that does not fit.
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    (-BOUND..BOUND).contains(&float).then_some(float as i64)
}

/// A float as Go's `%v` prints it: shortest digits that read back, exponents from 1e21 on and under 1e-4.
fn float_text(float: f64) -> String {
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(rest) => ('-', rest),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{float}")
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_typed_by_value_not_by_spelling() {
        let kind = |value: Value| Cell::infer(&value).map(|(kind, _)| kind);
        assert_eq!(kind(json!(3.0)), Some(ColumnType::Int));
        assert_eq!(kind(json!(1e21)), Some(ColumnType::Int));
        assert_eq!(kind(json!(-0.5)), Some(ColumnType::Float));
        assert_eq!(kind(json!(u64::MAX)), Some(ColumnType::Int));
        assert_eq!(kind(json!(null)), None);
    }

    #[test]
    fn an_integer_beyond_64_bits_is_refused_by_an_integer_column_and_kept_by_others() {
        let big = json!(6.5e20);
        let cell = || Cell::infer(&big).expect("a number").1;
        assert_eq!(cell().coerce(ColumnType::Int), Err(Misfit::OutOfRange));
        assert_eq!(cell().coerce(ColumnType::Float), Ok(Cell::Float(6.5e20)));
        let text = cell().coerce(ColumnType::String);
        assert_eq!(text, Ok(Cell::Text("650000000000000000000".into())));
    }

    #[test]
    fn floats_read_as_go_prints_them() {
        let cases = [
            (1.501, "1.501"),
            (1e21, "1e+21"),
            (0.00001, "1e-05"),
            (0.0001, "0.0001"),
            (0.0, "0"),
        ];
        for (float, text) in cases {
            assert_eq!(float_text(float), text);
        }
    }

    #[test]
    fn an_array_stays_json_in_a_json_column_and_a_string_is_quoted() {
        let array = json!([false, 1]);
        let (kind, cell) = Cell::infer(&array).expect("an array");
        assert_eq!(kind, ColumnType::String);
        assert_eq!(
            cell.coerce(ColumnType::Json),
            Ok(Cell::Json("[false,1]".into()))
        );
        let string = Cell::Text("[false,1]".into()).coerce(ColumnType::Json);
        assert_eq!(string, Ok(Cell::Json("\"[false,1]\"".into())));
    }
}
