//! What the business asks after the fact: reports for a range of days, the export of service requests,
//! and the business metrics that one elected replica computes for all.

pub mod business;
pub mod collector;
pub mod csv;
pub mod export;
pub mod figures;
pub mod model;
pub mod performance;
pub mod range;
pub mod routes;
pub mod store;
