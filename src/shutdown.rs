//! Stopping in order: one token for "begin to drain", a bound on how long draining may take, and tasks whose panic ends
//! the process's roles instead of leaving a half-dead one behind.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Handed to every role. Cheap to clone; all clones are the same signal.
#[derive(Debug, Clone)]
pub struct Shutdown {
    token: CancellationToken,
    drain: Duration,
}

impl Shutdown {
    /// A signal not yet given; roles get `drain` to finish what they hold once it is.
    pub fn new(drain: Duration) -> Self {
        Self {
            token: CancellationToken::new(),
            drain,
        }
    }

    /// Gives the signal. Idempotent.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Whether the signal was given.
    pub fn is_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves when the signal is given.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// How long a role may take to drain, from the signal.
    pub fn drain_timeout(&self) -> Duration {
        self.drain
    }

    /// Spawns `task`; if it panics, the signal is given, so that the process drains and exits non-zero instead of
    /// serving with a part missing.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.clone();
        tokio::spawn(async move {
            if let Err(error) = tokio::spawn(task).await
                && error.is_panic()
            {
                tracing::error!(task = name, "task panicked; stopping");
                shutdown.begin();
            }
        })
    }
}

/// SIGTERM and SIGINT, none of them missed from the moment this exists.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// From here on the signals do not end the process by themselves any more.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// The next of them, by name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}
