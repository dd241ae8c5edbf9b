//! Who is calling and what they may do: passwords, access tokens and sessions, the policy matrix,
//! and the argument types ([`caller`]) through which handlers state the right they need.

pub mod caller;
pub mod keys;
pub mod lockout;
pub mod passwords;
pub mod policy;
pub mod refresh;
pub mod routes;
pub mod sessions;
pub mod store;
pub mod tokens;

pub use caller::{Caller, Principal};
pub use policy::{Action, Role, Scope};
