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
//! 3. **What is started can be written down, however it ends.** A broker takes 4096 bytes (`offset.metadata.max.bytes`).
//!    Whoever asks [`OffsetMap::try_start`] before each record never has more done than they can say. If it was not asked,
//!    the far end is cut: done twice after a crash, never skipped.
//! 4. **A string that is not ours, or not of this offset, is ignored** (a reset by another tool keeps or clears it): it
//!    carries a checksum over the offset that it was written for.
//!
//! Two encodings are made and the shorter is taken: run lengths (few long runs: one slow key) and a bit set (many short
//! ones). First byte: which of the two, and so also the version.
//!
//! # Room
//! [`OffsetMap::try_start`] counts with the worst: that of the records under way those end that fragment the map most. It
//! looks at three numbers only ([`Shape`]), which bound both encodings whatever the map looks like otherwise:
//!
//! * `reach`, offsets from the base to the last that is done or under way: the bit set takes one bit of each.
//! * `runs`, stretches of done offsets, with one more for each record under way that may become a stretch of its own. One
//!   that has a done neighbour will only make that one longer, and needs nothing.
//! * `holes`, offsets not in a stretch: the longer they are together, the more of the run lengths take a second byte.
//!
//! Whatever ends afterwards makes none of the three larger. The base may always be started: when it ends, everything only
//! gets shorter. So there is always one record that may go, and the map cannot come to a stop by itself. A map with few
//! stretches may reach as far as it likes: one slow record holds up nobody.

use std::collections::{BTreeMap, VecDeque};
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
    /// Whether the far end was left out; never when [`OffsetMap::try_start`] was asked before each record.
    pub is_cut: bool,
}

/// Progress of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetMap {
    /// Seen and not finished; of each, whether a record between it and the next is finished. A stretch without one is a gap:
    /// nobody will see it again, and it need not be written down.
    unfinished: BTreeMap<i64, bool>,
    /// Every offset below was seen, or jumped over.
    seen_to: i64,
    /// After the last record that is finished, of those that were seen.
    done_to: i64,
    /// How many of the unfinished have a finished record between them and the next.
    runs: usize,
    /// Offsets between those and their next ones.
    covered: u64,
    /// Finished by a predecessor, at or after `seen_to`; sorted, apart, none empty.
    done_before: VecDeque<Range<i64>>,
    /// Offsets in `done_before`.
    covered_before: u64,
    /// Under way; of each, whether it may become a run of its own.
    started: BTreeMap<i64, bool>,
    /// How many of those may.
    reserved: usize,
}

impl OffsetMap {
    /// A map for a partition that is read from `start` on.
    pub fn new(start: i64) -> Self {
        Self {
            unfinished: BTreeMap::new(),
            seen_to: start,
            done_to: start,
            runs: 0,
            covered: 0,
            done_before: VecDeque::new(),
            covered_before: 0,
            started: BTreeMap::new(),
            reserved: 0,
        }
    }

    /// A map that goes on where a commit stopped. Metadata that is not ours is ignored: then more is done again.
    pub fn resume(next_offset: i64, metadata: &str) -> Self {
        let done_before = decode(next_offset, metadata).unwrap_or_default();
        Self {
            covered_before: done_before.iter().map(length).sum(),
            done_before: done_before.into(),
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
            return if self.unfinished.contains_key(&offset) {
                Seen::Pending
            } else {
                Seen::Done
            };
        }
        let is_done = self.take_done_before(offset);
        let jumped = offset.abs_diff(self.seen_to);
        if let Some(mut last) = self.unfinished.last_entry() {
            let is_followed = *last.get();
            match (is_followed, is_done) {
                (true, _) => self.covered += jumped + u64::from(is_done),
                (false, true) => {
                    self.runs += 1;
                    self.covered += offset.abs_diff(*last.key());
                    last.insert(true);
                }
                (false, false) => {}
            }
        }
        self.seen_to = offset + 1;
        if is_done {
            self.done_to = self.seen_to;
            return Seen::Done;
        }
        self.unfinished.insert(offset, false);
        Seen::New
    }

    /// Whether a predecessor has finished `offset`; forgets what it finished up to there.
    fn take_done_before(&mut self, offset: i64) -> bool {
        while let Some(run) = self.done_before.front_mut() {
            if run.start > offset {
                return false;
            }
            let is_done = offset < run.end;
            let taken = run.start..run.end.min(offset + 1);
            self.covered_before -= length(&taken);
            run.start = taken.end;
            if run.is_empty() {
                self.done_before.pop_front();
            }
            if is_done {
                return true;
            }
        }
        false
    }

    /// Starts work on the pending record at `offset`, if a commit with at most `metadata_bytes_max` bytes of metadata can say
    /// whatever may then be done. False: not now, ask again when another has ended. Never of the lowest unfinished record.
    pub fn try_start(&mut self, offset: i64, metadata_bytes_max: usize) -> bool {
        let may_be_run = self.may_be_run(offset);
        if offset > self.next_offset() {
            let reach_to = self.reach_to();
            let is_within = offset < reach_to && !may_be_run;
            let shape = Shape {
                runs: self.runs + self.done_before.len() + self.reserved + usize::from(may_be_run),
                holes: self.holes(),
                reach: reach_to.max(offset + 1).abs_diff(self.next_offset()),
            };
            if !is_within && !shape.fits(room(metadata_bytes_max)) {
                return false;
            }
        }
        self.stop(offset);
        self.started.insert(offset, may_be_run);
        self.reserved += usize::from(may_be_run);
        true
    }

    /// Takes note that work on `offset` has stopped; it is pending as before.
    pub fn stop(&mut self, offset: i64) {
        if let Some(true) = self.started.remove(&offset) {
            self.reserved -= 1;
        }
    }

    /// Whether the end of `offset` may make one run more: nothing beside it is done, and it is not the base. Once false it
    /// stays false, whatever ends.
    fn may_be_run(&self, offset: i64) -> bool {
        let before = self.unfinished.range(..offset).next_back();
        let is_followed = self.unfinished.get(&offset).copied().unwrap_or(false);
        !is_followed && before.is_some_and(|(_, is_followed)| !is_followed)
    }

    /// After the last offset that is done or under way.
    fn reach_to(&self) -> i64 {
        let started = self.started.last_key_value().map(|(offset, _)| offset + 1);
        let before = self.done_before.back().map(|run| run.end);
        let ends = [started, before].into_iter().flatten();
        ends.fold(self.done_to, i64::max)
    }

    /// Offsets after the base that are in no run. Those beyond the reach are counted, too: more than need be.
    fn holes(&self) -> u64 {
        let before = self.done_before.back().map_or(self.seen_to, |run| run.end);
        let all = before.max(self.seen_to).abs_diff(self.next_offset());
        all.saturating_sub(self.covered + self.covered_before)
    }

    /// Takes note that the record at `offset` is finished. False if it was not pending.
    pub fn complete(&mut self, offset: i64) -> bool {
        let Some(is_followed) = self.unfinished.remove(&offset) else {
            return false;
        };
        self.stop(offset);
        self.done_to = self.done_to.max(offset + 1);
        let next = self.unfinished.range(offset..).next();
        let next = next.map_or(self.seen_to, |(next, _)| *next);
        if is_followed {
            self.runs -= 1;
            self.covered -= length(&(offset + 1..next));
        }
        // Without one before it, it was the base; what followed it is now below the base.
        if let Some((&before, is_followed)) = self.unfinished.range_mut(..offset).next_back() {
            if *is_followed {
                self.covered -= length(&(before + 1..offset));
            } else {
                *is_followed = true;
                self.runs += 1;
            }
            self.covered += length(&(before + 1..next));
        }
        true
    }

    /// What may be committed: the lowest unfinished offset, or the one after the last seen.
    pub fn next_offset(&self) -> i64 {
        self.unfinished
            .first_key_value()
            .map_or(self.seen_to, |(offset, _)| *offset)
    }

    /// Records that are pending.
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// Whether a predecessor has finished records that were not read again yet. Reading up to them makes the map no larger, and
    /// may be all that is left to make it smaller.
    pub fn is_behind(&self) -> bool {
        !self.done_before.is_empty()
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
        let budget = room(metadata_bytes_max);
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

    /// What is done beyond the base, with the gaps beside it; sorted and apart.
    fn done_runs(&self) -> Vec<Range<i64>> {
        let mut runs = Vec::new();
        let nexts = self.unfinished.keys().skip(1).copied();
        let ends = nexts.chain([self.seen_to]);
        for ((offset, is_followed), end) in self.unfinished.iter().zip(ends) {
            if *is_followed {
                // Behind the last that is done there is nothing to say, however far reading has jumped.
                runs.push(offset + 1..end.min(self.done_to));
            }
        }
        for run in &self.done_before {
            match runs.last_mut() {
                Some(last) if last.end == run.start => last.end = run.end,
                _ => runs.push(run.clone()),
            }
        }
        runs
    }
}

/// What bounds the length of both encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// Stretches of done offsets.
    runs: usize,
    /// Offsets between them.
    holes: u64,
    /// Offsets from the base to the end of the last.
    reach: u64,
}

impl Shape {
    /// Whether the shorter encoding of any map of this shape takes at most `room` bytes.
    fn fits(self, room: usize) -> bool {
        let (room, runs) = (room as u64, self.runs as u64);
        let as_runs = || numbers_bytes_max(runs, self.holes) + numbers_bytes_max(runs, self.reach);
        self.reach.div_ceil(8) <= room || as_runs() <= room
    }
}

/// The most bytes that `count` numbers take which are `sum` together. Each takes one; a second takes a number of at least
/// 2^7, a third one of 2^14, and of those there are only so many in a sum.
fn numbers_bytes_max(count: u64, sum: u64) -> u64 {
    let longer = (7..64).step_by(7).map(|shift| count.min(sum >> shift));
    count + longer.sum::<u64>()
}

fn length(run: &Range<i64>) -> u64 {
    run.end.abs_diff(run.start)
}

/// Bytes of an encoding in text of at most `metadata_bytes_max` bytes.
fn room(metadata_bytes_max: usize) -> usize {
    base64_room(metadata_bytes_max).saturating_sub(HEADER_BYTES)
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
