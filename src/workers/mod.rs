//! What runs beside the requests: the webhook inbox, the collector of business metrics, what keeps the cache
//! honest, and the sampler of gauges that nobody else sets.

pub mod elected;

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep};

use self::elected::Job;
use crate::{
    app::App,
    cache,
    calls::{
        self,
        inbox::{self, Progress},
        providers::Provider,
        recordings,
    },
    events, keeping,
    reports::collector,
    sla,
};

/// How often backlog and Redis are looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
const LAG_EVERY: Duration = Duration::from_millis(100);
/// Pause after the database or a worker failed, so that an outage is not made worse.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Starts all of them; they stop with the lifecycle.
pub fn start(app: &App) {
    app.lifecycle.spawn(supervise("inbox", app.clone(), run_inbox));
    app.lifecycle.spawn(supervise("recordings", app.clone(), fetch_recordings));
    app.lifecycle.spawn(supervise("cache versions", app.clone(), cache::follow));
    app.lifecycle.spawn(supervise("sampler", app.clone(), sample));
    app.lifecycle.spawn(supervise("retention", app.clone(), run_retention));
    app.lifecycle.spawn(supervise("event loop lag", app.clone(), measure_lag));
    app.lifecycle.spawn(supervise("sla", app.clone(), run_sla));
    app.lifecycle.spawn(supervise("events", app.clone(), events::tailer::run));
    app.lifecycle.spawn(supervise("collector", app.clone(), collector::lead));
    app.lifecycle.spawn(supervise("collector's reader", app.clone(), collector::follow));
}

/// Runs a worker until it ends by itself; one that panics is reported and started again. Without
/// that, calls would go on being accepted and never become requests.
async fn supervise<F: Future<Output = ()> + Send + 'static>(name: &'static str, app: App, worker: fn(App) -> F) {
    while let Err(error) = tokio::spawn(worker(app.clone())).await {
        tracing::error!(worker = name, error = %error, "a worker died; it is started again");
        sleep(AFTER_FAILURE).await;
    }
}

/// Deals with webhook events until told to stop; the one at hand is finished first.
async fn run_inbox(app: App) {
    let stopped = app.lifecycle.stopped();
    let poll = Duration::from_millis(app.config.inbox.poll_interval_ms);
    while !stopped.is_cancelled() {
        let pause = match inbox::process_next(&app).await {
            Ok(Progress::Worked) => continue,
            // The wake-up covers events stored here; the poll those that another replica stored.
            Ok(Progress::Idle) => poll,
            Err(error) => {
                tracing::warn!(target: "switchboard::inbox", error = crate::error::describe(&error), "the inbox waits for the database");
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = stopped.cancelled() => {}
            () = app.inbox_wakeup.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

/// Looks after promises to clients, while this replica is the one to do so.
async fn run_sla(app: App) {
    let interval = Duration::from_millis(app.config.sla.poll_interval_ms);
    elected::run(app, Job::Sla, interval, |app, db| Box::pin(sla::job::round(app, db))).await;
}

/// Removes what has been kept long enough, on one replica for all.
async fn run_retention(app: App) {
    let interval = Duration::from_secs(app.config.retention.interval_s);
    elected::run(app, Job::Retention, interval, |app, db| Box::pin(keeping::retention::sweep(app, db))).await;
}

/// Fetches recordings from the provider, if one is configured to fetch from.
async fn fetch_recordings(app: App) {
    if recordings::are_fetched(&app) {
        let interval = Duration::from_millis(app.config.recordings.poll_interval_ms);
        elected::run(app, Job::Recordings, interval, |app, db| Box::pin(recordings::fetch_all(app, db))).await;
    }
}

/// Keeps the gauges that are not set where something happens.
async fn sample(app: App) {
    let stopped = app.lifecycle.stopped();
    let mut ticks = interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped.cancelled() => return,
            _ = ticks.tick() => {}
        }
        sample_backlog(&app).await;
        sample_backup(&app).await;
        app.check_dependencies().await;
    }
}

/// Exports how many webhook events wait, whichever replica stored them.
pub async fn sample_backlog(app: &App) {
    // Over the connections that the inbox has: requests that use up the others must not hide that it stands still.
    // A backlog that cannot be read keeps its last value; the database's own metrics tell why.
    if let Ok(mut db) = app.reserved.acquire().await
        && let Ok(waiting) = calls::store::backlog(&mut db).await
    {
        for provider in Provider::ALL {
            let count = waiting.iter().find(|(of, _)| of == provider).map_or(0, |(_, count)| *count);
            app.metrics.webhook_backlog(*provider).set(count);
        }
    }
}

/// Exports the time of the last backup, whichever replica or person made it.
pub async fn sample_backup(app: &App) {
    if let Ok(mut db) = app.db.acquire().await
        && let Ok(Some(at)) = keeping::store::last_backup(&mut db).await
    {
        app.metrics.backup_last_success().set(at.timestamp());
    }
}

/// Measures how late timers fire, which is how long a ready task waits for a thread.
async fn measure_lag(app: App) {
    let stopped = app.lifecycle.stopped();
    while !stopped.is_cancelled() {
        let asked = Instant::now();
        tokio::select! {
            () = stopped.cancelled() => return,
            () = sleep(LAG_EVERY) => {}
        }
        app.metrics.event_loop_lag().observe(asked.elapsed().saturating_sub(LAG_EVERY).as_secs_f64());
    }
}
