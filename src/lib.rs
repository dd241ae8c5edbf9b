//! Switchboard: the service-request backend of a field-service company with a call centre.
//!
//! A map of the crate, in the order in which one call passes through the house:
//!
//! - [`calls`]: a provider's webhook is verified and stored ([`calls::webhooks`]); a worker folds the
//!   events of a call into facts and finds or creates its service request ([`calls::inbox`]).
//! - [`requests`]: what a service request is, the pure state machine ([`requests::state`]) and the
//!   one transaction that moves it ([`requests::flow`]); [`transactions`] is the money it makes, [`files`]
//!   what is attached to it, [`sla`] what was promised about it.
//! - [`events`] tells the front ends what happened; [`reports`] tells the business what it came to;
//!   [`keeping`] lets go of what has been kept long enough.
//! - [`auth`]: who is calling and what they may do; handlers state it as their first argument. [`users`]:
//!   the people themselves. [`audit`]: who changed what; [`security`]: what administrators see of both.
//! - [`dictionaries`]: cities, types, campaigns.
//! - [`http`]: what every endpoint shares: extractors, errors' edge, probes, listeners, sending again.
//! - [`telemetry`]: the metric catalogue, traces, logs.
//! - [`db`], [`cache`], [`redis_client`]: what it stands on. [`config`], [`clock`], [`bounds`], [`lifecycle`],
//!   [`app`], [`server`]: how it is put together. [`workers`]: what runs beside requests, on each replica or
//!   on one for all. [`cli`]: the commands, the demo company, the simulator, import and backup.
#![forbid(unsafe_code)]

pub mod app;
pub mod audit;
pub mod auth;
pub mod bounds;
pub mod cache;
pub mod calls;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
pub mod dictionaries;
pub mod error;
pub mod events;
pub mod files;
pub mod http;
pub mod keeping;
pub mod lifecycle;
pub mod phone;
pub mod redis_client;
pub mod reports;
pub mod requests;
pub mod security;
pub mod server;
pub mod sla;
pub mod telemetry;
pub mod transactions;
pub mod users;
pub mod wire_enum;
pub mod workers;
