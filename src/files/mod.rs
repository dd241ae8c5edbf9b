//! Files of service requests and transactions: taken in, kept in an object store, given back. What is
//! not about their owners ([`intake`], [`storage`], [`serve`], [`media`]) serves recordings of calls too.

pub mod intake;
pub mod media;
pub mod model;
pub mod routes;
pub mod serve;
pub mod storage;
pub mod store;
pub mod upload;
