//! The context of a client that only logs: nothing of ours follows what it is told.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError as LibraryError;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::client::Observer;

/// Forwards what the library tells of itself to the log.
pub(super) struct Plain {
    pub(super) observer: Observer,
}

impl Plain {
    /// For the client of that name.
    pub(super) fn new(name: &str) -> Self {
        Self {
            observer: Observer::new(name),
        }
    }
}

impl ClientContext for Plain {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.observer.log(level, facility, line);
    }

    fn error(&self, error: LibraryError, reason: &str) {
        self.observer.error(&error, reason);
    }
}

impl ConsumerContext for Plain {}

/// Administration's client is a producer that produces nothing.
impl ProducerContext for Plain {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
