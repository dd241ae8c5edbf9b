//! What administrators see and do about attacks and misuse: who tried to sign in, who is locked out and
//! is let in again, who changed what. The locks themselves are in [`crate::auth::lockout`], what writes
//! the audit log is [`crate::audit`].

pub mod model;
pub mod routes;
pub mod store;
