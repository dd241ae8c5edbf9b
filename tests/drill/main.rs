//! The drill: each alert of docs/ALERTS.md is made to fire by its fault, reaches its receiver, and resolves; or it is
//! said which promtool case shows that it does.
//!
//! `make drill` runs it, each drill in a process of its own and several at once, and keeps the table in docs/DRILL.md.
//! All faults come from outside the program: proxies, signals, locks, certificates, a full disk. It has no switch for
//! any of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests, not in what tests share"
)]
#![allow(clippy::float_cmp, reason = "counters hold whole numbers")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

#[path = "../support/mod.rs"]
mod support;

mod business;
mod capacity;
mod drill;
mod faults;
mod lab;
mod meta;
mod objectives;
mod observers;
mod outages;
mod silence;
mod sink;
mod upkeep;

use std::time::{Duration, Instant};

use drill::Drill;

/// All of them; `plan` tells `scripts/drill`.
const DRILLS: &[&Drill] = &[
    &outages::POSTGRES,
    &outages::API,
    &outages::PRODUCTION,
    &outages::REPLICA,
    &outages::RESTARTS,
    &outages::REDIS,
    &outages::ABSENT,
    &objectives::AVAILABILITY,
    &objectives::AVAILABILITY_LONG,
    &objectives::PAGES,
    &objectives::TICKETS,
    &objectives::BUDGET,
    &capacity::POOL,
    &capacity::SIGN_INS,
    &capacity::LAG,
    &capacity::DESCRIPTORS,
    &capacity::CACHE,
    &business::CALLS,
    &business::TABLES,
    &business::ASSIGNMENT,
    &business::INTRUDER,
    &upkeep::BACKUPS,
    &upkeep::CERTIFICATE,
    &upkeep::RELEASE,
    &upkeep::TRACES,
    &meta::WATCHMAN,
    &meta::WATCHDOG,
    &silence::LIFE,
    &business::BACKLOG,
    &business::QUIET,
];

/// Prints what there is to run, a line of JSON each.
#[test]
fn plan() {
    for drill in DRILLS {
        println!("drill: {}", drill.plan());
    }
}

/// Waits until `look` finds something, and fails when it does not within `limit`.
async fn wait_for<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() <= limit, "in vain for {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
