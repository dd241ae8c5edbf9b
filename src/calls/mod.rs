//! Phone calls. [`webhooks`] takes the provider's events in and stores them, nothing else;
//! [`inbox`] is what a worker then does with one: fold the call's events into [`facts`], and find or
//! create its service request. [`providers`] speaks each provider's dialect.

pub mod facts;
pub mod inbox;
pub mod model;
pub mod providers;
pub mod recordings;
pub mod routes;
pub mod store;
pub mod webhooks;
