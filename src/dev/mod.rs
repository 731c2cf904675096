//! Trying and testing Sluice on one machine.

pub mod kafka;
