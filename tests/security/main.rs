//! What takes a flood, a stopwatch or the whole suite to prove: `make security` runs it, in full and in
//! figures. The rest of what protects the server is tested where it is used.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests, not in what tests share"
)]
#![allow(clippy::float_cmp, reason = "counters hold whole numbers")]

#[path = "../support/mod.rs"]
mod support;

mod flood;
mod leaks;
mod slow;
mod timing;
