//! Plumbing that every endpoint shares: what a request passes on its way in ([`crate::app`] shows
//! the order), extractors that turn bad input into problems, and the listeners.

pub mod caching;
pub mod capacity;
pub mod client_ip;
pub mod cookies;
pub mod cors;
pub mod csrf;
pub mod cursor;
pub mod docs;
pub mod etag;
pub mod extract;
pub mod guard;
pub mod health;
pub mod idempotency;
pub mod listen;
pub mod observe;
pub mod rate_limit;
pub mod stall;
pub mod starting;
pub mod stats;
pub mod tls;
pub mod turns;
