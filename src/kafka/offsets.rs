//! Progress of one partition whose records finish out of order.
//!
//! Kafka keeps one number per group and partition: where to go on. When keys run side by side, records finish out of order,
//! and the only number that loses nothing is the lowest *unfinished* offset. After a crash everything from there on is read
//! again, also what was finished long ago behind one slow key. So the commit also says, in its metadata string, which
//! later offsets are done. Confluent's Parallel Consumer has the same idea.
//!
//! ```text
//!   offsets   100 101 102 103 104 105 106 107 108 109
//!              ✓   ✓   ·   ✓   ✓   M   ·   ✓   ✓       ✓ done   · unfinished   M never seen (a transaction marker)
//!                      ▲           ▲           ▲    ▲
//!                      base        a gap       last seen
//!                      = what is committed          = nothing known
//!
//!   commit:   102, and in the metadata: 1 unfinished, 3 done, 1 unfinished, 2 done
//!   restart:  reads from 102; 103, 104, 107, 108 are skipped; 102 and 106 are worked on again
//! ```
//!
//! Rules, each held by a property test:
//!
//! 1. **No unfinished offset is ever passed**, neither by the committed number nor by the metadata.
//! 2. **Gaps are nothing to wait for.** Markers, aborted and compacted records take offsets that no reader sees. The map is
//!    told which offsets were seen ([`OffsetMap::see`]); one that was jumped over counts as done.
//! 3. **Too much to write down is cut at the far end.** A broker takes 4096 bytes (`offset.metadata.max.bytes`). What is
//!    cut is done twice after a crash, never skipped. [`MapCommit::needed_bytes`] tells in time to slow down instead.
//! 4. **A string that is not ours, or not of this offset, is ignored** (a reset by another tool keeps or clears it): it
//!    carries a checksum over the offset that it was written for.
//!
//! Two encodings are made and the shorter is taken: run lengths (few long runs: one slow key) and a bit set (many short
//! ones). First byte: which of the two, and so also the version.

use std::collections::BTreeSet;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

use super::record::Committed;

/// What a broker takes by default as metadata of an offset, in bytes (`offset.metadata.max.bytes`).
pub const METADATA_BYTES_MAX: usize = 4096;

/// Run lengths, unfinished first, alternating, each a LEB128 number.
const RUNS: u8 = 1;
/// One bit per offset from the base on, lowest bit first; set is done.
const BITS: u8 = 2;
/// Version byte and checksum.
const HEADER_BYTES: usize = 5;

/// What [`OffsetMap::see`] knows of an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Not known: work on it, then [`OffsetMap::complete`] it.
    New,
    /// It was finished, perhaps by a predecessor: skip it.
    Done,
    /// It was seen before and is not finished: it is being worked on.
    Pending,
}

/// What to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapCommit {
    /// The lowest unfinished offset, or the one after the last seen.
    pub next_offset: i64,
    /// Which later offsets are done; empty when none is.
    pub metadata: String,
    /// Bytes of metadata that saying all would take. Near the limit: read no further until the lowest ones are finished.
    pub needed_bytes: usize,
    /// Whether the far end was left out.
    pub is_cut: bool,
}

/// Progress of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetMap {
    /// Seen and not finished.
    unfinished: BTreeSet<i64>,
    /// Every offset below was seen, or jumped over.
    seen_to: i64,
    /// Finished by a predecessor, at or after `seen_to`; sorted, apart, none empty.
    done_before: Vec<Range<i64>>,
}

impl OffsetMap {
    /// A map for a partition that is read from `start` on.
    pub fn new(start: i64) -> Self {
        Self {
            unfinished: BTreeSet::new(),
            seen_to: start,
            done_before: Vec::new(),
        }
    }

    /// A map that goes on where a commit stopped. Metadata that is not ours is ignored: then more is done again.
    pub fn resume(next_offset: i64, metadata: &str) -> Self {
        Self {
            done_before: decode(next_offset, metadata).unwrap_or_default(),
            ..Self::new(next_offset)
        }
    }

    /// [`resume`](OffsetMap::resume) from what the group has committed; `None` when it has not.
    pub fn from_committed(committed: &Committed) -> Option<Self> {
        committed
            .next_offset
            .map(|next_offset| Self::resume(next_offset, &committed.metadata))
    }

    /// Takes note of a record that was read. Records come in the order of their offsets; after a seek back they come again.
    pub fn see(&mut self, offset: i64) -> Seen {
        if offset < self.seen_to {
            return if self.unfinished.contains(&offset) {
                Seen::Pending
            } else {
                Seen::Done
            };
        }
        self.seen_to = offset + 1;
        let behind = self.done_before.partition_point(|run| run.end <= offset);
        self.done_before.drain(..behind);
        match self.done_before.first() {
            Some(run) if run.contains(&offset) => Seen::Done,
            _ => {
                self.unfinished.insert(offset);
                Seen::New
            }
        }
    }

    /// Takes note that the record at `offset` is finished. False if it was not pending.
    pub fn complete(&mut self, offset: i64) -> bool {
        self.unfinished.remove(&offset)
    }

    /// What may be committed: the lowest unfinished offset, or the one after the last seen.
    pub fn next_offset(&self) -> i64 {
        self.unfinished.first().copied().unwrap_or(self.seen_to)
    }

    /// Records that are pending.
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// Offsets from the lowest unfinished to the last seen.
    pub fn span(&self) -> i64 {
        self.seen_to - self.next_offset()
    }

    /// What to commit, with at most `metadata_bytes_max` bytes of metadata.
    pub fn next_commit(&self, metadata_bytes_max: usize) -> MapCommit {
        let base = self.next_offset();
        let done = self.done_runs();
        let Some(last) = done.last() else {
            return MapCommit {
                next_offset: base,
                metadata: String::new(),
                needed_bytes: 0,
                is_cut: false,
            };
        };
        let budget = base64_room(metadata_bytes_max).saturating_sub(HEADER_BYTES);
        let runs = encode_runs(base, &done, budget);
        let bits = encode_bits(base, &done, budget);
        let needed = HEADER_BYTES + runs.needed.min(bits.needed);
        let (version, chosen) = if prefer_bits(&runs, &bits) {
            (BITS, bits)
        } else {
            (RUNS, runs)
        };
        let metadata = if chosen.body.is_empty() {
            String::new()
        } else {
            frame(base, version, &chosen.body)
        };
        MapCommit {
            next_offset: base,
            metadata,
            needed_bytes: base64_length(needed),
            is_cut: chosen.reach < last.end,
        }
    }

    /// What is done beyond the base; sorted and apart.
    fn done_runs(&self) -> Vec<Range<i64>> {
        let mut runs = Vec::new();
        let mut after = self.next_offset();
        for &offset in &self.unfinished {
            if offset > after {
                runs.push(after..offset);
            }
            after = offset + 1;
        }
        if self.seen_to > after {
            runs.push(after..self.seen_to);
        }
        for run in &self.done_before {
            let run = run.start.max(self.seen_to)..run.end;
            match runs.last_mut() {
                _ if run.is_empty() => {}
                Some(last) if last.end == run.start => last.end = run.end,
                _ => runs.push(run),
            }
        }
        runs
    }
}

/// One way to write the runs down, cut to the budget.
struct Encoded {
    body: Vec<u8>,
    /// Bytes without the cut.
    needed: usize,
    /// What is done up to this offset is in `body`.
    reach: i64,
}

/// The one that says more; if both say all, the shorter.
fn prefer_bits(runs: &Encoded, bits: &Encoded) -> bool {
    match bits.reach.cmp(&runs.reach) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => bits.body.len() < runs.body.len(),
        std::cmp::Ordering::Less => false,
    }
}

fn encode_runs(base: i64, done: &[Range<i64>], budget: usize) -> Encoded {
    let mut body = Vec::new();
    let mut kept = 0;
    let mut reach = base;
    let mut after = base;
    for run in done {
        push_number(&mut body, run.start.abs_diff(after));
        push_number(&mut body, run.end.abs_diff(run.start));
        after = run.end;
        if body.len() <= budget {
            kept = body.len();
            reach = run.end;
        }
    }
    let needed = body.len();
    body.truncate(kept);
    Encoded {
        body,
        needed,
        reach,
    }
}

fn encode_bits(base: i64, done: &[Range<i64>], budget: usize) -> Encoded {
    let end = done.last().map_or(base, |run| run.end);
    let needed = usize::try_from(end.abs_diff(base))
        .unwrap_or(usize::MAX)
        .div_ceil(8);
    let length = needed.min(budget);
    let limit = base.saturating_add(i64::try_from(length * 8).unwrap_or(i64::MAX));
    let mut body = vec![0u8; length];
    for run in done.iter().take_while(|run| run.start < limit) {
        for offset in run.start..run.end.min(limit) {
            let bit = usize::try_from(offset.abs_diff(base)).unwrap_or(usize::MAX);
            if let Some(byte) = body.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
    Encoded {
        body,
        needed,
        reach: limit.min(end),
    }
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(body: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = body.split_first()?;
        *body = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Bytes that base64 text of at most `length` bytes can hold.
fn base64_room(length: usize) -> usize {
    length / 4 * 3 + (length % 4).saturating_sub(1)
}

fn base64_length(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

fn frame(base: i64, version: u8, body: &[u8]) -> String {
    let mut framed = Vec::with_capacity(HEADER_BYTES + body.len());
    framed.push(version);
    framed.extend_from_slice(&checksum(base, version, body));
    framed.extend_from_slice(body);
    BASE64.encode(framed)
}

fn checksum(base: i64, version: u8, body: &[u8]) -> [u8; 4] {
    let seed = base.cast_unsigned() ^ (u64::from(version) << 56);
    let hash = twox_hash::XxHash64::oneshot(seed, body);
    [0, 8, 16, 24].map(|shift| (hash >> shift) as u8)
}

/// The runs that are done after `base`; `None` when the text is not ours for this base.
fn decode(base: i64, metadata: &str) -> Option<Vec<Range<i64>>> {
    let framed = BASE64.decode(metadata).ok()?;
    let (header, body) = framed.split_at_checked(HEADER_BYTES)?;
    let version = header[0];
    if header[1..] != checksum(base, version, body) {
        return None;
    }
    match version {
        RUNS => decode_runs(base, body),
        BITS => Some(decode_bits(base, body)),
        _ => None,
    }
}

fn decode_runs(base: i64, mut body: &[u8]) -> Option<Vec<Range<i64>>> {
    let mut runs = Vec::new();
    let mut after = base;
    while !body.is_empty() {
        let start = after.checked_add_unsigned(take_number(&mut body)?)?;
        let end = start.checked_add_unsigned(take_number(&mut body)?)?;
        if start < end {
            runs.push(start..end);
        }
        after = end;
    }
    Some(runs)
}

fn decode_bits(base: i64, body: &[u8]) -> Vec<Range<i64>> {
    let mut runs: Vec<Range<i64>> = Vec::new();
    let bits = body
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    for (offset, done) in (base..).zip(bits) {
        match runs.last_mut() {
            _ if !done => {}
            Some(last) if last.end == offset => last.end += 1,
            _ => runs.push(offset..offset + 1),
        }
    }
    runs
}

#[cfg(test)]
#[path = "offsets_tests.rs"]
mod tests;
