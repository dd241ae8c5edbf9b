//! Growing delays for whoever keeps failing to sign in: per login and address, so that a stranger who
//! guesses locks out nobody but themselves. The same for a login that nobody has.

mod store;

use chrono::{DateTime, TimeDelta, Utc};

pub use store::unlock;

use crate::{
    app::App,
    error::{self, AppError},
    http::client_ip::ClientIp,
    telemetry::labels::{AuthResult, RateLimitScope},
};

/// Failures that cost nothing but the try: fingers slip.
const FREE: u32 = 5;
/// The lock after so many, in seconds; each failure from there on doubles it.
const FIRST: i32 = 5;
const LONGEST: i32 = 15 * 60;
/// Failures count no more after so long without one.
const FORGOTTEN_AFTER: TimeDelta = TimeDelta::hours(24);
/// By then the delay no longer grows.
const COUNTED: u32 = FREE + 8;

/// How long a login is locked for an address after so many failures, in seconds.
fn delay(failures: u32) -> i32 {
    let Some(doublings) = failures.checked_sub(FREE) else { return 0 };
    FIRST.saturating_mul(2_i32.saturating_pow(doublings)).min(LONGEST)
}

/// A try to sign in that may go on. It counts as a failure from the start, so that tries side by side
/// cannot all be the first, and hanging up does not undo one.
#[derive(Debug)]
#[must_use]
pub struct Attempt {
    key: [u8; 32],
    client: ClientIp,
}

/// Begins a try with `login`, in lower case.
///
/// # Errors
/// 429 with Retry-After while this login is locked for this address, or as the database.
pub async fn begin(app: &App, login: &str, client: ClientIp) -> Result<Attempt, AppError> {
    let (attempt, now) = (Attempt { key: app.keys.login(login), client }, app.clock.now());
    let delays: Vec<i32> = (0..=COUNTED).map(delay).collect();
    let bucket = client.bucket();
    let mut db = app.db.acquire().await?;
    let reservation = store::reserve(&mut db, attempt.who(&bucket), login, &delays, now - FORGOTTEN_AFTER, now).await?;
    if reservation.made {
        return Ok(attempt);
    }
    store::record(&mut db, attempt.who(&bucket), None, &attempt.address(), AuthResult::Locked, now).await?;
    app.metrics.rate_limited(RateLimitScope::Login).inc();
    Err(error::RATE_LIMITED.because("Too many failed tries; wait.").retry_after(left(reservation.locked_until, now)))
}

/// Seconds, rounded up. A lock that is not there yet, or not any more, is that of a try just ahead.
fn left(locked_until: Option<DateTime<Utc>>, now: DateTime<Utc>) -> u64 {
    let millis = locked_until.map_or(0, |until| (until - now).num_milliseconds());
    u64::try_from(millis)
        .ok()
        .filter(|millis| *millis > 0)
        .map_or(u64::from(FIRST.unsigned_abs()), |millis| millis.div_ceil(1_000))
}

impl Attempt {
    fn who<'a>(&'a self, bucket: &'a str) -> store::Who<'a> {
        store::Who { key: &self.key, bucket }
    }

    fn address(&self) -> String {
        self.client.0.to_canonical().to_string()
    }

    /// The password was wrong, or the user unknown or disabled.
    ///
    /// # Errors
    /// As the database.
    pub async fn failed(self, app: &App, user_id: Option<i64>) -> Result<(), AppError> {
        self.record(app, user_id, AuthResult::Rejected).await
    }

    /// It was right: earlier failures are forgotten.
    ///
    /// # Errors
    /// As the database.
    pub async fn succeeded(self, app: &App, user_id: i64) -> Result<(), AppError> {
        self.record(app, Some(user_id), AuthResult::Success).await
    }

    /// It counts for nothing: nobody looked at the password, or this was no sign-in and it was right.
    pub async fn withdraw(self, app: &App) {
        // If that fails it counts as a failure, which is the safe side.
        if let Ok(mut db) = app.db.acquire().await {
            let _ = store::release(&mut db, self.who(&self.client.bucket())).await;
        }
    }

    async fn record(self, app: &App, user_id: Option<i64>, result: AuthResult) -> Result<(), AppError> {
        let mut db = app.db.acquire().await?;
        let (bucket, now) = (self.client.bucket(), app.clock.now());
        Ok(store::record(&mut db, self.who(&bucket), user_id, &self.address(), result, now).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_are_free_and_then_each_failure_doubles_the_delay_to_a_quarter_of_an_hour() {
        let delays: Vec<i32> = (0..=15).map(delay).collect();
        assert_eq!(delays, [0, 0, 0, 0, 0, 5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900]);
        for many in [COUNTED, 35, 36, 37, 1_000, u32::MAX] {
            assert_eq!(delay(many), LONGEST, "{many}");
        }
        assert!(delay(COUNTED - 1) < LONGEST, "the table that is sent along is no longer than it must be");
    }

    #[test]
    fn who_waits_as_long_as_they_are_told_need_not_wait_again() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let after = |millis| left(Some(now + TimeDelta::milliseconds(millis)), now);
        assert_eq!((after(5_000), after(4_001), after(4_000), after(1)), (5, 5, 4, 1));
        assert_eq!((after(0), after(-1), left(None, now)), (5, 5, 5));
    }
}
