//! Which strings are times, and which instant they mean.
//!
//! RudderStack types a string `datetime` when it looks like an ISO 8601 date, with or without a time, and lies in the years
//! 1 to 9999; it is then stored as UTC with milliseconds. Anything else (`20240102`, `2024-01`, hour 24) stays text.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, SecondsFormat, Utc};

use crate::clock::UnixMs;

/// Longer strings are not times (the longest layout that RudderStack's parser knows).
const LENGTH_MAX: usize = 40;

/// The instant that `text` means, `None` if it is not a time. Digits after the millisecond are cut off.
pub(super) fn parse(text: &str) -> Option<UnixMs> {
    let bytes = text.as_bytes();
    if bytes.len() < 10 || bytes.len() > LENGTH_MAX || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = number(bytes.get(0..4)?)?;
    let month = number(bytes.get(5..7)?)?;
    let day = number(bytes.get(8..10)?)?;
    if !(1..=31).contains(&day) {
        return None;
    }
    let first = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, 1)?;
    let date = first.checked_add_days(Days::new(u64::from(day - 1)))?;
    let (time, offset_minutes) = match bytes.get(10) {
        None => (NaiveTime::MIN, 0),
        Some(b'T' | b' ' | b'\t' | b'\n') => time_of_day(bytes.get(11..)?)?,
        Some(_) => return None,
    };
    // A day that its month does not have rolls over, as in JavaScript; RudderStack then forgets the time of day.
    let rolled = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day).is_none();
    let ms = if rolled {
        date.and_time(NaiveTime::MIN).and_utc().timestamp_millis()
    } else {
        date.and_time(time).and_utc().timestamp_millis() - i64::from(offset_minutes) * 60_000
    };
    (YEAR_1..=END_OF_YEAR_9999).contains(&ms).then_some(ms)
}

/// RudderStack's layout, `2006-01-02T15:04:05.000Z`.
pub(super) fn format(ms: UnixMs) -> String {
    DateTime::<Utc>::from_timestamp_millis(ms)
        .unwrap_or(DateTime::<Utc>::UNIX_EPOCH)
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// 0001-01-01T00:00:00.000Z
const YEAR_1: UnixMs = -62_135_596_800_000;
/// 9999-12-31T23:59:59.999Z
const END_OF_YEAR_9999: UnixMs = 253_402_300_799_999;

/// `HH:MM[:SS[.fraction]][zone]`: the time and the zone's offset in minutes.
fn time_of_day(text: &[u8]) -> Option<(NaiveTime, i32)> {
    let hour = number(text.get(0..2)?)?;
    let minute = number(text.get(3..5)?)?;
    if text[2] != b':' {
        return None;
    }
    let mut rest = &text[5..];
    let mut second = 0;
    let mut milli = 0;
    if rest.first() == Some(&b':') {
        second = number(rest.get(1..3)?)?;
        rest = &rest[3..];
        if rest.first() == Some(&b'.') {
            let digits = rest[1..].iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            let kept = digits.min(3);
            milli = number(&rest[1..=kept])? * [100, 10, 1][kept - 1];
            rest = &rest[1 + digits..];
        }
    }
    let time = NaiveTime::from_hms_milli_opt(hour, minute, second, milli)?;
    Some((time, zone(rest)?))
}

/// ``, `Z`, `+hh`, `+hhmm` or `+hh:mm`, in minutes.
fn zone(text: &[u8]) -> Option<i32> {
    let sign = match text {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        [_, ..] => return None,
    };
    let (hours, minutes) = match text[1..] {
        [_, _] => (number(&text[1..])?, 0),
        [_, _, _, _] => (number(&text[1..3])?, number(&text[3..])?),
        [_, _, b':', _, _] => (number(&text[1..3])?, number(&text[4..])?),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    i32::try_from(hours * 60 + minutes).ok().map(|m| sign * m)
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, byte| {
        byte.is_ascii_digit()
            .then(|| value * 10 + u32::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_in_every_layout_that_clients_send() {
        let cases = [
            ("2021-06-01T00:00:00.000Z", "2021-06-01T00:00:00.000Z"),
            ("2021-06-01", "2021-06-01T00:00:00.000Z"),
            ("2021-06-01 10:20", "2021-06-01T10:20:00.000Z"),
            ("2021-06-01 10:20:30.5", "2021-06-01T10:20:30.500Z"),
            (
                "2025-04-02 01:09:03.714247+00:00",
                "2025-04-02T01:09:03.714Z",
            ),
            ("2025-04-02 01:09:03.000+0530", "2025-04-01T19:39:03.000Z"),
            ("2025-04-02T01:09:03-08", "2025-04-02T09:09:03.000Z"),
            ("2024-02-30", "2024-03-01T00:00:00.000Z"),
            ("0001-01-01T00:00:00.000Z", "0001-01-01T00:00:00.000Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).map(format).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn strings_that_only_resemble_times_stay_text() {
        let texts = [
            "",
            "20240102",
            "2024-01",
            "2024-13-01",
            "2024-01-32",
            "2024-01-00",
            "2024-01-01T24:00:00Z",
            "2024-01-01T",
            "2024-01-01T10",
            "2024-01-01T10:00:00.Z",
            "+2024-01-01",
            "0000-01-01",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "2024-01-01 later",
            "2024-01-01T10:00:00+5",
            "２０２４-01-01",
        ];
        for text in texts {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,50}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_formatted_instant_reads_back(ms in YEAR_1..=END_OF_YEAR_9999) {
            prop_assert_eq!(parse(&format(ms)), Some(ms));
        }
    }
}
