//! How long things are kept: retention, anonymisation, and the age of the last backup.
//!
//! Here belongs what removes rows because of their age. Backup and restore themselves are commands
//! ([`crate::cli::backup`]); what a table may be asked for is the business of its own feature.

pub mod retention;
pub mod store;
