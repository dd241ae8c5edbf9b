//! The cash ledger: signed amounts that are never edited, only reversed. The state machine feeds it
//! (income when a service request is done, its reversal when it is reopened), and so do people: what
//! else came in, what was spent, and the reversal of what they booked.

pub mod model;
pub mod routes;
pub mod store;
