//! Making a body one that every later stage can read.
//!
//! Two things that real clients send are no text: bytes that are not UTF-8, and halves of surrogate pairs (`\ud83d`), which
//! `JSON.stringify` writes when a string was cut inside an emoji. Go's decoder, and so RudderStack, reads both as U+FFFD;
//! Rust's refuses them. Here they are replaced by U+FFFD, once, so that such an event is not lost on the way. Every other
//! body travels as it came.

use std::borrow::Cow;

/// The body as text, with U+FFFD for what no JSON reader in Rust takes.
pub(super) fn repair(body: &[u8]) -> Cow<'_, str> {
    // `from_utf8_lossy` goes byte by byte even where nothing is wrong: 7 % of the gateway's time with batches of 100.
    let text = match std::str::from_utf8(body) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(body),
    };
    match replace_lone_surrogates(&text) {
        Some(changed) => Cow::Owned(changed),
        None => text,
    }
}

/// The text with every lone surrogate escape replaced by `\ufffd`; `None` when there is none.
fn replace_lone_surrogates(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    // Most bodies have no escape, and of the others few have a surrogate: no more is paid for them.
    let mut at = memchr::memchr(b'\\', bytes)?;
    let rest = &bytes[at..];
    memchr::memmem::find(rest, b"\\ud").or_else(|| memchr::memmem::find(rest, b"\\uD"))?;
    let mut lone = Vec::new();
    while let Some(found) = memchr::memchr(b'\\', &bytes[at..]) {
        at += found;
        match (unit(bytes, at), unit(bytes, at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 12,
            (Some(0xD800..=0xDFFF), _) => {
                lone.push(at);
                at += 6;
            }
            (Some(_), _) => at += 6,
            // Any other escape is a backslash and one more byte; at the end of the text this runs over it.
            (None, _) => at = (at + 2).min(bytes.len()),
        }
    }
    if lone.is_empty() {
        return None;
    }
    let mut changed = text.to_owned();
    for at in lone {
        changed.replace_range(at..at + 6, "\\ufffd");
    }
    Some(changed)
}

/// The code unit of the escape `\uXXXX` at `at`.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0u16, |unit, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_cut_inside_an_emoji_does_not_lose_the_event() {
        assert_eq!(repair(br#"{"a":"x\ud83d"}"#), r#"{"a":"x\ufffd"}"#);
        assert_eq!(
            repair(br#""\ude00\ud83d\ud83d\ude00""#),
            r#""\ufffd\ufffd\ud83d\ude00""#
        );
        assert_eq!(repair(br#""\uD83D\n""#), r#""\ufffd\n""#);
    }

    #[test]
    fn what_only_looks_like_a_surrogate_is_left_alone() {
        for body in [r#""\\ud83d""#, r#""\ud7ff \\\\ud800""#, r#""\ud83"#, "\"\\"] {
            assert_eq!(repair(body.as_bytes()), body);
        }
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        assert_eq!(
            repair(b"{\"a\":\"\xff\xfe\"}"),
            "{\"a\":\"\u{fffd}\u{fffd}\"}"
        );
    }

    #[test]
    fn an_intact_body_is_not_copied() {
        assert!(matches!(repair(b"{}"), Cow::Borrowed(_)));
    }
}
