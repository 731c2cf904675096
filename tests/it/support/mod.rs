//! What the tests stand on.
//!
//! Not every test uses every helper, so that unused ones are no mistake here.
#![allow(dead_code)]

pub mod by_hand;
pub mod captures;
pub mod checker;
pub mod client;
pub mod command;
pub mod fault_proxy;
pub mod feed;
pub mod gateway;
pub mod killed;
pub mod load;
pub mod postgres;
pub mod process;
pub mod python;
pub mod records;
pub mod registry;
pub mod s3;
pub mod sink;
pub mod skipped;
