//! The job that removes what has been kept long enough: in small batches, each a short transaction on
//! the job's own connection, so that nobody waits for it and a failure costs one batch.
//!
//! Personal data of a request goes with the request's end: name, address, description, comments, what
//! the history quotes, then the client's number when none of their requests needs it any more, and the
//! numbers of calls. Figures, states and times stay, and with them every report.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::sleep;

use super::store::{self, Removed};
use crate::{
    app::App,
    db::{Conn, DbError},
    error::describe,
    telemetry::labels::RetentionTable,
};

/// Between two batches, so that the disk and those who wait for a lock get their turn.
const PAUSE: Duration = Duration::from_millis(50);

/// Objects of one batch that the store may refuse to remove before the others are left for the next round.
const MOST_FAILURES: u32 = 3;

/// A failure to sign in counts for a day; the longest lock is shorter.
const FAILURE_DAYS: u32 = 2;

/// One kind of thing that is not kept for ever.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Webhook events that were dealt with.
    Inbox,
    /// Refresh tokens of sessions that are over. Before these, which would take thousands each with them.
    RefreshTokens,
    /// Sessions that are over.
    Sessions,
    /// Tries to sign in.
    LoginAttempts,
    /// Failures to sign in that lock nobody any more.
    LoginFailures,
    /// Answers for whoever sends a POST again. Those about a request go with what it says about its client.
    IdempotencyKeys,
    /// What ended requests say about clients.
    Requests,
    /// Numbers in calls. After the requests: a call waits for the request it belongs to.
    Calls,
    /// Files of requests that have lost their person.
    Files,
    /// Recordings of calls that have lost theirs.
    Recordings,
    /// Who changed what.
    AuditLog,
}

/// Removes everything that is due.
///
/// # Errors
/// As the database; what was removed until then stays removed, and the next round goes on.
pub async fn sweep(app: &App, db: &mut Conn) -> Result<(), DbError> {
    let kept = &app.config.retention;
    for (step, days) in [
        (Step::Inbox, kept.inbox_days),
        (Step::RefreshTokens, kept.sessions_days),
        (Step::Sessions, kept.sessions_days),
        (Step::LoginAttempts, kept.login_attempts_days),
        (Step::LoginFailures, FAILURE_DAYS),
        (Step::IdempotencyKeys, kept.idempotency_days),
        (Step::Requests, kept.personal_data_days),
        (Step::Calls, kept.personal_data_days),
        (Step::Files, kept.personal_data_days),
        (Step::Recordings, kept.personal_data_days),
        (Step::AuditLog, kept.audit_days),
    ] {
        // 0 is for ever.
        if days > 0 {
            exhaust(app, db, step, app.clock.now() - TimeDelta::days(i64::from(days))).await?;
        }
    }
    Ok(())
}

/// Repeats a step until nothing is due or the server stops.
async fn exhaust(app: &App, db: &mut Conn, step: Step, before: DateTime<Utc>) -> Result<(), DbError> {
    let stopped = app.lifecycle.stopped();
    let limit = i64::from(app.config.retention.batch_rows);
    while !stopped.is_cancelled() {
        let removed = match step {
            Step::Inbox => store::delete_webhook_events(db, before, limit).await?,
            Step::RefreshTokens => store::delete_refresh_tokens(db, before, limit).await?,
            Step::Sessions => store::delete_sessions(db, before, limit).await?,
            Step::LoginAttempts => store::delete_login_attempts(db, before, limit).await?,
            Step::LoginFailures => store::delete_login_failures(db, before, limit).await?,
            Step::IdempotencyKeys => store::delete_idempotency_keys(db, before, limit).await?,
            Step::Requests => store::anonymise_requests(db, before, app.clock.now(), limit).await?,
            Step::Calls => store::anonymise_calls(db, before, app.clock.now(), limit).await?,
            Step::Files => remove_objects(app, db, RetentionTable::Files, before, limit).await?,
            Step::Recordings => remove_objects(app, db, RetentionTable::Recordings, before, limit).await?,
            Step::AuditLog => store::delete_audit_log(db, before, limit).await?,
        };
        record(app, &removed);
        if !removed.more {
            break;
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Removes files or recordings: each object before its row, so that what fails in between is found again
/// by its row, and no voice stays without anybody knowing of it. A store that is away ends the batch:
/// each try may take minutes, and neither the other steps nor a shutdown wait for a thousand of them.
async fn remove_objects(
    app: &App,
    db: &mut Conn,
    table: RetentionTable,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<Removed, DbError> {
    let stopped = app.lifecycle.stopped();
    let due = store::objects_of_the_anonymised(db, table, before, limit).await?;
    let (mut gone, mut failed) = (Vec::new(), 0);
    for (id, object) in &due {
        let removed = tokio::select! {
            () = stopped.cancelled() => break,
            removed = app.storage.remove(object) => removed,
        };
        match removed {
            Ok(()) => gone.push(*id),
            Err(error) => {
                tracing::warn!(
                    object,
                    error = describe(&error),
                    "an object could not be removed; it will be tried again"
                );
                failed += 1;
                if failed == MOST_FAILURES {
                    break;
                }
            }
        }
    }
    store::forget_objects(db, table, &gone).await?;
    let all = gone.len() == due.len();
    Ok(Removed { rows: vec![(table, gone.len() as u64)], more: all && due.len() as u64 >= limit.unsigned_abs() })
}

fn record(app: &App, removed: &Removed) {
    for (table, rows) in &removed.rows {
        app.metrics.retention_rows(*table).inc_by(*rows);
        if *rows > 0 {
            tracing::info!(table = table.as_str(), rows, "kept long enough, and removed");
        }
    }
}
