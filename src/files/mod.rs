//! Files of service requests and transactions, and recordings of calls.

pub mod routes;
