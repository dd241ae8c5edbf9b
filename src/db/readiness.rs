//! Whether the database can serve: asked on a connection of its own, so that a busy pool does not
//! make a working replica look dead.

use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::Mutex;

use super::migrate;

const PATIENCE: Duration = Duration::from_secs(1);

/// The connection that readiness asks on.
#[derive(Debug)]
pub struct Readiness {
    options: PgConnectOptions,
    connection: Mutex<Option<PgConnection>>,
}

impl Readiness {
    /// Asks the database that `options` name.
    #[must_use]
    pub fn new(options: PgConnectOptions) -> Self {
        Self { options, connection: Mutex::new(None) }
    }

    /// `ok`, `starting` or `database_unavailable`, within a second.
    pub async fn check(&self) -> &'static str {
        let ask = async {
            // Probes queue here: one connection serves them all, one after the other.
            let mut slot = self.connection.lock().await;
            // Taken out while in use, so that a probe that times out drops a connection of unknown state.
            let mut connection = match slot.take() {
                Some(connection) => connection,
                None => self.options.clone().application_name("switchboard readiness").connect().await?,
            };
            let current = migrate::is_current(&mut connection).await?;
            *slot = Some(connection);
            Ok::<_, sqlx::Error>(current)
        };
        match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Ok(true)) => "ok",
            Ok(Ok(false)) => "starting",
            Ok(Err(_)) | Err(_) => "database_unavailable",
        }
    }

    /// Gives the connection back.
    pub async fn close(&self) {
        if let Some(connection) = self.connection.lock().await.take() {
            drop(connection.close().await);
        }
    }
}
