//! The database a command works on: DATABASE_URL, or the embedded cluster, which is started unless a
//! running server of the same data directory already has.

use std::{fmt, path::Path, str::FromStr};

use anyhow::ensure;
use sqlx::postgres::PgConnectOptions;

use super::progress;
use crate::{
    config::{Config, ConfigError},
    db::embedded::{Cluster, Durability, EmbeddedError, Options, cluster_exists, running_socket_dir},
};

/// Connections that the embedded server keeps free beyond the pool: readiness, tools, a person.
const SPARE_CONNECTIONS: u16 = 20;

/// A database to connect to.
pub struct Database {
    /// How to reach it.
    pub options: PgConnectOptions,
    cluster: Option<Cluster>,
}

// The options know the password.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// Opens the database that the settings name.
///
/// # Errors
/// When the URL is unusable or the embedded cluster cannot start; the message says what to do.
pub async fn open(config: &Config) -> anyhow::Result<Database> {
    if !config.database.url.is_empty() {
        let options = PgConnectOptions::from_str(config.database.url.expose())
            .map_err(|error| ConfigError::new("DATABASE_URL", format!("cannot be used: {error}")))?;
        return Ok(Database { options, cluster: None });
    }
    let dir = config.data_dir()?;
    let options = Options {
        dir: dir.clone(),
        durability: Durability::Full,
        max_connections: config.database.max_connections.saturating_add(SPARE_CONNECTIONS),
    };
    let spinner = progress::spinner("opening the embedded database");
    let started = Cluster::start(options, &|phrase| progress::say(&spinner, phrase)).await;
    spinner.finish_and_clear();
    match started {
        Ok(cluster) => {
            let options = socket_options(cluster.socket_dir(), cluster.port(), cluster.superuser(), cluster.database());
            Ok(Database { options, cluster: Some(cluster) })
        }
        Err(error) => Err(error.into()),
    }
}

/// As [`open`], but joins a server that is running on the same data directory.
///
/// # Errors
/// As [`open`].
pub async fn open_or_join(config: &Config) -> anyhow::Result<Database> {
    match open(config).await {
        Err(error) if matches!(error.downcast_ref(), Some(EmbeddedError::InUse { .. })) => {
            let socket_dir = running_socket_dir(&config.data_dir()?).ok_or(error)?;
            Ok(Database { options: socket_options(&socket_dir, 5432, "switchboard", "switchboard"), cluster: None })
        }
        other => other,
    }
}

/// As [`open_or_join`], for a command that has no business with a new, empty database: who names the
/// wrong directory is told so.
///
/// # Errors
/// As [`open`], and when there is no database in the data directory.
pub async fn open_existing(config: &Config) -> anyhow::Result<Database> {
    if config.database.url.is_empty() {
        let dir = config.data_dir()?;
        ensure!(
            cluster_exists(&dir),
            "there is no database in {}; is SWITCHBOARD_DATA_DIR the server's, and are you the user it runs as?",
            dir.display()
        );
    }
    open_or_join(config).await
}

fn socket_options(socket_dir: &Path, port: u16, user: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass().socket(socket_dir).port(port).username(user).database(database)
}

impl Database {
    /// Stops the embedded cluster, if that is what it is.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn close(self) -> anyhow::Result<()> {
        match self.cluster {
            Some(cluster) => Ok(cluster.stop().await?),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_database_is_not_printed() {
        let options = PgConnectOptions::from_str("postgres://app:hunter2@db/switchboard").unwrap();
        let printed = format!("{:?}", Database { options, cluster: None });
        assert!(printed.starts_with("Database") && !printed.contains("hunter2"), "{printed}");
    }
}
