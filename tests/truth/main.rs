//! Whether what the server says of itself is true: a hundred thousand requests, counted by who sends them and by who
//! answers them; and that nothing anybody sends makes more series than are stated. `make truth` runs both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests, not in what tests share"
)]
#![allow(
    clippy::float_cmp,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    reason = "counters hold whole numbers, of which there are some thousands"
)]

#[path = "../support/mod.rs"]
mod support;

mod cardinality;
mod client;
mod counted;
mod counts;
mod questions;
