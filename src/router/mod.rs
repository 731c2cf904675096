//! `deliver.<lane>` to destinations: in order for each user, none waiting for another.

pub mod breaker;
pub mod order;
pub mod verdict;
