//! How one record lies in a segment. Pure.
//!
//! ```text
//!  0      4      8              16        24      28      30
//!  │ len  │ check│ hash of body │ time    │ key   │ trace │ key … traceparent … payload …
//!  │ u32  │ u32  │ u64          │ i64 ms  │ u32   │ u16   │
//!  └──────────── head ──────────┴─────────────── body, `len` bytes ────────────────────
//! ```
//! All little endian; `check` is of `len` alone. Because the length can be trusted by itself, a frame that the end of the
//! file cuts off is told from one that was damaged: the first was never answered for, the second was.

use twox_hash::XxHash3_64;

use crate::clock::UnixMs;

/// Bytes before the body.
const HEAD: usize = 16;
/// Bytes of the body before the key.
const FIXED: usize = 14;
/// Not zero, so that a stretch of zeros is no frame.
const SEED: u64 = 0x736c_7569_6365_7370;

/// A record as it waits for Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// When it was spilled.
    pub(super) at: UnixMs,
    /// Kafka key.
    pub(super) key: &'a [u8],
    /// W3C trace context; empty when there is none.
    pub(super) traceparent: &'a [u8],
    /// The envelope, encoded.
    pub(super) payload: &'a [u8],
}

/// What stands at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// Nothing.
    End,
    /// A whole record, and how many bytes it takes.
    Record(Record<'a>, usize),
    /// The beginning of a frame, or zeros that a file system put there: a write that did not come to its end.
    Cut,
    /// Something else.
    Damaged,
}

/// Appends `record`.
pub(super) fn encode(record: Record<'_>, to: &mut Vec<u8>) {
    let Record {
        at,
        key,
        traceparent,
        payload,
    } = record;
    let traceparent = &traceparent[..traceparent.len().min(usize::from(u16::MAX))];
    let len = FIXED + key.len() + traceparent.len() + payload.len();
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let from = to.len();
    to.extend_from_slice(&len.to_le_bytes());
    to.extend_from_slice(&check(len).to_le_bytes());
    to.extend_from_slice(&[0; 8]);
    to.extend_from_slice(&at.to_le_bytes());
    to.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
    to.extend_from_slice(
        &u16::try_from(traceparent.len())
            .unwrap_or(u16::MAX)
            .to_le_bytes(),
    );
    to.extend_from_slice(key);
    to.extend_from_slice(traceparent);
    to.extend_from_slice(payload);
    let hash = XxHash3_64::oneshot_with_seed(SEED, &to[from + HEAD..]);
    to[from + 8..from + HEAD].copy_from_slice(&hash.to_le_bytes());
}

/// Reads the frame at the beginning of `bytes`, which end where the file does.
pub(super) fn next(bytes: &[u8]) -> Next<'_> {
    if bytes.is_empty() {
        return Next::End;
    }
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else {
        return Next::Cut;
    };
    let len = u32_at(head, 0);
    if check(len) != u32_at(head, 4) {
        let zeros = bytes.iter().all(|byte| *byte == 0);
        return if zeros { Next::Cut } else { Next::Damaged };
    }
    let len = len as usize;
    let Some(body) = rest.get(..len) else {
        return Next::Cut;
    };
    if XxHash3_64::oneshot_with_seed(SEED, body) != u64_at(head, 8) {
        return Next::Damaged;
    }
    match record(body) {
        Some(record) => Next::Record(record, HEAD + len),
        None => Next::Damaged,
    }
}

fn record(body: &[u8]) -> Option<Record<'_>> {
    let (fixed, rest) = body.split_at_checked(FIXED)?;
    let (key, rest) = rest.split_at_checked(u32_at(fixed, 8) as usize)?;
    let traceparent = usize::from(u16::from_le_bytes([fixed[12], fixed[13]]));
    let (traceparent, payload) = rest.split_at_checked(traceparent)?;
    Some(Record {
        at: u64_at(fixed, 0).cast_signed(),
        key,
        traceparent,
        payload,
    })
}

/// Over the length alone.
fn check(len: u32) -> u32 {
    // Half of the hash is as good as any other 32 bits.
    (XxHash3_64::oneshot_with_seed(SEED, &len.to_le_bytes()) >> 32) as u32
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(record: Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(record, &mut bytes);
        bytes
    }

    const SMALL: Record<'static> = Record {
        at: 1_700_000_000_000,
        key: b"user-1",
        traceparent: b"",
        payload: b"payload",
    };

    #[test]
    fn zeros_are_no_frame_of_length_zero() {
        for len in 1..64 {
            assert_eq!(next(&vec![0; len]), Next::Cut, "{len} zeros");
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_cut_and_not_damaged() {
        let bytes = encoded(SMALL);
        assert_eq!(next(&[]), Next::End);
        for at in 1..bytes.len() {
            assert_eq!(next(&bytes[..at]), Next::Cut, "at {at}");
        }
        assert_eq!(next(&bytes), Next::Record(SMALL, bytes.len()));
    }

    #[test]
    fn a_flipped_bit_is_damage_and_never_a_cut() {
        let whole = encoded(SMALL);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(next(&bytes), Next::Damaged, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_and_what_follows_is_left(
            at in any::<i64>(), key in prop::collection::vec(any::<u8>(), 0..40),
            traceparent in prop::collection::vec(any::<u8>(), 0..60),
            payload in prop::collection::vec(any::<u8>(), 0..400), behind in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let record = Record { at, key: &key, traceparent: &traceparent, payload: &payload };
            let mut bytes = encoded(record);
            let len = bytes.len();
            bytes.extend_from_slice(&behind);
            prop_assert_eq!(next(&bytes), Next::Record(record, len));
        }

        #[test]
        fn bytes_from_anywhere_are_no_record(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(!matches!(next(&bytes), Next::Record(..)));
        }
    }
}
