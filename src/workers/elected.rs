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

/// Longest time between two tries to be elected, and from a failure to the next round.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries to become the one who does `job`: whether `db` now holds its lock, until it is dropped.
///
/// # Errors
/// As the database.
pub async fn stand(db: &mut Conn, job: Job) -> Result<bool, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1, $2) AS "elected!""#, LOCK_CLASS, job as i32);
    telemetry.run(DbOperation::Election, query.fetch_one(pg)).await
}

/// One round of a job, on the connection that holds its lock.
pub type Work = for<'a> fn(&'a App, &'a mut Conn) -> BoxFuture<'a, Result<(), DbError>>;

/// A replica's part in a job: a connection that waits for the lock or holds it.
#[derive(Default)]
struct Candidate {
    db: Option<Conn>,
    elected: bool,
}

impl Candidate {
    /// Stands for election if it is not elected, and then does a round of work. Whatever fails gives the
    /// lock up, with the connection, and any replica may try next.
    async fn serve(&mut self, app: &App, job: Job, work: Work) -> Result<(), DbError> {
        let mut db = match self.db.take() {
            Some(db) => db,
            None => app.db.connect_alone().await?,
        };
        if !std::mem::take(&mut self.elected) && !stand(&mut db, job).await? {
            self.db = Some(db);
            return Ok(());
        }
        work(app, &mut db).await?;
        (self.db, self.elected) = (Some(db), true);
        Ok(())
    }
}

/// Does `work` every `interval` for as long as this replica is elected, at once when it becomes so; ends
/// with the lifecycle. A replica that is not elected tries again every `interval`, and at the latest
/// after five seconds.
pub async fn run(app: App, job: Job, interval: Duration, work: Work) {
    let stopped = app.lifecycle.stopped();
    let mut candidate = Candidate::default();
    let mut next = Instant::now();
    while !stopped.is_cancelled() {
        let served = candidate.serve(&app, job, work).await;
        let pause = if candidate.elected { interval } else { interval.min(PATIENCE) };
        if let Err(error) = served {
            tracing::warn!(job = job.as_str(), error = describe(&error), "a job failed; it will be tried again");
        }
        next = (next + pause).max(Instant::now());
        tokio::select! {
            () = stopped.cancelled() => {}
            () = sleep_until(next) => {}
        }
    }
}
