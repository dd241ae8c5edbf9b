//! What needs more than PostgreSQL: a real Redis, promtool. `make test` runs it.

#[path = "../support/mod.rs"]
mod support;
