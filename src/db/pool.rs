//! The pool and what may run on it. Every statement goes through [`Statements::run`]: a client span,
//! a histogram, an error counter, the request's own count, and a timeout on our side, because
//! `statement_timeout` cannot save a query whose network went dark.

use std::{
    fmt,
    future::Future,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tracing::{Instrument, field::Empty, info_span};

use super::{
    DbError, DbOperation,
    connections::{Loan, Plans, Pool, Usage, simply},
};
use crate::{
    config,
    http::stats,
    telemetry::{labels::PoolState, metrics::Metrics},
};

/// How long who has used up their time may still wait: a free connection that is asked whether it lives takes a moment.
const LEAST_PATIENCE: Duration = Duration::from_millis(20);

/// Connections of the second pool, see [`Db::reserve`].
const RESERVED: u32 = 3;

/// Prepared statements that a connection keeps: more than the program has, but for the combinations of a list's filters.
const STATEMENTS: usize = 320;

/// See [`Db::begin_long`].
const LONG: u32 = 3;

/// The database of one App; cheap to clone.
#[derive(Clone)]
pub struct Db {
    pool: Pool,
    options: PgConnectOptions,
    telemetry: Telemetry,
    acquire_timeout: Duration,
}

// The options know the password.
impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("telemetry", &self.telemetry).finish_non_exhaustive()
    }
}

/// What accompanies every statement.
#[derive(Clone, Debug)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
    timeout: Duration,
}

/// The statements of one connection, with what accompanies them.
#[derive(Clone, Copy, Debug)]
pub struct Statements<'a> {
    telemetry: &'a Telemetry,
    usage: &'a Usage,
}

impl Statements<'_> {
    /// Runs one statement within the query timeout, and notes what that says of the connection.
    async fn bounded<T>(&self, statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, DbError> {
        let timeout = self.telemetry.timeout;
        self.usage.begin();
        let Ok(outcome) = tokio::time::timeout(timeout, statement).await else { return Err(DbError::Timeout(timeout)) };
        let outcome = outcome.map_err(DbError::from);
        self.usage.end(outcome.as_ref().is_err_and(DbError::is_outage));
        outcome
    }

    /// Runs one statement (or BEGIN, COMMIT) under its name.
    ///
    /// # Errors
    /// [`DbError::Timeout`] after the query timeout, else what the driver says.
    pub async fn run<T: Rows>(
        &self,
        operation: DbOperation,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, DbError> {
        if cfg!(feature = "unobserved") {
            return self.bounded(statement).await;
        }
        // A worker that looks for work finds none most of the time: not worth a trace of its own. And of a request whose
        // trace nobody keeps, nobody keeps the parts.
        let span = if tracing::Span::current().is_none() || !stats::is_sampled() {
            tracing::Span::none()
        } else {
            info_span!(
                target: "switchboard::db",
                "db",
                otel.name = operation.summary(),
                otel.kind = "client",
                otel.status_code = Empty,
                error.r#type = Empty,
                db.system.name = "postgresql",
                db.query.summary = operation.summary(),
                db.operation.name = operation.as_str(),
                db.response.returned_rows = Empty,
            )
        };
        let started = Instant::now();
        let outcome = self.bounded(statement.instrument(span.clone())).await;
        let metrics = &self.telemetry.metrics;
        let elapsed = started.elapsed();
        metrics.db_operation_duration(operation).observe(elapsed.as_secs_f64());
        stats::record_query(elapsed);
        match &outcome {
            Ok(value) => {
                span.record("db.response.returned_rows", value.rows());
            }
            // No row where one may be missing is an answer, not a failure.
            Err(DbError::Sql(sqlx::Error::RowNotFound)) => {}
            Err(error) => {
                span.record("otel.status_code", "ERROR");
                if let Some(class) = error.class() {
                    metrics.db_errors(class).inc();
                    span.record("error.type", class.as_str());
                }
            }
        }
        outcome
    }
}

/// How many rows a result holds, for the span.
pub trait Rows {
    /// Rows returned or affected; one unless said otherwise.
    fn rows(&self) -> u64 {
        1
    }
}

impl<T> Rows for Option<T> {
    fn rows(&self) -> u64 {
        u64::from(self.is_some())
    }
}

impl<T> Rows for Vec<T> {
    fn rows(&self) -> u64 {
        self.len() as u64
    }
}

impl Rows for sqlx::postgres::PgQueryResult {
    fn rows(&self) -> u64 {
        self.rows_affected()
    }
}

impl Rows for i64 {}
impl Rows for bool {}

impl Rows for () {
    fn rows(&self) -> u64 {
        0
    }
}

impl Db {
    /// A pool over `options`; connects lazily.
    #[must_use]
    pub fn new(options: PgConnectOptions, config: &config::Database, metrics: Arc<Metrics>) -> Self {
        metrics.db_pool_max_connections().set(i64::from(config.max_connections));
        Self::pooled(options, config, u32::from(config.max_connections), metrics)
    }

    /// A second pool of the same, for what must get through when requests have all connections of the first: calls
    /// that come in, and how new things are.
    #[must_use]
    pub fn reserve(&self, config: &config::Database) -> Self {
        Self::pooled(self.options.clone(), config, RESERVED, self.telemetry.metrics.clone())
    }

    fn pooled(options: PgConnectOptions, config: &config::Database, most: u32, metrics: Arc<Metrics>) -> Self {
        let timeout = config.query_timeout();
        let options = options.application_name("switchboard").statement_cache_capacity(STATEMENTS).options([
            ("statement_timeout", format!("{}ms", timeout.as_millis())),
            // Shorter, so that waiting for one row does not keep a connection from everybody else.
            ("lock_timeout", format!("{}ms", timeout.as_millis() / 3)),
            ("idle_in_transaction_session_timeout", "10s".to_owned()),
            ("timezone", "UTC".to_owned()),
            // A host that vanished without a word would keep its row locks and its jobs for two hours, which
            // is what operating systems wait before they ask.
            ("tcp_keepalives_idle", "15".to_owned()),
            ("tcp_keepalives_interval", "5".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
            ("tcp_user_timeout", "30000".to_owned()),
            // Plans::Fresh, unless somebody asks for another.
            ("plan_cache_mode", "force_custom_plan".to_owned()),
            // Starting a parallel worker takes longer than most statements, and takes a core from the others.
            ("max_parallel_workers_per_gather", "0".to_owned()),
        ]);
        let pool = Pool::new(options.clone(), most);
        let telemetry = Telemetry { metrics, timeout };
        Self { pool, options, telemetry, acquire_timeout: config.acquire_timeout() }
    }

    /// A connection from the pool, with fresh plans.
    ///
    /// # Errors
    /// [`DbError::PoolTimeout`] when none is free in time, [`DbError::Connect`] when none can be opened.
    pub async fn acquire(&self) -> Result<Conn, DbError> {
        self.acquire_with(Plans::Fresh).await
    }

    /// A connection from the pool.
    ///
    /// # Errors
    /// As [`Db::acquire`].
    pub async fn acquire_with(&self, plans: Plans) -> Result<Conn, DbError> {
        Ok(Conn { loan: self.check_out(plans).await?, telemetry: self.telemetry.clone() })
    }

    /// A transaction with fresh plans: rolled back unless [`Tx::commit`] is called.
    ///
    /// # Errors
    /// As [`Db::acquire`], or when BEGIN fails.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        self.begin_with(Plans::Fresh).await
    }

    /// A transaction.
    ///
    /// # Errors
    /// As [`Db::begin`].
    pub async fn begin_with(&self, plans: Plans) -> Result<Tx, DbError> {
        let mut connection = self.acquire_with(plans).await?;
        // Before it is known to have begun: whoever gives up waiting undoes it all the same.
        connection.loan.in_transaction = true;
        let (pg, telemetry) = connection.parts();
        telemetry.run(DbOperation::Begin, simply(pg, "BEGIN")).await?;
        Ok(Tx(connection))
    }

    /// A transaction whose statements may take [`LONG`] times as long as others, with the memory to sort
    /// in: for reports, which read much. [`crate::reports::turn`] sees to it that they are few at a time.
    ///
    /// # Errors
    /// As [`Db::begin`].
    pub async fn begin_long(&self) -> Result<Tx, DbError> {
        let mut tx = self.begin().await?;
        tx.0.telemetry.timeout *= LONG;
        let limit = format!("{}ms", tx.0.telemetry.timeout.as_millis());
        let (pg, telemetry) = tx.parts();
        let query = sqlx::query!(
            "SELECT set_config('statement_timeout', $1, true) AS timeout, set_config('work_mem', '32MB', true) AS memory",
            limit
        );
        telemetry.run(DbOperation::Limits, query.map(drop).fetch_one(pg)).await?;
        Ok(tx)
    }

    async fn check_out(&self, plans: Plans) -> Result<Loan, DbError> {
        let started = Instant::now();
        // A request that waits twice for a connection waits no longer in all than one that waits once.
        let patience = self.acquire_timeout.saturating_sub(stats::waited()).max(LEAST_PATIENCE);
        let acquired = tokio::time::timeout(patience, self.pool.lend(plans)).await;
        let checked_out = acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        let (metrics, elapsed) = (&self.telemetry.metrics, started.elapsed());
        metrics.db_pool_acquire_duration().observe(elapsed.as_secs_f64());
        stats::record_wait(elapsed);
        checked_out.map_err(|error| {
            // The pool keeps trying while a server refuses connections: if nobody has one, the wait was
            // for the server and not for other requests.
            let busy = self.pool.lent() > 0;
            let error = match error {
                sqlx::Error::PoolTimedOut if busy => DbError::PoolTimeout(self.acquire_timeout),
                other => DbError::Connect(other),
            };
            match error.class() {
                Some(class) => metrics.db_errors(class).inc(),
                None => metrics.db_pool_acquire_timeouts().inc(),
            }
            error
        })
    }

    /// A connection of its own, outside the pool, with the same limits and the same telemetry: for work
    /// that must not wait for requests, nor they for it. Closed when dropped, which rolls back what was
    /// begun on it and gives up its advisory locks.
    ///
    /// # Errors
    /// [`DbError::Connect`] when it cannot be opened within the acquire timeout.
    pub async fn connect_alone(&self) -> Result<Conn, DbError> {
        let late = |_| Err(sqlx::Error::PoolTimedOut);
        let connecting = PgConnection::connect_with(&self.options);
        let connection = tokio::time::timeout(self.acquire_timeout, connecting).await.unwrap_or_else(late);
        let connection = connection.map_err(DbError::Connect)?;
        Ok(Conn { loan: Loan::alone(connection), telemetry: self.telemetry.clone() })
    }

    /// How to reach the database outside the pool: readiness must not wait for it.
    #[must_use]
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Sets the pool's gauges; called when metrics are read.
    pub fn sample(&self) {
        let metrics = &self.telemetry.metrics;
        let (idle, all) = self.pool.idle_and_all();
        let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.db_pool_connections(PoolState::Idle).set(count(idle));
        metrics.db_pool_connections(PoolState::Used).set(count(all.saturating_sub(idle)));
    }

    /// Closes the pool.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A connection on which stores run their statements.
pub struct Conn {
    loan: Loan,
    telemetry: Telemetry,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("telemetry", &self.telemetry).finish_non_exhaustive()
    }
}

impl Conn {
    /// The raw connection and what must accompany each statement on it.
    pub fn parts(&mut self) -> (&mut PgConnection, Statements<'_>) {
        let (connection, usage) = self.loan.parts();
        (connection, Statements { telemetry: &self.telemetry, usage })
    }
}

/// A transaction; derefs to [`Conn`], so that every store function runs inside one too.
#[derive(Debug)]
pub struct Tx(Conn);

impl Tx {
    /// Undoes it, and gives up its locks, before anybody is answered; dropped, it does so a little later.
    ///
    /// # Errors
    /// When that is not confirmed: then the connection is broken, and the server does it by itself.
    pub async fn rollback(mut self) -> Result<(), DbError> {
        let (pg, telemetry) = self.parts();
        telemetry.run(DbOperation::Rollback, simply(pg, "ROLLBACK")).await?;
        self.is_over();
        Ok(())
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// When the commit is not confirmed; the outcome is then unknown to us.
    pub async fn commit(mut self) -> Result<(), DbError> {
        let (pg, telemetry) = self.parts();
        telemetry.run(DbOperation::Commit, simply(pg, "COMMIT")).await?;
        self.is_over();
        Ok(())
    }

    fn is_over(&mut self) {
        self.0.loan.in_transaction = false;
    }
}

impl Deref for Tx {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.0
    }
}
