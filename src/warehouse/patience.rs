//! Waiting out an outage: try again until it passes, until it cannot, or until shutdown.

use std::time::Duration;

use crate::fault::Classify;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// The failures of one thing that is tried.
#[derive(Debug)]
pub(super) struct Patience<'s> {
    what: &'static str,
    shutdown: &'s Shutdown,
    failures: u32,
}

impl<'s> Patience<'s> {
    /// None yet.
    pub(super) fn new(what: &'static str, shutdown: &'s Shutdown) -> Self {
        Self {
            what,
            shutdown,
            failures: 0,
        }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The error itself, if no waiting mends it or shutdown has begun.
    pub(super) async fn after<E: Classify>(&mut self, error: E) -> Result<(), E> {
        if !error.fault().is_transient() || self.shutdown.is_begun() {
            return Err(error);
        }
        self.failures += 1;
        let wait = BACKOFF.delay(self.failures);
        let (what, failures) = (self.what, self.failures);
        tracing::warn!(%error, failures, ?wait, "{what} failed; trying again");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.shutdown.begun() => {}
        }
        Ok(())
    }
}
