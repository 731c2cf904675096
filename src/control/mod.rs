//! What the customer configured: an immutable snapshot that every role reads and none waits for.
//!
//! [`Control`] holds the newest [`Workspace`]; a role takes [`Control::snapshot`] once per request or batch and works with
//! it to the end, so that one event never sees two configurations. Sources of configuration (a file, a polled URL) only
//! publish into it.

mod cache;
mod error;
mod file;
mod parse;
mod remote;
mod watch;
pub mod workspace;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch as channel;

pub use error::ControlError;
pub use parse::parse_workspace;
pub use remote::client;
pub use watch::{load_once, start};
pub use workspace::{Destination, Route, Source, Workspace};

/// Handle to the current configuration. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    current: Arc<ArcSwap<Workspace>>,
    changed: Arc<channel::Sender<i64>>,
}

impl Control {
    /// A handle that holds `workspace`.
    pub fn new(workspace: Workspace) -> Self {
        let (changed, _) = channel::channel(workspace.revision);
        Self {
            current: Arc::new(ArcSwap::from_pointee(workspace)),
            changed: Arc::new(changed),
        }
    }

    /// The configuration as it is now.
    pub fn snapshot(&self) -> Arc<Workspace> {
        self.current.load_full()
    }

    /// Replaces the configuration. The revision must have grown; an equal or older one is ignored.
    pub fn publish(&self, workspace: Workspace) {
        let revision = workspace.revision;
        if revision <= self.current.load().revision {
            return;
        }
        self.current.store(Arc::new(workspace));
        self.changed.send_replace(revision);
    }

    /// Tells of changes: the receiver's value is the newest revision.
    pub fn subscribe(&self) -> channel::Receiver<i64> {
        self.changed.subscribe()
    }
}
