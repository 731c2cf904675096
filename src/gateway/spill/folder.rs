//! The folder of segments: locked, looked through at the start, kept in order. Blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::clock::UnixMs;
use crate::lock::FolderLock;

use super::error::SpillError;
use super::segment::{self, End, MAGIC};

const LOCK: &str = "lock";

/// A folder that is ours alone.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    lock: Mutex<Option<FolderLock>>,
    /// Makes names durable; a test can put another one in its place.
    pub(super) sync: fn(&Path) -> io::Result<()>,
}

/// A segment as far as it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// Bytes that are durable.
    pub(super) len: u64,
    /// Records in them.
    pub(super) records: u64,
    /// When the first of them was spilled.
    pub(super) oldest: Option<UnixMs>,
    /// Bytes that are done with.
    pub(super) drained: u64,
    /// Records in them.
    pub(super) drained_records: u64,
    /// Nothing will be written behind them any more.
    pub(super) sealed: bool,
}

impl Segment {
    /// A new one, to be written to.
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            len: MAGIC.len() as u64,
            records: 0,
            oldest: None,
            drained: MAGIC.len() as u64,
            drained_records: 0,
            sealed: false,
        }
    }
}

/// What an earlier life left.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Oldest first; all sealed.
    pub(super) segments: Vec<Segment>,
    /// How many of them were damaged.
    pub(super) damaged: u64,
    /// The number for the next segment.
    pub(super) next: u64,
}

impl Folder {
    /// Takes `dir`, creating it if need be.
    pub(super) fn take(dir: &Path) -> Result<Self, SpillError> {
        let lock = FolderLock::take(dir, LOCK)?;
        Ok(Self {
            dir: dir.to_owned(),
            lock: Mutex::new(Some(lock)),
            sync: |dir| File::open(dir)?.sync_all(),
        })
    }

    /// Lets another process take the folder.
    pub(super) fn give_up(&self) {
        self.lock.lock().take();
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(segment::file_name(number))
    }

    /// Looks through all segments, cuts off what was never answered for, and puts aside what cannot be read.
    pub(super) fn survey(&self) -> Result<Left, SpillError> {
        let mut numbers = self.numbers()?;
        numbers.sort_unstable();
        let mut left = Left {
            next: numbers.last().map_or(1, |last| last + 1),
            ..Left::default()
        };
        for number in numbers {
            let path = self.path(number);
            let bytes = fs::read(&path).map_err(SpillError::io("read", &path))?;
            let scan = segment::scan(&bytes);
            let rest = bytes.len() as u64 - scan.whole;
            match scan.end {
                End::Clean => {}
                End::Torn => {
                    tracing::warn!(
                        file = %path.display(), bytes = rest,
                        "cut off the last {rest} bytes: a write that did not come to its end, and was never answered for"
                    );
                    self.cut(number, scan.whole)?;
                }
                End::Damaged => {
                    left.damaged += 1;
                    self.put_aside(number, scan.whole)?;
                }
            }
            if scan.records == 0 {
                self.remove(number)?;
                continue;
            }
            left.segments.push(Segment {
                len: scan.whole,
                records: scan.records,
                oldest: scan.oldest,
                sealed: true,
                ..Segment::new(number)
            });
        }
        Ok(left)
    }

    fn numbers(&self) -> Result<Vec<u64>, SpillError> {
        let failed = || SpillError::io("read", &self.dir);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            numbers.extend(name.to_str().and_then(segment::number));
        }
        Ok(numbers)
    }

    /// Bytes of the files that are neither the lock nor one of `segments`.
    pub(super) fn others(&self, segments: &[u64]) -> u64 {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            // Whoever writes next will say so.
            return 0;
        };
        entries
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                let known = name.to_str().and_then(segment::number);
                name != LOCK && !known.is_some_and(|number| segments.contains(&number))
            })
            .filter_map(|entry| entry.metadata().ok())
            .map(|file| file.len())
            .sum()
    }

    /// A new segment, durable as far as its name goes: else an fsync of it would be worth nothing.
    pub(super) fn create(&self, number: u64) -> Result<File, SpillError> {
        let path = self.path(number);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(SpillError::io("create", &path))?;
        let begun = file.write_all(&MAGIC).and_then(|()| self.sync());
        if begun.is_err() {
            // A full disk has room for names, and each request that is refused would leave another one.
            let _left = fs::remove_file(&path);
        }
        begun.map_err(SpillError::io("create", &path))?;
        Ok(file)
    }

    /// Bytes `from` to `to` of a segment.
    pub(super) fn read(&self, number: u64, from: u64, to: u64) -> Result<Vec<u8>, SpillError> {
        let path = self.path(number);
        let read = || {
            let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(usize::MAX)];
            File::open(&path)?.read_exact_at(&mut bytes, from)?;
            Ok(bytes)
        };
        read().map_err(SpillError::io("read", &path))
    }

    /// Cuts a segment at `len`.
    pub(super) fn cut(&self, number: u64, len: u64) -> Result<(), SpillError> {
        let path = self.path(number);
        let cut = || {
            let file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(len)?;
            file.sync_all()
        };
        cut().map_err(SpillError::io("cut", &path))
    }

    /// Moves what follows byte `from` of a damaged segment to a file of its own, and says so. What stands before it is whole.
    pub(super) fn put_aside(&self, number: u64, from: u64) -> Result<(), SpillError> {
        let path = self.path(number);
        let aside = self.dir.join(segment::damaged_name(number, from));
        tracing::error!(
            file = %path.display(), offset = from, kept_in = %aside.display(),
            "a segment of the spill is damaged: events that were answered with 200 may be among what cannot be read; what follows \
             byte {from} is kept aside"
        );
        let keep = || {
            let mut damaged = File::open(&path)?;
            damaged.seek(SeekFrom::Start(from))?;
            // A crash in between leaves both; the next start does it again.
            let mut kept = File::create(&aside)?;
            io::copy(&mut damaged, &mut kept)?;
            kept.sync_all()?;
            self.sync()
        };
        keep().map_err(SpillError::io("keep", &aside))?;
        self.cut(number, from)
    }

    /// Appends frames to the file of what Kafka refused of a segment. A try that a full disk or a crash cut short is taken back
    /// first: nobody could read what stands behind it.
    pub(super) fn keep_refused(&self, number: u64, frames: &[u8]) -> Result<PathBuf, SpillError> {
        let path = self.dir.join(segment::refused_name(number));
        let keep = || {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            let mut kept = Vec::new();
            file.read_to_end(&mut kept)?;
            let scan = segment::scan(&kept);
            if scan.end == End::Torn {
                file.set_len(scan.whole)?;
                file.seek(SeekFrom::Start(scan.whole))?;
            }
            if scan.whole == 0 && scan.end != End::Damaged {
                file.write_all(&MAGIC)?;
            }
            file.write_all(frames)?;
            file.sync_all()?;
            self.sync()
        };
        keep().map_err(SpillError::io("keep", &path))?;
        Ok(path)
    }

    /// Deletes a segment. One that is gone already is as good.
    pub(super) fn remove(&self, number: u64) -> Result<(), SpillError> {
        let path = self.path(number);
        let remove = || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            // Else a power cut could bring it back, and its events a second time.
            self.sync()
        };
        remove().map_err(SpillError::io("delete", &path))
    }

    /// Makes names durable.
    fn sync(&self) -> io::Result<()> {
        (self.sync)(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Record, encode};
    use super::*;

    fn frames(count: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        for n in 0..count {
            let record = Record {
                at: i64::from(n),
                key: b"k",
                traceparent: b"",
                payload: &[n; 20],
            };
            encode(record, &mut bytes);
        }
        bytes
    }

    fn write(folder: &Folder, number: u64, bytes: &[u8]) {
        folder.create(number).unwrap().write_all(bytes).unwrap();
    }

    fn names(folder: &Folder) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder.dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != LOCK)
            .collect();
        names.sort();
        names
    }

    /// Number and records of each segment.
    fn found(left: &Left) -> Vec<(u64, u64)> {
        let segments = left.segments.iter();
        segments.map(|s| (s.number, s.records)).collect()
    }

    #[test]
    fn two_owners_of_a_folder_are_one_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::take(dir.path()).unwrap();
        let refused = Folder::take(dir.path()).unwrap_err().to_string();
        let pid = format!("in use by process {}", std::process::id());
        assert!(refused.contains(&pid), "{refused}");
        first.give_up();
        Folder::take(dir.path()).unwrap();
    }

    #[test]
    fn what_was_left_is_found_in_order_and_a_torn_tail_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::take(dir.path()).unwrap();
        write(&folder, 12, &frames(3));
        let three = frames(3);
        write(&folder, 3, &three[..three.len() - 1]);
        // Created, and nothing written yet.
        write(&folder, 13, &[]);
        let left = folder.survey().unwrap();
        assert_eq!(found(&left), [(3, 2), (12, 3)]);
        assert_eq!((left.next, left.damaged), (14, 0));
        assert_eq!(
            names(&folder),
            [segment::file_name(3), segment::file_name(12)]
        );
        let len = fs::metadata(folder.path(3)).unwrap().len();
        assert_eq!(len, left.segments[0].len);
        assert_eq!(folder.others(&[3, 12]), 0);
    }

    #[test]
    fn of_a_damaged_segment_the_whole_part_stays_and_the_rest_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::take(dir.path()).unwrap();
        let one = frames(1).len();
        let mut bytes = frames(3);
        bytes[one + 30] ^= 1;
        write(&folder, 1, &bytes);
        write(&folder, 2, &frames(1));
        let left = folder.survey().unwrap();
        assert_eq!(found(&left), [(1, 1), (2, 1)]);
        assert_eq!(left.damaged, 1);
        let from = (MAGIC.len() + one) as u64;
        let aside = folder.dir().join(segment::damaged_name(1, from));
        assert_eq!(fs::read(aside).unwrap(), bytes[one..]);
        assert_eq!(folder.others(&[1, 2]), 2 * one as u64);
        // The next start finds nothing wrong any more.
        assert_eq!(folder.survey().unwrap().damaged, 0);
    }

    #[test]
    fn what_is_refused_is_kept_in_the_layout_of_a_segment() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::take(dir.path()).unwrap();
        folder.keep_refused(4, &frames(1)).unwrap();
        let path = folder.keep_refused(4, &frames(2)).unwrap();
        assert_eq!(segment::scan(&fs::read(path).unwrap()).records, 3);
    }

    #[test]
    fn what_is_refused_is_never_kept_behind_a_try_that_was_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::take(dir.path()).unwrap();
        let whole = [&MAGIC[..], &frames(2)].concat();
        for cut in 0..whole.len() {
            let path = folder.dir().join(segment::refused_name(4));
            fs::write(&path, &whole[..cut]).unwrap();
            folder.keep_refused(4, &frames(3)).unwrap();
            let scan = segment::scan(&fs::read(path).unwrap());
            let before = segment::scan(&whole[..cut]).records;
            assert_eq!(
                (scan.records, scan.end),
                (before + 3, End::Clean),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn what_is_kept_of_a_damaged_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::take(dir.path()).unwrap();
        let path = folder.dir().join(segment::refused_name(4));
        let mut hurt = [&MAGIC[..], &frames(2)].concat();
        hurt[30] ^= 1;
        fs::write(&path, &hurt).unwrap();
        folder.keep_refused(4, &frames(1)).unwrap();
        assert_eq!(fs::read(path).unwrap(), [hurt, frames(1)].concat());
    }

    #[test]
    fn a_segment_that_could_not_be_begun_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::take(dir.path()).unwrap();
        folder.sync = |_| Err(io::ErrorKind::StorageFull.into());
        folder.create(1).unwrap_err();
        assert_eq!(names(&folder), Vec::<String>::new());
        // Somebody else's is not touched.
        fs::write(folder.path(2), "theirs").unwrap();
        folder.create(2).unwrap_err();
        assert_eq!(fs::read(folder.path(2)).unwrap(), b"theirs");
    }
}
