//! Database errors: their class for metrics, and the answer they become.

use std::time::Duration;

use crate::{
    error::{self, AppError},
    telemetry::labels::SqlstateClass,
};

/// Why a database operation failed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No pooled connection was free in time.
    #[error("no database connection was free within {0:?}")]
    PoolTimeout(Duration),
    /// No connection could be opened: the server is down, or does not know the database any more.
    #[error("the database cannot be reached")]
    Connect(#[source] sqlx::Error),
    /// The client-side timeout: the server did not answer, or the network is dark.
    #[error("the database did not answer within {0:?}")]
    Timeout(Duration),
    /// Everything the driver reports.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

impl DbError {
    /// The class for `db_client_errors_total`; `None` where a pool metric counts it.
    #[must_use]
    pub fn class(&self) -> Option<SqlstateClass> {
        match self {
            Self::PoolTimeout(_) => None,
            Self::Connect(error) => match class_of(error) {
                SqlstateClass::Other => Some(SqlstateClass::Connection),
                class => Some(class),
            },
            Self::Timeout(_) => Some(SqlstateClass::Timeout),
            Self::Sql(error) => Some(class_of(error)),
        }
    }

    /// The violated constraint, if that is what happened.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Sql(sqlx::Error::Database(error)) => error.constraint(),
            _ => None,
        }
    }

    /// Whether trying the same again later may help: the row was locked, the server busy or away.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.is_outage()
            || match self {
                Self::Timeout(_) => true,
                Self::Sql(error) => {
                    // 57014 is a statement that ran into its timeout.
                    matches!(
                        class_of(error),
                        SqlstateClass::Rollback | SqlstateClass::State | SqlstateClass::Intervention
                    )
                }
                Self::PoolTimeout(_) | Self::Connect(_) => false,
            }
    }

    /// Whether nothing else would succeed now either: the server is away or out of resources.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::PoolTimeout(_) | Self::Connect(_) => true,
            Self::Timeout(_) => false,
            Self::Sql(error) => match class_of(error) {
                SqlstateClass::Connection | SqlstateClass::Resources => true,
                SqlstateClass::Intervention => code_of(error).as_deref() != Some("57014"),
                SqlstateClass::TransactionState => code_of(error).as_deref() == Some("25006"),
                _ => false,
            },
        }
    }
}

fn class_of(error: &sqlx::Error) -> SqlstateClass {
    match error {
        sqlx::Error::Database(error) => error
            .code()
            .and_then(|code| code.get(..2).map(str::to_owned))
            .and_then(|class| SqlstateClass::ALL.iter().copied().find(|known| known.as_str() == class))
            .unwrap_or(SqlstateClass::Other),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => SqlstateClass::Connection,
        _ => SqlstateClass::Other,
    }
}

fn code_of(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(Into::into)
}

impl From<DbError> for AppError {
    fn from(error: DbError) -> Self {
        let kind = match &error {
            DbError::PoolTimeout(_) => error::OVERLOADED,
            DbError::Connect(_) => error::DATABASE_UNAVAILABLE,
            DbError::Timeout(_) => error::TIMED_OUT,
            DbError::Sql(sql) => match class_of(sql) {
                // Taken by somebody else, or gone meanwhile. Any other violated constraint is our bug: 500.
                SqlstateClass::Integrity if matches!(code_of(sql).as_deref(), Some("23505" | "23503")) => {
                    error::CONFLICT
                }
                // 57014 is our own statement_timeout; the rest of the class is a server going down.
                SqlstateClass::Intervention if code_of(sql).as_deref() == Some("57014") => error::TIMED_OUT,
                SqlstateClass::Connection | SqlstateClass::Resources | SqlstateClass::Intervention => {
                    error::DATABASE_UNAVAILABLE
                }
                // A standby, and a transaction that was idle for too long: a part of what was asked for is not done.
                SqlstateClass::TransactionState if matches!(code_of(sql).as_deref(), Some("25006" | "25P03")) => {
                    error::DATABASE_UNAVAILABLE
                }
                // A value that no column can hold, such as U+0000 in a search text.
                SqlstateClass::Data => error::INVALID,
                // A row that somebody else holds too long, a deadlock: trying again helps.
                SqlstateClass::Rollback | SqlstateClass::State => error::OVERLOADED,
                _ => error::INTERNAL,
            },
        };
        let answer = AppError::from(kind).caused_by(error);
        if kind.status.is_server_error() && kind != error::INTERNAL { answer.retry_after(1) } else { answer }
    }
}
