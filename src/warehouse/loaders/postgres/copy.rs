//! COPY's text format.
//!
//! Rather than the binary one: `numeric` and `jsonb` have no simple binary form, and text keeps the difference between an
//! empty string and null that RudderStack's CSV loses. Floats travel as their shortest decimal that reads back, so a
//! `numeric` column holds what the client sent.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};

use crate::warehouse::cell::Cell;
use crate::warehouse::datetime;

/// A cell in COPY's text format.
pub(super) fn copy_cell(out: &mut BytesMut, cell: Option<&Cell<'_>>) {
    match cell {
        None => out.extend_from_slice(b"\\N"),
        Some(Cell::Int(int)) => push(out, format_args!("{int}")),
        // With an exponent where the digits would be many; both `numeric` and `double precision` read it.
        Some(Cell::Float(float)) => push(out, format_args!("{float:?}")),
        Some(Cell::Bool(flag)) => out.extend_from_slice(if *flag { b"t" } else { b"f" }),
        Some(Cell::Datetime(ms)) => out.extend_from_slice(datetime::format(*ms).as_bytes()),
        Some(Cell::Text(text) | Cell::Array(text)) => escape(out, text),
        Some(Cell::Json(text)) => escape(out, &without_null_escapes(text)),
    }
}

fn push(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("a BytesMut takes as much as memory holds");
}

/// PostgreSQL takes no NUL in text; RudderStack drops it too.
fn escape(out: &mut BytesMut, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0 => {}
            byte => out.put_u8(byte),
        }
    }
}

/// JSON text without `\u0000`, which `jsonb` refuses. A backslash that is itself escaped does not begin one.
fn without_null_escapes(json: &str) -> Cow<'_, str> {
    const NULL: &str = "\\u0000";
    if !json.contains(NULL) {
        return json.into();
    }
    let mut kept = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(NULL) {
            rest = after;
            continue;
        }
        // The escape and the character that it escapes.
        let taken = rest.chars().take(2).map(char::len_utf8).sum();
        kept.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    kept.push_str(rest);
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(cell: Cell<'_>) -> String {
        let mut out = BytesMut::new();
        copy_cell(&mut out, Some(&cell));
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn text_cannot_leave_its_field() {
        assert_eq!(
            copied(Cell::Text("a\tb\nc\\N\r\0".into())),
            "a\\tb\\nc\\\\N\\r"
        );
    }

    #[test]
    fn a_null_character_leaves_json_without_breaking_it() {
        assert_eq!(without_null_escapes(r#"{"a":"x\u0000y"}"#), r#"{"a":"xy"}"#);
        assert_eq!(
            without_null_escapes(r#"{"a":"\\u0000"}"#),
            r#"{"a":"\\u0000"}"#
        );
        assert_eq!(
            without_null_escapes(r#"{"a":"\\\u0000\n"}"#),
            r#"{"a":"\\\n"}"#
        );
    }

    #[test]
    fn floats_keep_their_digits() {
        assert_eq!(copied(Cell::Float(0.1)), "0.1");
        assert_eq!(copied(Cell::Float(1e300)), "1e300");
    }
}
