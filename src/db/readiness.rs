//! Whether the database can serve: asked on a connection of its own, so that a busy pool does not
//! make a working replica look dead.

use std::{
    fmt,
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::Mutex;

use super::{connections, migrate};

const PATIENCE: Duration = Duration::from_secs(1);

/// An answer is good for this long: probes of many balancers, or of anybody, share one question.
const FRESH: Duration = Duration::from_millis(500);

/// The connection that readiness asks on, and its last answer.
pub struct Readiness {
    options: PgConnectOptions,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<PgConnection>,
    answer: Option<(Instant, &'static str)>,
}

// The options know the password.
impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

impl Readiness {
    /// Asks the database that `options` name.
    #[must_use]
    pub fn new(options: PgConnectOptions) -> Self {
        Self { options: options.application_name("switchboard readiness"), state: Mutex::default() }
    }

    /// `ok`, `starting` or `database_unavailable`. Whoever comes while somebody asks waits for that
    /// answer, about a second at most.
    pub async fn check(&self) -> &'static str {
        let mut state = self.state.lock().await;
        if let Some((at, answer)) = state.answer
            && at.elapsed() < FRESH
        {
            return answer;
        }
        // Taken out while in use, so that a question that times out drops a connection of unknown state.
        let connection = state.connection.take();
        let (connection, answer) = match tokio::time::timeout(PATIENCE, self.ask(connection)).await {
            Ok(Ok(Some((connection, true)))) => (Some(connection), "ok"),
            Ok(Ok(Some((connection, false)))) => (Some(connection), "starting"),
            Ok(Ok(None) | Err(_)) | Err(_) => (None, "database_unavailable"),
        };
        *state = State { connection, answer: Some((Instant::now(), answer)) };
        answer
    }

    /// The connection, and whether the schema is current; none if the server takes no writes.
    async fn ask(&self, connection: Option<PgConnection>) -> sqlx::Result<Option<(PgConnection, bool)>> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        if !connections::takes_writes(&mut connection).await? {
            return Ok(None);
        }
        let current = migrate::is_current(&mut connection).await?;
        Ok(Some((connection, current)))
    }

    /// Gives the connection back.
    pub async fn close(&self) {
        if let Some(connection) = self.state.lock().await.connection.take() {
            drop(connection.close().await);
        }
    }
}
