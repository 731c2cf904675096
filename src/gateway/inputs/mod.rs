//! Inputs that are more than a body with events.

pub(super) mod form;
pub(super) mod pixel;
pub(super) mod segment;
pub(super) mod source_config;
pub(super) mod stream;
pub(super) mod webhook;
