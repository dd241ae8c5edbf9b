//! Growing delays for whoever keeps failing to sign in: per login and address, so that a stranger who
//! guesses locks out nobody but themselves. The same for a login that nobody has.

mod store;

use chrono::{DateTime, Utc};

use super::keys::Keys;
use crate::{
    app::App,
    audit::{self, AuditAction, AuditSubject, By, Entry},
    db::{Conn, DbError, Tx},
    error::{self, AppError},
    http::client_ip::ClientIp,
    telemetry::labels::{AuthResult, RateLimitScope},
};

/// Failures that cost nothing but the try: fingers slip. No more tries than are left of them go on side by
/// side, and afterwards one at a time.
const FREE: u32 = 5;
/// The lock after so many, in seconds; each failure from there on doubles it.
const FIRST: i32 = 5;
const LONGEST: i32 = 15 * 60;
/// Failures count no more after so long without one, in seconds.
const FORGOTTEN_AFTER: i32 = 24 * 60 * 60;
/// A try that has not ended by then, in seconds, was given up, and has failed. No request takes as long.
const ABANDONED_AFTER: i32 = 60;
/// By then the delay no longer grows.
const COUNTED: u32 = FREE + 8;

/// How long a login is locked for an address after so many failures, in seconds.
fn delay(failures: u32) -> i32 {
    let Some(doublings) = failures.checked_sub(FREE) else { return 0 };
    FIRST.saturating_mul(2_i32.saturating_pow(doublings)).min(LONGEST)
}

/// A try to sign in that may go on. It keeps a place among those side by side until its end is told, so
/// that they cannot all be the first; hanging up does not give the place back.
#[derive(Debug)]
#[must_use]
pub struct Attempt {
    key: [u8; 32],
    client: ClientIp,
}

/// Why a try may not go on.
#[derive(Debug)]
pub enum Refused {
    /// This login has failed too often from this address; for how long it is locked, in milliseconds.
    Locked(i64),
    /// As many tries as may go on are going on.
    Crowded,
    /// Nobody knows.
    Failed(DbError),
}

impl Refused {
    /// How that is counted.
    #[must_use]
    pub const fn result(&self) -> Option<AuthResult> {
        match self {
            Self::Locked(_) => Some(AuthResult::Locked),
            Self::Crowded => Some(AuthResult::RateLimited),
            Self::Failed(_) => None,
        }
    }
}

impl From<DbError> for Refused {
    fn from(error: DbError) -> Self {
        Self::Failed(error)
    }
}

impl From<Refused> for AppError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Locked(millis) => Self::from(error::LOGIN_LOCKED).retry_after(seconds(millis)),
            Refused::Crowded => error::RATE_LIMITED.because("Too many tries at once; try again.").retry_after(1),
            Refused::Failed(error) => error.into(),
        }
    }
}

/// Rounded up.
fn seconds(millis: i64) -> u64 {
    u64::try_from(millis).unwrap_or_default().div_ceil(1_000)
}

/// Begins a try with `login`, in lower case.
///
/// # Errors
/// [`Refused`]: 429 with Retry-After, or as the database.
pub async fn begin(app: &App, login: &str, client: ClientIp) -> Result<Attempt, Refused> {
    let attempt = Attempt { key: app.keys.login(login), client };
    let bucket = client.bucket();
    let mut db = app.db.acquire().await?;
    let reservation = store::reserve(&mut db, attempt.who(&bucket), login).await?;
    if reservation.made {
        return Ok(attempt);
    }
    app.metrics.rate_limited(RateLimitScope::Login).inc();
    match reservation.locked_ms {
        Some(millis) if millis > 0 => {
            attempt.write(&mut db, None, AuthResult::Locked, app.clock.now()).await?;
            Err(Refused::Locked(millis))
        }
        _ => Err(Refused::Crowded),
    }
}

impl Attempt {
    fn who<'a>(&'a self, bucket: &'a str) -> store::Who<'a> {
        store::Who { key: &self.key, bucket }
    }

    /// The password was wrong, or the user unknown or disabled.
    ///
    /// # Errors
    /// As the database.
    pub async fn failed(self, app: &App, user_id: Option<i64>) -> Result<(), AppError> {
        Ok(self.write(&mut app.db.acquire().await?, user_id, AuthResult::Rejected, app.clock.now()).await?)
    }

    /// It was right: earlier failures are forgotten.
    ///
    /// # Errors
    /// As the database.
    pub async fn succeeded(self, app: &App, user_id: i64) -> Result<(), AppError> {
        Ok(self.write(&mut app.db.acquire().await?, Some(user_id), AuthResult::Success, app.clock.now()).await?)
    }

    /// It counts for nothing: nobody looked at the password, or this was no sign-in and it was right.
    pub async fn withdraw(self, app: &App) {
        // If that fails it counts as a failure in the end, which is the safe side.
        if let Ok(mut db) = app.db.acquire().await {
            let _ = store::release(&mut db, self.who(&self.client.bucket())).await;
        }
    }

    async fn write(
        &self,
        db: &mut Conn,
        user_id: Option<i64>,
        result: AuthResult,
        now: DateTime<Utc>,
    ) -> Result<(), DbError> {
        let address = self.client.0.to_canonical().to_string();
        store::record(db, self.who(&self.client.bucket()), user_id, &address, result, now).await
    }
}

/// Gives somebody new the failures from before there was such a user, so that they can be seen and lifted.
///
/// # Errors
/// As the database.
pub async fn adopt(tx: &mut Tx, keys: &Keys, login: &str, user_id: i64) -> Result<(), DbError> {
    store::adopt(tx, &keys.login(login), user_id).await
}

/// Lifts the locks of a user, at all addresses, and says so in the audit log; how many addresses had failed.
///
/// # Errors
/// As the database.
pub async fn unlock(tx: &mut Tx, by: By, user_id: i64, now: DateTime<Utc>) -> Result<u64, DbError> {
    let unlocked = store::unlock(tx, user_id).await?;
    let entry = Entry::new(AuditAction::AccountUnlocked, AuditSubject::Users, user_id).with("unlocked", unlocked);
    audit::record(tx, by, entry, now).await?;
    Ok(unlocked)
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
        assert_eq!([5_000, 4_001, 4_000, 1].map(seconds), [5, 5, 4, 1]);
    }
}
