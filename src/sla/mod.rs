//! What was promised to clients, and what happens when it is not kept.

pub mod routes;
