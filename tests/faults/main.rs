//! What is promised when something breaks: the real program, with its database, its Redis and its balancer,
//! of which each test breaks one, under load where it matters. It says how the program answers meanwhile, how
//! soon it is well again, and what is seen of it in the metrics. `make faults` runs it, one test at a time, and
//! keeps the figures in docs/RELIABILITY.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests, not in what tests share"
)]
#![allow(clippy::float_cmp, reason = "counters hold whole numbers")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people, and rates of some hundreds"
)]

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod disk;
mod outages;
mod postgres;
mod redis;
mod replicas;
mod rolling;
mod soak;
mod start;
mod table;
mod telemetry;
