//! Inputs that are more than a body with events.

pub(super) mod pixel;
pub(super) mod segment;
pub(super) mod source_config;
pub(super) mod webhook;
