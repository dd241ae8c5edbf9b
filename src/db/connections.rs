//! Connections that stay open, each lent to one request or worker at a time.
//!
//! The pool of sqlx asks the server after every use whether the connection still answers, and so makes two round trips
//! of one. Here a connection is asked once a second at most, and whenever a statement on it was broken off.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool::managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult};
use sqlx::{Connection as _, Executor, PgConnection, postgres::PgConnectOptions};

/// A connection that has answered within this time is used without asking.
const TRUSTED: Duration = Duration::from_secs(1);
/// How long one may take to answer; one that takes longer is thrown away.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// How long one may be on its way back to the pool after something was broken off on it.
const RETURN_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Older ones are replaced: whatever a server session piles up, it gives back.
const LIFETIME: Duration = Duration::from_mins(30);
/// Between two tries while a server refuses connections, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(160));

/// A statement without parameters and rows: by the simple protocol, in one round trip.
pub(super) async fn simply(connection: &mut PgConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(statement)).await.map(drop)
}

/// Whether this server takes writes.
///
/// # Errors
/// As the database.
pub(super) async fn takes_writes(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let read_only: String = sqlx::query_scalar("SHOW transaction_read_only").fetch_one(connection).await?;
    Ok(read_only == "off")
}

/// What PostgreSQL does about the plans of prepared statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plans {
    /// Makes one for the values of each call: for filters, of which a rare value wants another plan than a common one.
    Fresh,
    /// Makes one for all calls, if it takes them to be as good: for what is found by a key. Planning a statement takes
    /// longer than running it then.
    Kept,
    /// As the connection has it: for what is as good with either, and should not wait for a change.
    Either,
}

impl Plans {
    const fn statement(self) -> Option<&'static str> {
        match self {
            Self::Fresh => Some("SET plan_cache_mode = force_custom_plan"),
            Self::Kept => Some("SET plan_cache_mode = auto"),
            Self::Either => None,
        }
    }
}

/// One connection of the pool.
struct Connection {
    pg: PgConnection,
    plans: Plans,
    opened: Instant,
    /// When it was last known to be good.
    proven: Instant,
}

impl Connection {
    /// Whether it is any good: it answers, and can be written on. A server that is a standby now, or was told to take no
    /// writes, serves nobody; the next connection may find the one that has taken its place.
    async fn is_good(&mut self) -> bool {
        let is_good = matches!(tokio::time::timeout(PING_TIMEOUT, takes_writes(&mut self.pg)).await, Ok(Ok(true)));
        self.proven = Instant::now();
        is_good
    }
}

/// Opens connections, and says which may be used again.
struct Opener(PgConnectOptions);

impl managed::Manager for Opener {
    type Type = Connection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Connection, sqlx::Error> {
        let pg = PgConnection::connect_with(&self.0).await?;
        let now = Instant::now();
        Ok(Connection { pg, plans: Plans::Fresh, opened: now, proven: now })
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<sqlx::Error> {
        if connection.opened.elapsed() > LIFETIME {
            return Err(RecycleError::message("it is old"));
        }
        if connection.proven.elapsed() < TRUSTED || connection.is_good().await {
            Ok(())
        } else {
            Err(RecycleError::message("it does not answer, or takes no writes"))
        }
    }
}

/// A pool; cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    pool: managed::Pool<Opener>,
    lent: Arc<AtomicUsize>,
}

impl Pool {
    /// Of at most so many connections; connects when they are asked for.
    pub fn new(options: PgConnectOptions, most: u32) -> Self {
        // Whoever used one last has left it warm.
        let pool = managed::Pool::builder(Opener(options)).max_size(most as usize).queue_mode(QueueMode::Lifo);
        // Only a pool with time limits of its own needs a runtime.
        let pool = pool.build().unwrap_or_else(|error| unreachable!("without time limits: {error}"));
        Self { pool, lent: Arc::default() }
    }

    /// A connection, in the order of asking, that plans so. Tries again while a server refuses connections, which one that restarts
    /// does for a moment; the caller sets the limit.
    ///
    /// # Errors
    /// When a server answers and lets nobody in.
    pub async fn lend(&self, plans: Plans) -> Result<Loan, sqlx::Error> {
        let (mut pause, longest) = PAUSE;
        loop {
            match self.pool.get().await {
                Ok(connection) => return Loan::of(connection, &self.lent).planning(plans).await,
                Err(PoolError::Backend(error)) if is_passing(&error) => tokio::time::sleep(pause).await,
                Err(PoolError::Backend(error)) => return Err(error),
                Err(PoolError::Closed) => return Err(sqlx::Error::PoolClosed),
                Err(_) => return Err(sqlx::Error::PoolTimedOut),
            }
            pause = (2 * pause).min(longest);
        }
    }

    /// Connections that are lent.
    pub fn lent(&self) -> usize {
        self.lent.load(Ordering::Relaxed)
    }

    /// Connections that nobody has, and all there are.
    pub fn idle_and_all(&self) -> (usize, usize) {
        let status = self.pool.status();
        (status.available, status.size)
    }

    /// Says goodbye on those that nobody has; the others are closed when they come back.
    pub async fn close(&self) {
        let idle = self.pool.retain(|_, _| false).removed;
        self.pool.close();
        for connection in idle {
            // A server that is gone hears it not.
            let _ = connection.pg.close().await;
        }
    }
}

/// Whether a server that refuses may let in who asks again.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.is_transient_in_connect_phase(),
        _ => false,
    }
}

/// What is known of a connection besides what it has answered.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// A statement is under way, or was when nobody wanted its answer any more.
    under_way: AtomicBool,
    /// What it said last makes one doubt that the next would hear something better.
    doubtful: AtomicBool,
}

impl Usage {
    pub fn begin(&self) {
        self.under_way.store(true, Ordering::Relaxed);
    }

    pub fn end(&self, is_doubtful: bool) {
        self.under_way.store(false, Ordering::Relaxed);
        self.doubtful.fetch_or(is_doubtful, Ordering::Relaxed);
    }

    fn is_fine(&self) -> bool {
        !self.under_way.load(Ordering::Relaxed) && !self.doubtful.load(Ordering::Relaxed)
    }
}

/// A connection, for as long as somebody uses it.
pub(super) struct Loan {
    held: Held,
    pub usage: Usage,
    /// One that is neither committed nor undone.
    pub in_transaction: bool,
}

enum Held {
    /// Until it goes back.
    Lent(Option<Object<Opener>>, Arc<AtomicUsize>),
    /// One that is of no pool, and closed when dropped.
    Alone(Box<PgConnection>),
}

impl Loan {
    fn of(connection: Object<Opener>, lent: &Arc<AtomicUsize>) -> Self {
        lent.fetch_add(1, Ordering::Relaxed);
        let held = Held::Lent(Some(connection), lent.clone());
        Self { held, usage: Usage::default(), in_transaction: false }
    }

    /// The same, planning so from now on.
    async fn planning(mut self, plans: Plans) -> Result<Self, sqlx::Error> {
        if let Held::Lent(Some(connection), _) = &mut self.held
            && let Some(statement) = plans.statement()
            && connection.plans != plans
        {
            self.usage.begin();
            simply(&mut connection.pg, statement).await?;
            connection.plans = plans;
            self.usage.end(false);
        }
        Ok(self)
    }

    /// A connection that is of no pool.
    pub fn alone(connection: PgConnection) -> Self {
        Self { held: Held::Alone(Box::new(connection)), usage: Usage::default(), in_transaction: false }
    }

    /// The connection, and what is to be noted about its use.
    #[expect(clippy::expect_used, reason = "it is there until this is dropped")]
    pub fn parts(&mut self) -> (&mut PgConnection, &Usage) {
        let connection = match &mut self.held {
            Held::Lent(connection, _) => &mut connection.as_mut().expect("a loan has a connection").pg,
            Held::Alone(connection) => connection,
        };
        (connection, &self.usage)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let Held::Lent(connection, lent) = &mut self.held else { return };
        lent.fetch_sub(1, Ordering::Relaxed);
        let Some(mut connection) = connection.take() else { return };
        if self.usage.is_fine() && !self.in_transaction {
            return;
        }
        // Without a runtime, nobody needs the pool any more.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return drop(Object::take(connection)) };
        let in_transaction = self.in_transaction;
        runtime.spawn(async move {
            let mending = async {
                // Reads what a statement that was broken off has left. If it fails, so does the question after it.
                if in_transaction {
                    let _ = simply(&mut connection.pg, "ROLLBACK").await;
                }
                connection.is_good().await
            };
            // In a dark network there is no answer for as long as the kernel believes in the connection.
            if !tokio::time::timeout(RETURN_TIMEOUT, mending).await.unwrap_or(false) {
                drop(Object::take(connection));
            }
        });
    }
}
