//! The business metrics: one elected replica computes them once per interval, on its own connection and
//! in one read snapshot, and stores them; every replica reads the stored row and sets its gauges from
//! it. So all export the same, one replica's work does for all, and how old it is can be seen.

pub mod store;

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::sleep;

use self::store::Stored;
use super::figures::{Figures, Open};
use crate::{
    app::App,
    auth::Role,
    db::{Conn, DbError},
    error::describe,
    requests::state::Status,
    telemetry::metrics::Metrics,
    workers::elected::{self, Job},
};

/// How soon a replica looks again while nothing was computed yet.
const UNTIL_FIRST: Duration = Duration::from_millis(250);

fn interval(app: &App) -> Duration {
    Duration::from_millis(app.config.collector.interval_ms)
}

/// Computes the figures once per interval while this replica is elected.
pub async fn lead(app: App) {
    let interval = interval(&app);
    elected::run(app, Job::Collector, interval, work).await;
}

fn work<'a>(app: &'a App, db: &'a mut Conn) -> BoxFuture<'a, Result<(), DbError>> {
    collect(app, db).boxed()
}

/// One round: computes the figures, stores them and sets this replica's gauges.
///
/// # Errors
/// As the database; the connection may then be in a transaction, and must be dropped.
pub async fn collect(app: &App, db: &mut Conn) -> Result<(), DbError> {
    let started = Instant::now();
    let taken_at = app.clock.now();
    let round = async {
        // Who is at work refreshes their session whenever an access token ends.
        let refreshed_since = taken_at - TimeDelta::seconds(i64::from(app.config.jwt.ttl_s));
        let figures = store::compute(db, taken_at, refreshed_since, app.config.sla.offer_timeout_s).await?;
        let value = serde_json::to_value(&figures).map_err(|error| DbError::Sql(sqlx::Error::Encode(error.into())))?;
        let duration = started.elapsed().as_secs_f64();
        store::keep(db, taken_at, duration, value).await?;
        Ok((figures, duration))
    };
    match round.await {
        Ok((figures, duration)) => {
            app.metrics.collector_duration().observe(duration);
            publish(&app.metrics, &Stored { taken_at, figures: figures.into() });
            Ok(())
        }
        Err(error) => {
            app.metrics.collector_errors().inc();
            Err(error)
        }
    }
}

/// Reads what was computed, by whichever replica, once per interval.
pub async fn follow(app: App) {
    let stopped = app.lifecycle.stopped();
    while !stopped.is_cancelled() {
        let pause = match refresh(&app).await {
            Ok(true) => interval(&app),
            Ok(false) => UNTIL_FIRST.min(interval(&app)),
            Err(error) => {
                tracing::warn!(error = describe(&error), "the business metrics cannot be read; the gauges grow old");
                interval(&app)
            }
        };
        tokio::select! {
            () = stopped.cancelled() => {}
            () = sleep(pause) => {}
        }
    }
}

/// Sets this replica's gauges from the stored figures; `false` when there are none yet.
///
/// # Errors
/// As the database; the gauges keep their values, and the time of the last success tells.
pub async fn refresh(app: &App) -> Result<bool, DbError> {
    let read = async { store::latest(&mut app.db.acquire().await?).await };
    match read.await {
        Ok(stored) => {
            if let Some(stored) = &stored {
                publish(&app.metrics, stored);
            }
            Ok(stored.is_some())
        }
        Err(error) => {
            app.metrics.collector_errors().inc();
            Err(error)
        }
    }
}

fn publish(metrics: &Metrics, stored: &Stored) {
    let Figures { cities, active_users, .. } = &stored.figures.0;
    for status in Status::ALL.iter().filter(|status| !status.is_finished()) {
        let of_cities = cities.values().filter_map(|city| city.open.get(status).copied());
        let open = of_cities.reduce(Open::and);
        metrics.requests_open(*status).set(open.map_or(0, |open| open.count));
        metrics.requests_stuck(*status).set(open.map_or(0, |open| open.stuck));
        match open {
            Some(open) => metrics.request_oldest_open(*status).set(open.oldest.timestamp()),
            None => metrics.forget_request_oldest_open(*status),
        }
    }
    for role in Role::ALL {
        let counts = active_users.iter().filter(|users| users.role == *role).map(|users| users.count);
        metrics.active_users(*role).set(counts.sum());
    }
    metrics.collector_last_success().set(stored.taken_at.timestamp());
}
