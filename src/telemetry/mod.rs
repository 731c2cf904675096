//! Logs, metrics, health.

pub mod health;
mod logs;
pub mod metrics;

pub use health::{Health, serve};
pub use logs::init;
pub use metrics::Registry;
