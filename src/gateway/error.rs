//! Why the gateway could not start.

use std::net::SocketAddr;

use crate::fault::{Classify, Fault};
use crate::kafka::KafkaError;

use super::spill::SpillError;

/// Why the gateway could not start. Kafka being away is no reason: it starts, answers 503 and is not ready.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum GatewayError {
    #[error("gateway.listen: could not listen on {listen}: {source}")]
    Listen {
        listen: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("gateway.suppression_file: {0}")]
    Suppression(String),
    #[error("gateway.tls: {0}")]
    Tls(String),
    #[error("gateway.source_transformer: {0}")]
    Transformer(String),
    #[error("gateway.spill: {0}")]
    Spill(#[from] SpillError),
    #[error("could not start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("the start panicked")]
    Panicked,
    #[error(transparent)]
    Producer(#[from] KafkaError),
}

impl Classify for GatewayError {
    fn fault(&self) -> Fault {
        match self {
            Self::Listen { .. }
            | Self::Suppression(_)
            | Self::Tls(_)
            | Self::Transformer(_)
            | Self::Spill(_)
            | Self::Thread(_)
            | Self::Panicked => Fault::Fatal,
            Self::Producer(error) => error.fault(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "gateway_listen",
            Self::Suppression(_) => "gateway_suppression_file",
            Self::Tls(_) => "gateway_tls",
            Self::Transformer(_) => "gateway_source_transformer",
            Self::Spill(error) => error.code(),
            Self::Thread(_) => "gateway_thread",
            Self::Panicked => "gateway_start_panicked",
            Self::Producer(error) => error.code(),
        }
    }
}
