//! Live events: what happens to service requests, as server-sent events.
//!
//! Each replica tails `request_events`, so that no business transaction pays for telling others.
//! [`tailer`] reads what is new and [`gaps`] knows what may still be missing below it, because ids are
//! given out in another order than they are committed in. [`hub`] fans out to the listeners of this
//! replica and cuts off those whose rights have changed; [`stream`] is one listener: first what they
//! missed, then what comes. [`routes`] is HTTP only.

pub mod gaps;
pub mod hub;
pub mod model;
pub mod routes;
pub mod store;
pub mod stream;
pub mod tailer;
