//! Sluice: a customer-data pipeline that speaks the RudderStack HTTP API and keeps its queues in Kafka.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod deps;
pub mod destinations;
pub mod dev;
pub mod event;
pub mod failpoint;
pub mod fault;
pub mod gateway;
pub mod kafka;
pub mod lock;
pub mod processor;
pub mod registry;
pub mod retry;
pub mod router;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod topics;
pub mod warehouse;
