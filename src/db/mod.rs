//! PostgreSQL: the pool, [`Conn`] and [`Tx`] (a connection that times, traces and bounds what runs
//! on it), migrations, the embedded cluster, and how a database error becomes an answer.
//! The statements themselves stand in each feature's `store.rs`.

mod connections;
pub mod embedded;
pub mod errors;
pub mod migrate;
pub mod operation;
pub mod pool;
pub mod readiness;

pub use connections::Plans;
pub use errors::DbError;
pub use operation::DbOperation;
pub use pool::{Conn, Db, Rows, Tx};
pub use readiness::Readiness;
