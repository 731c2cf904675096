//! Makes requests durable: many in one write and one fsync. A thread of its own, because both block.

use std::fs::File;
use std::io::{self, Write};
use std::time::Instant;

use crate::clock::UnixMs;
use crate::failpoint;

use super::error::SpillError;
use super::folder::{Folder, Segment};
use super::segment::MAGIC;
use super::shared::{Shared, Waiting};

/// The file being written.
pub(super) struct Disk {
    active: Option<Active>,
    /// Number of the next segment.
    next: u64,
    segment_bytes_max: u64,
    sync: Sync,
}

/// Makes what was written durable; a test can put a failing one in its place.
type Sync = Box<dyn FnMut(&File) -> io::Result<()> + Send>;

struct Active {
    number: u64,
    file: File,
    /// Bytes that are durable.
    len: u64,
}

/// What is written together.
struct Group<'a> {
    bytes: &'a [u8],
    records: u64,
    oldest: Option<UnixMs>,
}

/// Writes until the spill is stopped.
pub(super) fn run(shared: &Shared) {
    let mut buffer = Vec::new();
    loop {
        let waiting = shared.next_to_write();
        if waiting.is_empty() {
            return;
        }
        buffer.clear();
        for one in &waiting {
            buffer.extend_from_slice(one.frames.bytes());
        }
        let group = Group {
            bytes: &buffer,
            records: waiting.iter().map(|one| one.frames.count()).sum(),
            oldest: waiting
                .first()
                .and_then(|one| one.frames.records().next())
                .map(|record| record.at),
        };
        let durable = commit(shared, &group);
        failpoint::hit("gateway.spill.after_fsync");
        for Waiting { answer, .. } in waiting {
            // A client that is gone needs no answer.
            let _gone = answer.send(durable);
        }
        shared.wake_drain();
    }
}

/// Whether the group is durable. It is told to the state before it is told to anybody else.
fn commit(shared: &Shared, group: &Group<'_>) -> bool {
    let mut disk = shared.disk.lock();
    let written = disk.append(shared, group);
    drop(disk);
    let (records, bytes) = (group.records, group.bytes.len() as u64);
    match written {
        Ok(()) => {
            let counter = &shared.metrics.records_in_total;
            counter.with_label_values::<&str>(&[]).inc_by(records);
            true
        }
        Err(error) => {
            shared.failed(&error);
            shared.with(|state| {
                state.flow.settle(records);
                state.flow.release(bytes);
                state.failed_at = Some(Instant::now());
            });
            false
        }
    }
}

impl Disk {
    pub(super) fn new(next: u64, segment_bytes_max: u64) -> Self {
        Self {
            active: None,
            next,
            segment_bytes_max,
            sync: Box::new(File::sync_data),
        }
    }

    /// Lets go of segment `number` if it is the one being written: nothing goes behind what is there.
    pub(super) fn seal(&mut self, shared: &Shared, number: u64) {
        if self.active.as_ref().is_some_and(|a| a.number == number) {
            self.active = None;
        }
        shared.with(|state| {
            if let Some(segment) = state.segment(number) {
                segment.sealed = true;
            }
        });
    }

    fn append(&mut self, shared: &Shared, group: &Group<'_>) -> Result<(), SpillError> {
        let bytes = group.bytes.len() as u64;
        if let Some(active) = &self.active
            && active.len > MAGIC.len() as u64
            && active.len + bytes > self.segment_bytes_max
        {
            self.seal(shared, active.number);
        }
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.open(shared)?,
        };
        match self.write(&shared.folder, &mut active, group.bytes) {
            Ok(()) => {
                shared.with(|state| {
                    state.failed_at = None;
                    state.oldest = state.oldest.or(group.oldest);
                    if let Some(segment) = state.segment(active.number) {
                        segment.len = active.len;
                        segment.records += group.records;
                        segment.oldest = segment.oldest.or(group.oldest);
                    }
                });
                self.active = Some(active);
                Ok(())
            }
            Err(error) => {
                abandon(shared, &active);
                Err(error)
            }
        }
    }

    fn open(&mut self, shared: &Shared) -> Result<Active, SpillError> {
        let number = self.next;
        // Also when it fails: the name may be taken by then.
        self.next += 1;
        let file = shared.folder.create(number)?;
        shared.with(|state| state.segments.push_back(Segment::new(number)));
        Ok(Active {
            number,
            file,
            len: MAGIC.len() as u64,
        })
    }

    fn write(
        &mut self,
        folder: &Folder,
        active: &mut Active,
        bytes: &[u8],
    ) -> Result<(), SpillError> {
        let path = folder.path(active.number);
        let written = active.file.write_all(bytes);
        written.map_err(SpillError::io("write", &path))?;
        failpoint::hit("gateway.spill.after_write");
        (self.sync)(&active.file).map_err(SpillError::io("fsync", &path))?;
        active.len += bytes.len() as u64;
        Ok(())
    }
}

/// After a failure nobody knows what a file holds behind its durable part, and a later fsync would not tell either (it
/// reports an error once, and the pages may be gone). So nothing is written to it any more.
fn abandon(shared: &Shared, active: &Active) {
    // If this fails too, what stands there may be sent once more after a restart; it is recognised by its message ids.
    if let Err(error) = active.file.set_len(active.len) {
        tracing::warn!(%error, "what could not be made durable stays in its file");
    }
    let empty = shared.with(|state| {
        let segment = state.segment(active.number)?;
        segment.sealed = true;
        let empty = segment.records == 0;
        if empty {
            state.segments.retain(|s| s.number != active.number);
        }
        Some(empty)
    });
    if empty == Some(true)
        && let Err(error) = shared.folder.remove(active.number)
    {
        shared.failed(&error);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::{BTreeMap, HashMap, VecDeque};
    use std::fs;
    use std::os::unix::fs::{DirEntryExt, MetadataExt};
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use parking_lot::Mutex;

    use super::super::flow::{Flow, Mode};
    use super::super::frame::{self, Next, Record};
    use super::super::frames::Frames;
    use super::super::metrics::SpillMetrics;
    use super::super::segment;
    use super::*;
    use crate::telemetry::Registry;

    fn shared(dir: &Path, segment_bytes_max: u64) -> Arc<Shared> {
        shared_in(Folder::take(dir).unwrap(), segment_bytes_max)
    }

    fn shared_in(folder: Folder, segment_bytes_max: u64) -> Arc<Shared> {
        Arc::new(Shared::new(
            folder,
            Disk::new(1, segment_bytes_max),
            Flow::new(0, 0, 10_000),
            VecDeque::new(),
            5_000,
            SpillMetrics::register(&Registry::default()),
        ))
    }

    fn frames(count: u8) -> Frames {
        let mut frames = Frames::default();
        for n in 0..count {
            frames.push(Record {
                at: 5,
                key: &[n],
                traceparent: b"",
                payload: &[n; 50],
            });
        }
        frames
    }

    /// Stores `frames` as a request does, and the writer after it.
    fn store(shared: &Shared, frames: Frames) -> bool {
        let mut answer = shared.enqueue(frames).unwrap();
        let waiting = shared.next_to_write();
        let bytes: Vec<u8> = waiting
            .iter()
            .flat_map(|w| w.frames.bytes())
            .copied()
            .collect();
        let group = Group {
            bytes: &bytes,
            records: waiting.iter().map(|w| w.frames.count()).sum(),
            oldest: Some(5),
        };
        let durable = commit(shared, &group);
        for one in waiting {
            one.answer.send(durable).unwrap();
        }
        answer.try_recv().unwrap()
    }

    fn on_disk(shared: &Shared) -> Vec<(String, u64)> {
        let mut found: Vec<(String, u64)> = fs::read_dir(shared.folder.dir())
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name() != "lock")
            .map(|entry| {
                let scan = segment::scan(&fs::read(entry.path()).unwrap());
                assert_eq!(scan.end, segment::End::Clean);
                (entry.file_name().into_string().unwrap(), scan.records)
            })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn a_full_segment_is_followed_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(dir.path(), 400);
        for _ in 0..4 {
            assert!(store(&shared, frames(2)));
        }
        let found = on_disk(&shared);
        let names: Vec<String> = (1..=2).map(segment::file_name).collect();
        assert_eq!(found, [(names[0].clone(), 4), (names[1].clone(), 4)]);
        // One that is larger than a segment gets one of its own.
        assert!(store(&shared, frames(20)));
        assert_eq!(on_disk(&shared)[2], (segment::file_name(3), 20));
        shared.with(|state| {
            let sealed: Vec<bool> = state.segments.iter().map(|s| s.sealed).collect();
            assert_eq!(sealed, [true, true, false]);
            assert_eq!((state.flow.records(), state.oldest), (28, Some(5)));
        });
    }

    #[test]
    fn after_a_failed_fsync_nothing_is_answered_for_and_the_file_is_not_trusted_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(dir.path(), 100_000);
        assert!(store(&shared, frames(1)));
        let mut calls = 0;
        shared.disk.lock().sync = Box::new(move |file| {
            calls += 1;
            match calls {
                1 => Err(io::ErrorKind::StorageFull.into()),
                _ => file.sync_data(),
            }
        });
        assert!(!store(&shared, frames(2)), "a false 200");
        assert!(!shared.has_room(0), "ready on a disk that just failed");
        assert!(store(&shared, frames(3)));
        assert!(shared.has_room(0));
        let expected = [(segment::file_name(1), 1), (segment::file_name(2), 3)];
        assert_eq!(on_disk(&shared), expected);
        shared.with(|state| {
            assert_eq!(state.flow.records(), 4);
            assert_eq!(state.flow.bytes(), frames(4).len());
        });
    }

    /// What a power cut leaves at least: the names in a folder as they were made durable last, the bytes of each file as they
    /// were.
    #[derive(Debug, Clone, Default)]
    struct Platter {
        /// Inodes.
        names: BTreeMap<String, u64>,
        bytes: HashMap<u64, Vec<u8>>,
    }

    /// What a power cut at some moment may leave, and what must come out of it.
    struct Cut {
        platter: Platter,
        /// The file that was being written, and all of its bytes.
        writing: (u64, Vec<u8>),
        answered: u64,
    }

    thread_local! {
        static PLATTER: RefCell<Platter> = RefCell::default();
    }

    fn in_folder(dir: &Path) -> Vec<(String, u64)> {
        fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name() != "lock")
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.ino()))
            .collect()
    }

    fn numbered(from: u64, count: u64) -> Frames {
        let mut frames = Frames::default();
        for n in from..from + count {
            frames.push(Record {
                at: 5,
                key: &n.to_le_bytes(),
                traceparent: b"",
                payload: &[n as u8; 30],
            });
        }
        frames
    }

    /// The numbers of the records that a start finds in `dir`, in the order in which they are drained.
    fn found(dir: &Path) -> Vec<u64> {
        let folder = Folder::take(dir).unwrap();
        let left = folder.survey().unwrap();
        let mut numbers = Vec::new();
        for segment in left.segments {
            let bytes = folder
                .read(segment.number, MAGIC.len() as u64, segment.len)
                .unwrap();
            let mut at = 0;
            while let Next::Record(record, len) = frame::next(&bytes[at..]) {
                numbers.push(u64::from_le_bytes(record.key.try_into().unwrap()));
                at += len;
            }
            assert_eq!(at, bytes.len(), "a survey that counts what it cannot read");
        }
        numbers
    }

    /// Asked of the code as it is: what is on the platter is what it has synced, file by file and folder by folder.
    #[test]
    fn a_power_cut_at_any_moment_leaves_everything_that_was_answered_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::take(dir.path()).unwrap();
        folder.sync = |dir| {
            PLATTER.with_borrow_mut(|platter| platter.names = in_folder(dir).into_iter().collect());
            Ok(())
        };
        let shared = shared_in(folder, 400);
        let (cuts, answered) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicU64::new(0)),
        );
        let (seen, so_far) = (Arc::clone(&cuts), Arc::clone(&answered));
        let path = dir.path().to_owned();
        shared.disk.lock().sync = Box::new(move |file| {
            let inode = file.metadata()?.ino();
            let files = in_folder(&path);
            let (name, _) = files.iter().find(|(_, ino)| *ino == inode).unwrap();
            let bytes = fs::read(path.join(name))?;
            PLATTER.with_borrow_mut(|platter| {
                seen.lock().push(Cut {
                    platter: platter.clone(),
                    writing: (inode, bytes.clone()),
                    answered: so_far.load(Ordering::Relaxed),
                });
                platter.bytes.insert(inode, bytes);
            });
            Ok(())
        });
        for group in 0..7 {
            let count = 1 + group % 3;
            let from = answered.load(Ordering::Relaxed);
            assert!(store(&shared, numbered(from, count)));
            answered.fetch_add(count, Ordering::Relaxed);
        }
        assert!(on_disk(&shared).len() > 2, "one segment after the other");
        let end = PLATTER.take();
        let last = *end.names.values().max().unwrap();
        let mut cuts = std::mem::take(&mut *cuts.lock());
        cuts.push(Cut {
            writing: (last, end.bytes[&last].clone()),
            platter: end,
            answered: answered.load(Ordering::Relaxed),
        });
        for cut in &cuts {
            let (writing, bytes) = &cut.writing;
            let durable = cut.platter.bytes.get(writing).map_or(0, Vec::len);
            for (len, zeros) in (durable..=bytes.len())
                .flat_map(|len| [(len, 0), (len, bytes.len() - len)])
                .step_by(7)
            {
                let after = tempfile::tempdir().unwrap();
                for (name, inode) in &cut.platter.names {
                    let mut left = cut.platter.bytes.get(inode).cloned().unwrap_or_default();
                    if inode == writing {
                        left = bytes[..len].to_vec();
                        left.resize(len + zeros, 0);
                    }
                    fs::write(after.path().join(name), left).unwrap();
                }
                let found = found(after.path());
                let all: Vec<u64> = (0..found.len() as u64).collect();
                assert_eq!(found, all);
                assert!(
                    found.len() as u64 >= cut.answered,
                    "{} of {} after a cut at {len} with {zeros} zeros",
                    found.len(),
                    cut.answered
                );
            }
        }
    }

    #[test]
    fn a_segment_whose_name_may_be_gone_after_a_power_cut_is_not_answered_for() {
        thread_local! {
            static BROKEN: Cell<bool> = const { Cell::new(true) };
        }
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::take(dir.path()).unwrap();
        folder.sync = |_| match BROKEN.get() {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        };
        let shared = shared_in(folder, 100_000);
        for _ in 0..3 {
            assert!(!store(&shared, frames(2)), "a false 200");
        }
        assert_eq!(on_disk(&shared), [], "every refused request leaves a file");
        BROKEN.set(false);
        assert!(store(&shared, frames(2)));
        assert_eq!(on_disk(&shared), [(segment::file_name(4), 2)]);
    }

    #[test]
    fn a_failure_with_nothing_else_in_the_spill_leaves_no_file_and_the_direct_way() {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(dir.path(), 100_000);
        shared.disk.lock().sync = Box::new(|_| Err(io::ErrorKind::StorageFull.into()));
        assert!(!store(&shared, frames(2)));
        assert_eq!(on_disk(&shared), []);
        assert_eq!(*shared.mode.borrow(), Mode::Direct);
        shared.with(|state| assert_eq!((state.flow.bytes(), state.segments.len()), (0, 0)));
    }

    #[test]
    fn beyond_the_limit_nothing_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(dir.path(), 100_000);
        let one = frames(1).len();
        for _ in 0..10_000 / one {
            assert!(store(&shared, frames(1)));
        }
        assert!(shared.enqueue(frames(1)).is_err());
    }

    #[test]
    fn a_disk_that_hangs_does_not_fill_the_memory() {
        let dir = tempfile::tempdir().unwrap();
        let shared = shared(dir.path(), 100_000);
        let one = frames(1).len();
        let waiting: Vec<_> = (0..5_000 / one)
            .map(|_| shared.enqueue(frames(1)).unwrap())
            .collect();
        assert!(shared.enqueue(frames(1)).is_err());
        assert!(!shared.has_room(one));
        assert_eq!(shared.next_to_write().len(), waiting.len());
        assert!(shared.has_room(one));
    }
}
