//! People: masters, employees and administrators. Who is signed in is [`crate::auth`].

pub mod routes;
