//! What was promised to clients, and what happens when it is not kept. [`timers`] says what a move of a
//! service request does to its timers, [`job`] records breaches and takes unanswered offers back,
//! [`routes`] is HTTP only.

pub mod job;
pub mod model;
pub mod routes;
pub mod store;
pub mod timers;
