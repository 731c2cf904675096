//! The `sluice` command; see `sluice::cli`.

fn main() {}
