//! Growing delays for whoever keeps failing to sign in: per login and address, so that a stranger who
//! guesses locks out nobody but themselves.

use crate::{
    app::App,
    db::{Conn, DbError, DbOperation},
    error::AppError,
    http::client_ip::ClientIp,
};

/// A try to sign in that may go on. It counts as a failure from the start, so that tries side by side
/// cannot all be the first.
#[derive(Debug)]
#[must_use]
pub struct Attempt {
    client: ClientIp,
}

/// Begins a try with `login`, in lower case.
///
/// # Errors
/// 429 with Retry-After while this login is locked for this address.
#[expect(clippy::unused_async, reason = "a stub")]
pub async fn begin(_app: &App, _login: &str, client: ClientIp) -> Result<Attempt, AppError> {
    Ok(Attempt { client })
}

impl Attempt {
    /// The password was wrong, or the user unknown or disabled.
    ///
    /// # Errors
    /// As the database.
    #[expect(clippy::unused_async, reason = "a stub")]
    pub async fn failed(self, _app: &App, _user_id: Option<i64>) -> Result<(), AppError> {
        let _ = self.client;
        Ok(())
    }

    /// It was right: earlier failures are forgotten.
    ///
    /// # Errors
    /// As the database.
    #[expect(clippy::unused_async, reason = "a stub")]
    pub async fn succeeded(self, _app: &App, _user_id: i64) -> Result<(), AppError> {
        Ok(())
    }

    /// Nobody looked at the password: it counts for nothing.
    #[expect(clippy::unused_async, reason = "a stub")]
    pub async fn not_looked_at(self, _app: &App) {}
}

/// Lifts the locks of a user, at all addresses; how many addresses had failed.
///
/// # Errors
/// As the database.
pub async fn unlock(db: &mut Conn, user_id: i64) -> Result<u64, DbError> {
    let (pg, telemetry) = db.parts();
    let query = sqlx::query!("DELETE FROM login_failures WHERE user_id = $1", user_id);
    telemetry.run(DbOperation::LoginUnlock, query.execute(pg)).await.map(|done| done.rows_affected())
}
