//! What needs more than PostgreSQL: a real Redis, promtool. `make test` runs it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml allows them in tests, not in what tests share"
)]
#![allow(clippy::float_cmp, reason = "counters hold whole numbers")]

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod limits;
mod promtool;
mod redis;

use switchboard::config::{Config, Secret};

use crate::support::{TestApp, config, redis::TestRedis};

fn with_redis(redis: &TestRedis) -> Config {
    let mut config = config();
    config.redis.url = Secret::new(redis.url());
    config
}

/// Two servers over one database and one Redis.
async fn two(redis: &TestRedis) -> (TestApp, TestApp) {
    let one = TestApp::start_with(with_redis(redis)).await;
    let other = TestApp::over(with_redis(redis), one.database.clone()).await;
    (one, other)
}
