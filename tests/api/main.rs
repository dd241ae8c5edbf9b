//! The API as its users see it: real HTTP, a real PostgreSQL. One file an area, as the URLs have it.

#[path = "../support/mod.rs"]
mod support;

mod journey;
mod state_machine;
mod webhooks;
