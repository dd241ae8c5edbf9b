//! Migrations, embedded in the binary and applied exactly once however many replicas start at once.
//!
//! sqlx's own lock blocks for ever on the server, and with CREATE INDEX CONCURRENTLY two migrators
//! deadlock on it. So the lock is tried, not waited for, and statements that meet a busy table give
//! up after half a second and are retried.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use sqlx::{
    ConnectOptions, Connection, PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::PgConnectOptions,
};

/// All migrations.
static MIGRATOR: Migrator = sqlx::migrate!();

/// Advisory lock key of "somebody is migrating": the ASCII codes of `swbd`.
const LOCK: i64 = 0x7377_6264;
const PATIENCE: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(250);

/// What a migration run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Migrations applied by this run.
    pub applied: usize,
    /// Migrations there are.
    pub total: usize,
}

/// Brings the schema up to date; returns at once when it is.
///
/// # Errors
/// When the database cannot be reached, a migration fails, one was changed after it was applied, or
/// another replica holds the lock for two minutes. A database that is *ahead* (a newer release has
/// migrated it) is no error: the previous release must keep running on it.
pub async fn run(options: &PgConnectOptions) -> anyhow::Result<Outcome> {
    let mut connection = connect(options).await?;
    let deadline = Instant::now() + PATIENCE;
    sqlx::query("SET lock_timeout = '500ms'").execute(&mut connection).await?;
    // A data migration may take longer than any query of a request.
    sqlx::query("SET statement_timeout = 0").execute(&mut connection).await?;
    loop {
        let locked: bool =
            sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut connection).await?;
        if locked {
            match apply(&mut connection).await {
                Ok(outcome) => {
                    connection.close().await?;
                    return Ok(outcome);
                }
                Err(error) if is_lock_timeout(&error) && Instant::now() < deadline => {
                    sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK).execute(&mut connection).await?;
                }
                Err(error) => return Err(error).context("a migration failed; the schema is as before it"),
            }
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "another process has been migrating this database for {} s; look at pg_locks for advisory key {LOCK}",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// The newest migration of this binary.
#[must_use]
pub fn newest() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Whether every migration of this binary is applied.
///
/// # Errors
/// When the database cannot be reached.
pub async fn is_current(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let table: Option<String> =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations')::text").fetch_one(&mut *connection).await?;
    if table.is_none() {
        return Ok(false);
    }
    let newest: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success").fetch_one(connection).await?;
    Ok(newest >= MIGRATOR.iter().map(|migration| migration.version).max())
}

async fn connect(options: &PgConnectOptions) -> anyhow::Result<PgConnection> {
    // That the table of migrations exists already is news to nobody.
    let options = options.clone().options([("client_min_messages", "warning")]);
    let attempt = tokio::time::timeout(Duration::from_secs(5), options.connect()).await;
    let Ok(connected) = attempt else { anyhow::bail!("DATABASE_URL: the database did not answer within 5 s") };
    connected.context("DATABASE_URL: the database cannot be reached")
}

async fn apply(connection: &mut PgConnection) -> Result<Outcome, MigrateError> {
    let applied = |table: Option<i64>| usize::try_from(table.unwrap_or(0)).unwrap_or(0);
    let before = applied(count(connection).await);
    let mut migrator = Migrator { migrations: MIGRATOR.migrations.clone(), ..Migrator::DEFAULT };
    migrator.set_locking(false).set_ignore_missing(true);
    migrator.run_direct(None, connection, false).await?;
    Ok(Outcome { applied: applied(count(connection).await).saturating_sub(before), total: MIGRATOR.iter().count() })
}

async fn count(connection: &mut PgConnection) -> Option<i64> {
    sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations").fetch_one(connection).await.ok()
}

fn is_lock_timeout(error: &MigrateError) -> bool {
    let (MigrateError::Execute(sql) | MigrateError::ExecuteMigration(sql, _)) = error else { return false };
    sql.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("55P03")
}
