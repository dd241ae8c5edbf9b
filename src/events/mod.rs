//! Live events: what happens to service requests, as server-sent events.

pub mod routes;
