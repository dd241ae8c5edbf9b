//! People: masters, employees and administrators. [`rules`] says, purely, who may change what about
//! whom, [`flow`] does it in one transaction, [`passport`] seals what must not lie open in the
//! database, [`trail`] says what the audit log tells of it. Who is signed in is [`crate::auth`].

pub mod bodies;
pub mod flow;
pub mod model;
pub mod passport;
pub mod routes;
pub mod rules;
pub mod store;
pub mod trail;
pub mod validate;
