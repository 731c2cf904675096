//! What requests, the writer and the drain share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::UnixMs;

use super::error::SpillError;
use super::flow::{Flow, Full, Mode};
use super::folder::{Folder, Segment};
use super::frames::Frames;
use super::metrics::SpillMetrics;
use super::writer::Disk;

/// Requests are written together up to so many bytes, which bounds how far a segment can exceed its limit.
const TOGETHER_BYTES_MAX: u64 = 1 << 20;
/// How long the spill is not called ready after the disk failed.
const MISTRUST: Duration = Duration::from_secs(5);
/// How often the drain looks up when there is nothing to do.
const LOOK_UP: Duration = Duration::from_secs(1);

/// What requests, the writer and the drain share. Where both locks are needed, `disk` is taken first.
pub(super) struct Shared {
    pub(super) folder: Folder,
    pub(super) metrics: Arc<SpillMetrics>,
    /// The file being written; held over a write and its fsync.
    pub(super) disk: Mutex<Disk>,
    /// What new requests do, for those that only look; changed under the lock of `state`.
    pub(super) mode: watch::Sender<Mode>,
    /// For what waits in the runtime.
    pub(super) stopping: CancellationToken,
    state: Mutex<State>,
    to_write: Condvar,
    to_drain: Condvar,
}

/// Everything that changes. The lock is held for moments only, never over a system call.
pub(super) struct State {
    pub(super) flow: Flow,
    /// Oldest first.
    pub(super) segments: VecDeque<Segment>,
    /// About when the oldest record that waits was spilled.
    pub(super) oldest: Option<UnixMs>,
    /// When the disk failed last, unless it worked since.
    pub(super) failed_at: Option<Instant>,
    queue: VecDeque<Waiting>,
    queue_bytes: u64,
    /// Bytes of frames that may wait for the disk in memory.
    queue_bytes_max: u64,
    stopping: bool,
}

/// A request that waits for the disk.
pub(super) struct Waiting {
    pub(super) frames: Frames,
    /// Told once it is known whether the frames are durable.
    pub(super) answer: oneshot::Sender<bool>,
}

/// Bytes of a segment that are to be drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// What the drain does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Send these.
    Drain(Place),
    /// Nothing waits: see whether the folder is in order.
    LookUp,
    /// End.
    Stop,
}

impl Shared {
    pub(super) fn new(
        folder: Folder,
        disk: Disk,
        flow: Flow,
        segments: VecDeque<Segment>,
        queue_bytes_max: u64,
        metrics: Arc<SpillMetrics>,
    ) -> Self {
        let (mode, _) = watch::channel(flow.mode());
        Self {
            folder,
            metrics,
            disk: Mutex::new(disk),
            mode,
            stopping: CancellationToken::new(),
            state: Mutex::new(State {
                oldest: segments.front().and_then(|segment| segment.oldest),
                flow,
                segments,
                failed_at: None,
                queue: VecDeque::new(),
                queue_bytes: 0,
                queue_bytes_max,
                stopping: false,
            }),
            to_write: Condvar::new(),
            to_drain: Condvar::new(),
        }
    }

    /// Looks at the state or changes it; who only looks at the mode sees the change at once.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = work(&mut state);
        let mode = state.flow.mode();
        if *self.mode.borrow() != mode {
            // Under the lock, so that changes are seen in their order.
            self.mode.send_replace(mode);
        }
        result
    }

    /// Takes a request's frames; what this returns tells whether they became durable.
    pub(super) fn enqueue(&self, frames: Frames) -> Result<oneshot::Receiver<bool>, Full> {
        let (answer, answered) = oneshot::channel();
        self.with(|state| {
            // A disk that hangs must not fill the memory instead.
            if state.stopping || !state.queue_has_room(frames.len()) {
                return Err(Full);
            }
            state.flow.take(frames.count(), frames.len())?;
            state.queue_bytes += frames.len();
            state.queue.push_back(Waiting { frames, answer });
            Ok(())
        })?;
        self.to_write.notify_one();
        Ok(answered)
    }

    /// Waits for requests to write together; none means that the writer is to end.
    pub(super) fn next_to_write(&self) -> Vec<Waiting> {
        let mut state = self.state.lock();
        while state.queue.is_empty() && !state.stopping {
            self.to_write.wait(&mut state);
        }
        let mut together = Vec::new();
        let mut bytes = 0;
        while let Some(next) = state.queue.front() {
            let len = next.frames.len();
            if bytes + len > TOGETHER_BYTES_MAX && !together.is_empty() {
                break;
            }
            bytes += len;
            together.extend(state.queue.pop_front());
        }
        state.queue_bytes -= bytes;
        together
    }

    /// Waits for something durable that is not drained.
    pub(super) fn next_to_drain(&self) -> Work {
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return Work::Stop;
            }
            if let Some(segment) = state.segments.iter().find(|s| s.drained < s.len) {
                return Work::Drain(Place {
                    number: segment.number,
                    from: segment.drained,
                    to: segment.len,
                });
            }
            if self.to_drain.wait_for(&mut state, LOOK_UP).timed_out() {
                return Work::LookUp;
            }
        }
    }

    /// There is something durable to drain.
    pub(super) fn wake_drain(&self) {
        self.to_drain.notify_one();
    }

    /// Counts the folder's other files against the limit.
    pub(super) fn count_others(&self) {
        let known: Vec<u64> = self.with(|state| state.segments.iter().map(|s| s.number).collect());
        let bytes = self.folder.others(&known);
        self.with(|state| state.flow.others(bytes));
    }

    /// Whether a request of `bytes` bytes could be taken now, as far as is known.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.with(|state| {
            let failing = state.failed_at.is_some_and(|at| at.elapsed() < MISTRUST);
            state.flow.has_room(bytes) && state.queue_has_room(bytes) && !failing
        })
    }

    /// Says that the disk failed, and counts it.
    pub(super) fn failed(&self, error: &SpillError) {
        tracing::error!(%error, "spill");
        let errors = &self.metrics.errors_total;
        errors.with_label_values(&[error.operation()]).inc();
    }

    /// Ends the writer, once it has written what waits, and the drain, where it stands.
    pub(super) fn stop(&self) {
        self.with(|state| state.stopping = true);
        self.stopping.cancel();
        self.to_write.notify_all();
        self.to_drain.notify_all();
    }
}

impl State {
    fn queue_has_room(&self, bytes: u64) -> bool {
        self.queue_bytes.saturating_add(bytes) <= self.queue_bytes_max
    }

    /// The segment of that number.
    pub(super) fn segment(&mut self, number: u64) -> Option<&mut Segment> {
        self.segments.iter_mut().find(|s| s.number == number)
    }
}
