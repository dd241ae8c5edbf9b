//! The one reader of new events on each replica. It reads only while somebody listens, on a connection
//! of its own, so that neither it nor the requests wait for the other.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{gaps::Seen, model::LiveEvent, store};
use crate::{
    app::App,
    auth,
    db::{Conn, DbError},
    error::describe,
};

/// How often rights are read again.
const RIGHTS_EVERY: Duration = Duration::from_secs(2);
/// Between two reads when there is more to be told: time for listeners to take what they were given.
const PACE: Duration = Duration::from_millis(25);
/// Pause after the database failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Follows the table whenever somebody listens; ends with the lifecycle.
pub async fn run(app: App) {
    let stopped = app.lifecycle.stopped();
    // Whoever listened to one before this has missed something.
    app.events.start_over();
    loop {
        tokio::select! {
            () = stopped.cancelled() => return,
            () = app.events.somebody() => {}
        }
        // Its place outlives a broken connection.
        let mut place = None;
        while let Err(error) = follow(&app, &mut place).await {
            tracing::warn!(target: "switchboard::events", error = describe(&error), "live events wait for the database");
            tokio::select! {
                () = stopped.cancelled() => return,
                () = sleep(AFTER_FAILURE) => {}
            }
        }
    }
}

/// Follows until nobody listens any more.
async fn follow(app: &App, place: &mut Option<Seen>) -> Result<(), DbError> {
    let (hub, stopped) = (&app.events, app.lifecycle.stopped());
    let poll = Duration::from_millis(app.config.events.poll_interval_ms).min(RIGHTS_EVERY);
    // Half of what a listener may lag by, so that one who keeps up is never overtaken by one read.
    let limit = i64::try_from(app.config.events.buffer / 2).unwrap_or(i64::MAX).clamp(1, 500);
    if hub.rest() {
        return Ok(());
    }
    let mut db = app.db.connect_alone().await?;
    let seen = match place {
        Some(seen) => seen,
        None => place.insert(store::start(&mut db).await?),
    };
    hub.follow(seen.settled());
    let mut checked = Instant::now();
    while !hub.rest() && !stopped.is_cancelled() {
        let more = look(app, &mut db, seen, limit).await?;
        if checked.elapsed() >= RIGHTS_EVERY {
            check_rights(app, &mut db).await?;
            checked = Instant::now();
        }
        tokio::select! {
            () = stopped.cancelled() => {}
            () = sleep(if more { PACE } else { poll }) => {}
        }
    }
    Ok(())
}

/// Tells what is new; whether there is more.
async fn look(app: &App, db: &mut Conn, seen: &mut Seen, limit: i64) -> Result<bool, DbError> {
    if seen.has_gaps() {
        seen.ask(&store::writers(db).await?.into());
    }
    let limit_rows = usize::try_from(limit).unwrap_or(usize::MAX);
    let rows = store::tail(db, seen, limit).await?;
    let before = seen.highest();
    let late = rows.iter().filter(|row| row.id <= before).count();
    let more = late >= limit_rows || rows.len() - late >= limit_rows;
    for row in rows {
        if seen.see(row.id) {
            app.events.tell(LiveEvent::new(row, seen.settled()));
        }
    }
    if late < limit_rows {
        seen.close();
        app.events.settle(seen.settled());
    }
    Ok(more)
}

/// Ends the streams of those who may not listen any more, or not to the same as before.
async fn check_rights(app: &App, db: &mut Conn) -> Result<(), DbError> {
    let sessions = app.events.sessions();
    let alive = auth::store::live_sessions(db, &sessions, app.clock.now()).await?;
    app.events.keep_only(&sessions, &alive.into_iter().collect::<HashMap<_, _>>());
    Ok(())
}
