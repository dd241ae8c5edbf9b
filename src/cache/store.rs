//! SQL of the cache.

use super::key::Domain;
use crate::db::{Conn, DbError, DbOperation, Rows};

/// How new a domain is.
#[derive(Debug)]
pub(super) struct Row {
    pub name: String,
    pub version: i64,
}

impl Rows for Row {}

/// The version of a domain; in a transaction that has changed it, the one that it will have.
///
/// # Errors
/// As the database.
pub(super) async fn version(db: &mut Conn, domain: Domain) -> Result<i64, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!("SELECT version FROM cache_versions WHERE name = $1", domain.as_str());
    telemetry.run(DbOperation::CacheVersions, query.fetch_one(pg)).await
}

/// The version of each domain.
///
/// # Errors
/// As the database.
pub(super) async fn versions(db: &mut Conn) -> Result<Vec<Row>, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_as!(Row, "SELECT name, version FROM cache_versions");
    telemetry.run(DbOperation::CacheVersions, query.fetch_all(pg)).await
}
