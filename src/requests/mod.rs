//! Service requests: the one thing this company does. [`state`] is the pure transition table,
//! [`flow`] moves a request through it (lock, decide, write, book money, append history) in one
//! transaction, [`store`] is the SQL, [`routes`] is HTTP only.

pub mod flow;
pub mod model;
pub mod query;
pub mod routes;
pub mod state;
pub mod store;
