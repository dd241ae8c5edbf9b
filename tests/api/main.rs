//! The API as its users see it: real HTTP, a real PostgreSQL. One file an area, as the URLs have it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests, not in what tests share"
)]
#![allow(clippy::float_cmp, reason = "counters hold whole numbers")]

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod auth;
mod authorisation;
mod backup;
mod caching;
mod calls;
mod capacity;
mod cli;
mod collector;
mod csrf;
mod demo;
mod dictionaries;
mod events;
mod export;
mod faults;
mod files;
mod headers;
mod hostile;
mod idempotency;
mod import;
mod journey;
mod ledger;
mod lifecycle;
mod limits;
mod lockout;
mod login_limits;
mod metrics;
mod openapi;
mod ops;
mod password;
mod peppers;
mod rate_limits;
mod recordings;
mod replicas;
mod reports;
mod requests;
mod retention;
mod scope;
mod security;
mod serve;
mod sessions;
mod simulate;
mod sla;
mod state_machine;
mod tls;
mod transactions;
mod users;
mod webhooks;
