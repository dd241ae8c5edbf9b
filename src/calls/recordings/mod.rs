//! Recordings of calls: the inbox notes that the provider has one, a job fetches it, and those who
//! handle calls can listen to it.

mod fetch;
pub mod routes;
pub mod store;

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::future::join_all;

use self::{
    fetch::Failure,
    store::{Due, Fetched},
};
use crate::{
    app::App,
    db::{Conn, DbError},
    telemetry::labels::RecordingOutcome,
};

/// Fetched at the same time, so that one slow answer does not hold up all.
const AT_ONCE: i64 = 4;
/// Pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Whether there is a provider to fetch from.
#[must_use]
pub fn are_fetched(app: &App) -> bool {
    app.mango.is_some() && !app.config.mango.base_url.is_empty()
}

/// Fetches everything that is due; a round of the elected job.
///
/// # Errors
/// As the database; what was not marked as fetched is fetched again.
pub async fn fetch_all(app: &App, db: &mut Conn) -> Result<(), DbError> {
    let stopped = app.lifecycle.stopped();
    while !stopped.is_cancelled() {
        let due = store::due(db, AT_ONCE, app.clock.now()).await?;
        if due.is_empty() {
            break;
        }
        let outcomes = tokio::select! {
            // They stay pending, and whoever is elected next starts with them.
            () = stopped.cancelled() => break,
            outcomes = join_all(due.iter().map(|recording| fetch::fetch(app, recording))) => outcomes,
        };
        for (recording, outcome) in due.iter().zip(outcomes) {
            settle(app, db, recording, outcome).await?;
        }
    }
    Ok(())
}

async fn settle(app: &App, db: &mut Conn, recording: &Due, outcome: Result<Fetched, Failure>) -> Result<(), DbError> {
    let attempts = recording.attempts + 1;
    let (counted, error) = match outcome {
        Ok(mut fetched) => {
            // Before the statement, as with files: an object without a row harms nobody.
            fetched.stored.keep();
            if !store::stored(db, recording.id, attempts, &fetched).await? {
                app.storage.delete(&fetched.stored.object).await;
                return Ok(());
            }
            app.metrics.recordings(RecordingOutcome::Stored).inc();
            return Ok(());
        }
        Err(Failure::Gone) => (RecordingOutcome::Gone, "the provider does not have it any more".to_owned()),
        Err(Failure::Final(error)) => (RecordingOutcome::Failed, error),
        Err(Failure::Passing(error)) if attempts >= i32::from(app.config.recordings.max_attempts) => {
            (RecordingOutcome::Failed, error)
        }
        Err(Failure::Passing(error)) => (RecordingOutcome::Postponed, error),
    };
    let mut error = error;
    error.truncate(error.floor_char_boundary(500));
    let changed = if counted == RecordingOutcome::Postponed {
        store::postpone(db, recording.id, attempts, &error, app.clock.now() + pause(attempts)).await?
    } else {
        store::give_up(db, recording.id, counted == RecordingOutcome::Gone, attempts, &error).await?
    };
    if changed {
        app.metrics.recordings(counted).inc();
        tracing::warn!(target: "switchboard::recordings", recording = recording.id, attempts, outcome = counted.as_str(), error, "a recording could not be fetched");
    }
    Ok(())
}

/// How long to wait after so many failures: twice as long each time, and up to half of it less by
/// chance, so that what failed together does not come back together.
fn pause(attempts: i32) -> TimeDelta {
    let doubled = FIRST_PAUSE * (1 << attempts.saturating_sub(1).clamp(0, 10));
    let longest = doubled.min(LONGEST_PAUSE);
    TimeDelta::from_std(longest.mul_f64(1.0 - rand::random::<f64>() / 2.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour_and_differ() {
        for (attempts, least, most) in
            [(1, 15, 30), (2, 30, 60), (5, 240, 480), (9, 1_800, 3_600), (1_000, 1_800, 3_600)]
        {
            let pauses: Vec<i64> = (0..50).map(|_| pause(attempts).num_milliseconds()).collect();
            assert!(
                pauses.iter().all(|pause| (least * 1_000..=most * 1_000).contains(pause)),
                "{attempts}: {pauses:?}"
            );
            assert!(pauses.iter().any(|pause| pause != &pauses[0]), "{attempts}");
        }
    }
}
