//! The cash ledger: signed amounts that are never edited, only reversed. For now it is fed by the
//! state machine alone: income when a service request is done, its reversal when it is reopened.

pub mod routes;
pub mod store;
