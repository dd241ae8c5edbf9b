//! Work that one replica does for all: whoever holds a job's advisory lock. The job runs on the
//! connection that holds the lock, so that a replica that has lost the lock (its connection broke, the
//! server was restarted) can no longer write either: the lock is its own fence.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::{
    app::App,
    db::{Conn, DbError, DbOperation},
    error::describe,
};

/// A job that one replica does for all. The numbers are the keys of PostgreSQL's advisory locks
/// (class, job), so they must never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Computes the business metrics.
    Collector = 1,
    /// Moves SLA timers on and escalates.
    Sla = 2,
    /// Deletes and anonymises what has been kept long enough.
    Retention = 3,
    /// Fetches recordings from the provider.
    Recordings = 4,
}

/// Class of the advisory locks of jobs: "swbd" in ASCII.
const LOCK_CLASS: i32 = 0x7377_6264;

impl Job {
    /// For log lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Collector => "collector",
            Self::Sla => "sla",
            Self::Retention => "retention",
            Self::Recordings => "recordings",
        }
    }
}

/// Tries to become the one who does `job`; the connection it returns holds the lock until it is
/// dropped.
///
/// # Errors
/// As the database.
pub async fn stand(app: &App, job: Job) -> Result<Option<Conn>, DbError> {
    let mut db = app.db.connect_alone().await?;
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1, $2) AS "elected!""#, LOCK_CLASS, job as i32);
    let elected = telemetry.run(DbOperation::Election, query.fetch_one(pg)).await?;
    Ok(elected.then_some(db))
}

/// One round of a job, on the connection that holds its lock.
pub type Work = for<'a> fn(&'a App, &'a mut Conn) -> BoxFuture<'a, Result<(), DbError>>;

/// Does `work` every `interval` for as long as this replica is elected, and stands for election every
/// `interval` while it is not; ends with the lifecycle. Work that fails gives the lock up, with its
/// connection, and any replica may try next.
pub async fn run(app: App, job: Job, interval: Duration, work: Work) {
    let stopped = app.lifecycle.stopped();
    let mut office: Option<Conn> = None;
    let mut next = Instant::now();
    while !stopped.is_cancelled() {
        if office.is_none() {
            office = stand(&app, job).await.unwrap_or_else(|error| {
                tracing::warn!(job = job.as_str(), error = describe(&error), "no election without the database");
                None
            });
        }
        if let Some(db) = &mut office
            && let Err(error) = work(&app, db).await
        {
            tracing::warn!(job = job.as_str(), error = describe(&error), "a job failed; it will be tried again");
            office = None;
        }
        next = (next + interval).max(Instant::now());
        tokio::select! {
            () = stopped.cancelled() => {}
            () = sleep_until(next) => {}
        }
    }
}
