//! One connection: who it is from, and whether its client is too slow.
//!
//! A timer per request would cost more than reading the request. So a connection only notes in which phase it is and since
//! when; its task sleeps until the earliest moment at which that could be too long, and looks.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The client's next request.
    Idle = 0,
    /// The rest of a request's head.
    Head = 1,
    /// The rest of a request's body.
    Body = 2,
    /// Us.
    Answer = 3,
    /// The first byte that the client sends.
    Silent = 4,
}

impl Phase {
    /// Word in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Head => "head",
            Self::Body => "body",
            Self::Answer => "answer",
            Self::Silent => "silent",
        }
    }
}

/// How long each phase may take. A client that has never said anything has as long as for a head: only who was answered
/// may keep a connection for later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) idle: Duration,
    pub(super) head: Duration,
    pub(super) body: Duration,
}

/// One connection. Shared by its socket, its requests and its task.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: IpAddr,
    pub(super) peer_text: String,
    opened: Instant,
    phase: AtomicU8,
    /// Milliseconds from `opened` to the beginning of the phase.
    since: AtomicU64,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr) -> Arc<Self> {
        let peer = peer.ip().to_canonical();
        Arc::new(Self {
            peer,
            peer_text: peer.to_string(),
            opened: Instant::now(),
            phase: AtomicU8::new(Phase::Silent as u8),
            since: AtomicU64::new(0),
        })
    }

    /// Notes that `phase` begins now.
    pub(super) fn enter(&self, phase: Phase) {
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(since, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Body,
            4 => Phase::Silent,
            _ => Phase::Answer,
        }
    }

    /// How long from now until the phase it is in has taken too long; zero when it has. What waits for us is looked at
    /// again after the shortest patience, because another phase may follow any moment.
    pub(super) fn time_left(&self, patience: &Patience) -> Duration {
        let allowed = match self.phase() {
            Phase::Idle => patience.idle,
            Phase::Head | Phase::Silent => patience.head,
            Phase::Body => patience.body,
            Phase::Answer => return patience.head.min(patience.body),
        };
        let since = Duration::from_millis(self.since.load(Ordering::Relaxed));
        let left = (since + allowed).saturating_sub(self.opened.elapsed());
        // A phase with less patience may begin while we sleep for this one.
        left.min(patience.head.min(patience.body))
    }
}

/// A socket that notes when a request begins to arrive.
#[derive(Debug)]
pub(super) struct Watched<S> {
    socket: S,
    connection: Arc<Connection>,
}

impl<S> Watched<S> {
    pub(super) fn new(socket: S, connection: Arc<Connection>) -> Self {
        Self { socket, connection }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        let came = buf.filled().len() > before;
        if came && matches!(self.connection.phase(), Phase::Idle | Phase::Silent) {
            self.connection.enter(Phase::Head);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
