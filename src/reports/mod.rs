//! What the business asks after the fact: reports for a range of days, and the business metrics.

pub mod routes;
