//! The services that events are delivered to.
//!
//! # To add a destination
//! 1. A folder: `config.rs` (its settings; `validate` is pure), `request.rs` (delivery to request; pure), `mod.rs` (its
//!    [`Kind`] and the few lines that send). What an answer means is shared: [`response::classify`].
//! 2. One line in [`registry::DESTINATIONS`].
//!
//! The registry's tests then ask for a unique name, a summary, an example that validates, and for settings with which the
//! contract suite in `testing.rs` runs it against a server that answers, refuses, stalls and hangs up.
//!
//! A destination never retries, waits or logs by itself: it makes one attempt and says what came of it. Everything that
//! outlives an attempt is the router's.

pub mod address;
mod error;
pub mod http;
pub mod registry;
pub mod response;
#[cfg(test)]
pub mod testing;
mod webhook;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::clock::UnixMs;
use crate::event::Delivery;

pub use error::{ConfigProblem, DeliveryError};
pub use http::{HttpClient, HttpOptions};
pub use registry::{DESTINATIONS, find};

/// A future of a delivery; boxed, because destinations are chosen at run time.
pub type Delivering<'a> =
    Pin<Box<dyn Future<Output = Result<Accepted, DeliveryError>> + Send + 'a>>;

/// One configured destination.
pub trait Destination: fmt::Debug + Send + Sync + 'static {
    /// Makes one attempt to bring an event to the service.
    fn deliver<'a>(&'a self, attempt: &'a Attempt<'a>) -> Delivering<'a>;
}

/// One try to deliver one event.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// What to deliver.
    pub delivery: &'a Delivery<'a>,
    /// Name of the `events` topic, for `X-Delivery-Id`.
    pub events_topic: &'a str,
    /// Which try this is, from 1. Counted anew after a restart.
    pub number: u32,
    /// Longest time the whole exchange may take.
    pub timeout: Duration,
    /// Now, for dates in answers.
    pub now: UnixMs,
}

impl Attempt<'_> {
    /// `<events topic>-<partition>-<offset>` of the accepted event: the same for every try, replay and copy.
    pub fn delivery_id(&self) -> String {
        let origin = self.delivery.origin();
        format!(
            "{}-{}-{}",
            self.events_topic, origin.partition, origin.offset
        )
    }
}

/// A service's answer that ends an event well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The service has it.
    Delivered {
        /// HTTP status, or 200 for services without one.
        status: u16,
    },
    /// The service left it out on purpose (RudderStack's 298).
    Filtered,
}

/// Checks settings and makes a destination. Pure: nothing connects.
pub type Build = fn(&Value, &HttpClient) -> Result<Arc<dyn Destination>, ConfigProblem>;

/// A type of destination.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Definition name in RudderStack's spelling; what `type` says in a workspace.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Settings that work, as JSON: documentation and test in one.
    pub example: &'static str,
    /// Checks settings and makes the destination. Pure: nothing connects.
    pub build: Build,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("name", &self.name).finish()
    }
}
