//! What a segment file is called and what it holds. Pure.
//!
//! A segment begins with [`MAGIC`] and goes on with frames. Only the last ones of a file can be unfinished, and what is
//! unfinished was never answered for; anything else that cannot be read is damage.

use crate::clock::UnixMs;

use super::frame::{self, Next};

/// The first bytes of a segment; the last one is the version of the layout.
pub(super) const MAGIC: [u8; 8] = *b"SLSPILL\x01";

const ENDING: &str = ".spill";

/// How the readable part of a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With the file.
    Clean,
    /// Before a write that did not come to its end.
    Torn,
    /// Before something that is no frame.
    Damaged,
}

/// What stands in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    /// Whole records.
    pub(super) records: u64,
    /// Bytes up to the end of the last of them.
    pub(super) whole: u64,
    /// When the first of them was spilled.
    pub(super) oldest: Option<UnixMs>,
    pub(super) end: End,
}

/// Looks through a whole file.
pub(super) fn scan(bytes: &[u8]) -> Scan {
    let mut scan = Scan {
        records: 0,
        whole: 0,
        oldest: None,
        end: End::Clean,
    };
    if !bytes.starts_with(&MAGIC) {
        let torn = MAGIC.starts_with(bytes) || bytes.iter().all(|byte| *byte == 0);
        scan.end = if torn { End::Torn } else { End::Damaged };
        return scan;
    }
    let mut at = MAGIC.len();
    scan.end = loop {
        match frame::next(&bytes[at..]) {
            Next::Record(record, len) => {
                at += len;
                scan.records += 1;
                scan.oldest.get_or_insert(record.at);
            }
            Next::End => break End::Clean,
            Next::Cut => break End::Torn,
            Next::Damaged => break End::Damaged,
        }
    };
    scan.whole = at as u64;
    scan
}

/// The file of segment `number`. Names sort as numbers do.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:020}{ENDING}")
}

/// The number of a segment's file; `None` for other files.
pub(super) fn number(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(ENDING)?;
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Where what follows byte `from` of a damaged segment is kept.
pub(super) fn damaged_name(number: u64, from: u64) -> String {
    format!("{}.damaged-from-{from}", file_name(number))
}

/// Where records of a segment are kept that Kafka refuses for good: a segment itself, but for its name.
pub(super) fn refused_name(number: u64) -> String {
    format!("{}.refused", file_name(number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::{Record, encode};
    use super::*;

    /// A segment, and where each of its records ends.
    fn segment(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = MAGIC.to_vec();
        let mut ends = Vec::new();
        for (n, payload) in payloads.iter().enumerate() {
            let record = Record {
                at: 100 + n as i64,
                key: b"key",
                traceparent: b"",
                payload,
            };
            encode(record, &mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn some() -> (Vec<u8>, Vec<usize>) {
        segment(&[b"one".to_vec(), Vec::new(), vec![0; 40]])
    }

    #[test]
    fn a_segment_cut_at_any_byte_keeps_what_was_whole_and_is_never_called_damaged() {
        let (bytes, ends) = some();
        for cut in 0..=bytes.len() {
            let scan = scan(&bytes[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(scan.records, whole as u64, "cut at {cut}");
            let at_an_end = cut == MAGIC.len() || ends.contains(&cut);
            let expected = if at_an_end { End::Clean } else { End::Torn };
            assert_eq!(scan.end, expected, "cut at {cut}");
            let up_to = match whole {
                0 if cut < MAGIC.len() => 0,
                0 => MAGIC.len(),
                n => ends[n - 1],
            };
            assert_eq!(scan.whole, up_to as u64, "cut at {cut}");
        }
    }

    #[test]
    fn a_tail_of_zeros_is_torn() {
        for zeros in 1..100 {
            let (mut bytes, ends) = some();
            bytes.resize(bytes.len() + zeros, 0);
            let scan = scan(&bytes);
            assert_eq!((scan.records, scan.end), (3, End::Torn));
            assert_eq!(scan.whole, ends[2] as u64);
        }
        assert_eq!(scan(&[0; 30]).end, End::Torn);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_damage_behind_the_records_before_it() {
        let (whole, ends) = some();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let scan = scan(&bytes);
            let before = ends.iter().filter(|end| **end <= bit / 8).count();
            assert_eq!(
                (scan.records, scan.end),
                (before as u64, End::Damaged),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn names_are_read_back_and_others_are_not() {
        for n in [0, 7, u64::MAX] {
            assert_eq!(number(&file_name(n)), Some(n));
        }
        assert!(file_name(9) < file_name(10));
        for other in [
            "lock".to_owned(),
            damaged_name(1, 8),
            refused_name(1),
            "1.spill".to_owned(),
            "+0000000000000000001.spill".to_owned(),
        ] {
            assert_eq!(number(&other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_record_of_a_segment_is_counted(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)
        ) {
            let (bytes, _) = segment(&payloads);
            let scan = scan(&bytes);
            prop_assert_eq!(scan.records, payloads.len() as u64);
            prop_assert_eq!((scan.whole, scan.end), (bytes.len() as u64, End::Clean));
            prop_assert_eq!(scan.oldest, (!payloads.is_empty()).then_some(100));
        }

        #[test]
        fn bytes_from_anywhere_are_looked_through_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), with_magic in any::<bool>()
        ) {
            let bytes = if with_magic { [&MAGIC[..], &bytes].concat() } else { bytes };
            prop_assert_eq!(scan(&bytes).records, 0);
        }
    }
}
