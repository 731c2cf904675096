//! A webhook that notes when each event came, and answers at once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::event::{self, Run};

/// Arrivals by event number.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// First arrival of each event.
    pub first: HashMap<u64, Instant>,
    /// Arrivals beyond the first.
    pub repeated: u64,
    /// The last first arrival.
    pub last: Option<Instant>,
}

/// A running sink.
#[derive(Clone)]
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    runs: Mutex<HashMap<u32, Arrivals>>,
    requests: AtomicU64,
}

impl Sink {
    /// Starts on a thread of its own.
    pub fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let sink = Self {
            address: listener.local_addr()?,
            state: Arc::default(),
        };
        let state = Arc::clone(&sink.state);
        std::thread::Builder::new()
            .name("webhook".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let Ok(runtime) = runtime else { return };
                runtime.block_on(async move {
                    let Ok(listener) = TcpListener::from_std(listener) else {
                        return;
                    };
                    while let Ok((stream, _)) = listener.accept().await {
                        // A broken connection shows as missing arrivals.
                        tokio::spawn(serve(stream, Arc::clone(&state)));
                    }
                });
            })?;
        Ok(sink)
    }

    /// How many distinct events of `run` came.
    pub fn count(&self, run: Run) -> usize {
        self.state
            .runs
            .lock()
            .get(&run.0)
            .map_or(0, |a| a.first.len())
    }

    /// Requests of any run.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Takes the arrivals of `run`.
    pub fn take(&self, run: Run) -> Arrivals {
        self.state.runs.lock().remove(&run.0).unwrap_or_default()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) -> Result<()> {
    stream.set_nodelay(true)?;
    let finder = memchr::memmem::Finder::new(b"ld-");
    let mut bytes: Vec<u8> = Vec::with_capacity(8192);
    loop {
        let (head_end, length) = loop {
            if let Some(at) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
                let head = std::str::from_utf8(&bytes[..at])?;
                let length = head
                    .split("\r\n")
                    .filter_map(|line| line.split_once(':'))
                    .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                    .map_or(Ok(0), |(_, value)| value.trim().parse::<usize>())?;
                break (at + 4, length);
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        while bytes.len() < head_end + length {
            let read = stream.read_buf(&mut bytes).await?;
            anyhow::ensure!(read > 0, "cut off");
        }
        note(&state, &finder, &bytes[head_end..head_end + length]).context("an event of no run")?;
        bytes.drain(..head_end + length);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
            .await?;
    }
}

/// Notes each run's number in a body: `ld-` and eight digits name the run.
fn note(state: &State, finder: &memchr::memmem::Finder<'_>, body: &[u8]) -> Option<()> {
    let now = Instant::now();
    state.requests.fetch_add(1, Ordering::Relaxed);
    let at = finder.find(body)?;
    let run = body.get(at + 3..at + 11)?;
    let run = Run(u32::from_str_radix(std::str::from_utf8(run).ok()?, 16).ok()?);
    let marker = run.marker();
    let finder = memchr::memmem::Finder::new(marker.as_bytes());
    let mut runs = state.runs.lock();
    let arrivals = runs.entry(run.0).or_default();
    let mut before = None;
    for number in event::numbers(&finder, body) {
        // One body may name an id twice.
        if before.replace(number) == Some(number) {
            continue;
        }
        match arrivals.first.entry(number) {
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(now);
                arrivals.last = Some(now);
            }
            std::collections::hash_map::Entry::Occupied(_) => arrivals.repeated += 1,
        }
    }
    Some(())
}
