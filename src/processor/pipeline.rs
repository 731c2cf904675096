//! From the thread that reads, over the workers that decode, to the thread that publishes; in order.
//!
//! ```text
//!            ┌─▶ worker 0 ─┐
//!   intake ──┼─▶ worker 1 ─┼──▶ publisher        item n goes to worker n mod w and is taken from it: the order
//!            └─▶ worker 2 ─┘                      needs no numbers and no buffer to put it back
//! ```
//!
//! Everything the publisher learns comes this way, also what is not records: that a partition is ours, that it is gone, that
//! somebody waits until all before is done. So nothing can overtake. Every channel is bounded: when the publisher waits for a
//! commit, the workers fill up the next transaction and then the reader stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::registry::Schemas;

use super::decode::{Chunk, Planned, decode};
use super::dedup::Window;
use super::error::ProcessorError;

/// Chunks that wait before and behind each worker.
const DEPTH: usize = 2;

/// One thing on its way.
#[derive(Debug)]
pub(super) enum Item<C> {
    /// Records.
    Records {
        /// Which run they belong to; records of a run before the publisher's are dropped.
        run: u64,
        /// The records.
        chunk: C,
    },
    /// A partition is ours, with what was accepted of it before. Comes before its records.
    Adopt {
        /// Partition of `events`.
        partition: i32,
        /// What was accepted before.
        window: Window,
        /// Where the group goes on; `None` when it never committed.
        next: Option<i64>,
    },
    /// A partition is not ours any more.
    Forget(i32),
    /// Answered when everything before it has ended.
    Barrier(SyncSender<()>),
}

impl<C> Item<C> {
    fn map<D>(self, f: impl FnOnce(C) -> D) -> Item<D> {
        match self {
            Self::Records { run, chunk } => Item::Records {
                run,
                chunk: f(chunk),
            },
            Self::Adopt {
                partition,
                window,
                next,
            } => Item::Adopt {
                partition,
                window,
                next,
            },
            Self::Forget(partition) => Item::Forget(partition),
            Self::Barrier(done) => Item::Barrier(done),
        }
    }
}

/// The other end is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed;

/// Where the reader puts items.
#[derive(Debug)]
pub(super) struct Feeder {
    workers: Vec<SyncSender<Item<Chunk>>>,
    turn: usize,
    under_way: Arc<AtomicUsize>,
}

impl Feeder {
    /// Puts an item in; waits for room.
    ///
    /// # Errors
    /// When the publisher has ended.
    pub(super) fn put(&mut self, item: Item<Chunk>) -> Result<(), Closed> {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        let worker = &self.workers[self.turn];
        self.turn = (self.turn + 1) % self.workers.len();
        worker.send(item).map_err(|_| Closed)
    }

    /// Waits until everything that was put in has ended: committed, or dropped.
    ///
    /// # Errors
    /// When the publisher has ended.
    pub(super) fn wait_for_all(&mut self) -> Result<(), Closed> {
        let (done, wait) = sync_channel(1);
        self.put(Item::Barrier(done))?;
        wait.recv().map_err(|_| Closed)
    }
}

/// Where the publisher takes items.
#[derive(Debug)]
pub(super) struct Collector {
    workers: Vec<Receiver<Item<Planned>>>,
    turn: usize,
    under_way: Arc<AtomicUsize>,
}

impl Collector {
    /// The next item; `None` when it did not come within `wait` (`None`: for ever).
    ///
    /// # Errors
    /// When the reader has ended and everything was taken.
    pub(super) fn take(&mut self, wait: Option<Duration>) -> Result<Option<Item<Planned>>, Closed> {
        let worker = &self.workers[self.turn];
        let item = match wait {
            None => worker.recv().map_err(|_| Closed)?,
            Some(wait) => match worker.recv_timeout(wait) {
                Ok(item) => item,
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(Closed),
            },
        };
        self.turn = (self.turn + 1) % self.workers.len();
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        Ok(Some(item))
    }

    /// Whether nothing is under way: what has been read has been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }
}

/// Starts `count` workers. They end when either end is dropped.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn start(
    count: usize,
    schemas: &Schemas,
) -> Result<(Feeder, Collector), ProcessorError> {
    let under_way = Arc::new(AtomicUsize::new(0));
    let mut feeder = Feeder {
        workers: Vec::with_capacity(count),
        turn: 0,
        under_way: Arc::clone(&under_way),
    };
    let mut collector = Collector {
        workers: Vec::with_capacity(count),
        turn: 0,
        under_way,
    };
    for n in 0..count {
        let (give, work) = sync_channel::<Item<Chunk>>(DEPTH);
        let (done, take) = sync_channel(DEPTH);
        let schemas = schemas.clone();
        thread::Builder::new()
            .name(format!("processor-{n}"))
            .spawn(move || {
                for item in work {
                    if done
                        .send(item.map(|chunk| decode(chunk, &schemas)))
                        .is_err()
                    {
                        return;
                    }
                }
            })
            .map_err(ProcessorError::Thread)?;
        feeder.workers.push(give);
        collector.workers.push(take);
    }
    Ok((feeder, collector))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Message;

    fn records(offset: i64) -> Item<Chunk> {
        let message = Message {
            topic: "t".into(),
            partition: 0,
            offset,
            timestamp: None,
            key: None,
            payload: None,
            headers: Vec::new(),
        };
        Item::Records {
            run: 0,
            chunk: Chunk {
                messages: vec![message; 1 + (offset % 7) as usize],
                routes: Arc::default(),
            },
        }
    }

    #[test]
    fn items_come_out_in_the_order_they_went_in() {
        let (mut feeder, mut collector) = start(3, &Schemas::default()).unwrap();
        let feeding = thread::spawn(move || {
            for offset in 0..500 {
                feeder.put(records(offset)).unwrap();
                if offset % 10 == 0 {
                    feeder.put(Item::Forget(offset as i32)).unwrap();
                }
            }
        });
        let mut last = -1;
        while let Ok(Some(item)) = collector.take(None) {
            match item {
                Item::Records { chunk, .. } => {
                    assert_eq!(chunk.messages[0].offset, last + 1);
                    assert_eq!(chunk.events.len(), chunk.messages.len());
                    last += 1;
                }
                Item::Forget(partition) => assert_eq!(i64::from(partition), last),
                Item::Adopt { .. } | Item::Barrier(_) => unreachable!(),
            }
        }
        assert_eq!(last, 499);
        feeding.join().unwrap();
    }

    #[test]
    fn a_reader_learns_that_the_publisher_has_ended() {
        let (mut feeder, collector) = start(2, &Schemas::default()).unwrap();
        drop(collector);
        let mut puts = 0;
        while feeder.put(records(puts)).is_ok() {
            puts += 1;
            assert!(puts < 100, "it goes on for ever");
        }
        assert_eq!(feeder.wait_for_all(), Err(Closed));
    }
}
