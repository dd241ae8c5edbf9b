//! One PostgreSQL a test binary, one database a test.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use switchboard::db::{
    embedded::{Cluster, Durability, Options},
    migrate,
};
use tokio::sync::{Mutex, OnceCell};

const TEMPLATE: &str = "migrated";

struct Server {
    cluster: Cluster,
    log: PathBuf,
    /// A template can be copied by one session at a time.
    copying: Mutex<()>,
}

static SERVER: OnceCell<Server> = OnceCell::const_new();

/// The server, started when first needed; it stops with this process.
async fn server() -> &'static Server {
    SERVER
        .get_or_init(async || {
            let dir = data_dir();
            let log = dir.join("postgres.log");
            let options = Options { dir, durability: Durability::None, max_connections: 500 };
            let cluster = Cluster::start(options, &|_| ()).await.expect("the test database must start");
            let server = Server { cluster, log, copying: Mutex::new(()) };
            let mut connection = server.connect("postgres").await;
            create(&mut connection, TEMPLATE, "template0").await;
            migrate::run(&server.options(TEMPLATE)).await.unwrap();
            server
        })
        .await
}

/// A directory of this process's own, after removing those of runs that are over.
fn data_dir() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_MANIFEST_DIR"), nix::unistd::getuid().as_raw()).hash(&mut hasher);
    let prefix = format!("switchboard-test-{:x}-", hasher.finish());
    // Not below target: PostgreSQL runs as another user when the tests run as root, and may not be
    // able to enter it.
    let temp = std::env::temp_dir();
    for entry in std::fs::read_dir(&temp).unwrap().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.parse().ok()).map(Pid::from_raw);
        let over = |process: Pid| process == Pid::this() || kill(process, None) == Err(Errno::ESRCH);
        if process.is_some_and(over) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    temp.join(format!("{prefix}{}", std::process::id()))
}

impl Server {
    fn options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.cluster.socket_dir())
            .port(self.cluster.port())
            .username(self.cluster.superuser())
            .database(database)
    }

    async fn connect(&self, database: &str) -> PgConnection {
        self.options(database).connect().await.unwrap()
    }
}

async fn create(connection: &mut PgConnection, name: &str, template: &str) {
    let version = connection.server_version_num().unwrap_or(0);
    // Copying files beats logging every page when nothing is synced; before 15 there was no choice.
    let strategy = if version >= 150_000 { "STRATEGY file_copy" } else { "" };
    let sql = format!("CREATE DATABASE {name} TEMPLATE {template} {strategy}");
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
}

/// A database for one test; dropped with it.
pub struct TestDatabase {
    name: String,
    options: PgConnectOptions,
    admin: PgConnectOptions,
    /// Of the server, all its databases together.
    log: PathBuf,
}

impl TestDatabase {
    /// Migrated, otherwise empty.
    pub async fn create() -> Self {
        Self::copy_of(TEMPLATE).await
    }

    /// Not even migrated.
    pub async fn empty() -> Self {
        Self::copy_of("template1").await
    }

    async fn copy_of(template: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let server = server().await;
        let _one_at_a_time = server.copying.lock().await;
        let mut connection = server.connect("postgres").await;
        create(&mut connection, &name, template).await;
        connection.close().await.unwrap();
        Self { options: server.options(&name), admin: server.options("postgres"), log: server.log.clone(), name }
    }

    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// As a DATABASE_URL.
    pub fn url(&self) -> String {
        let socket = self.options.get_socket().unwrap().display().to_string();
        format!("postgres:///{}?host={socket}&user={}", self.name, self.options.get_username())
    }

    pub async fn connect(&self) -> PgConnection {
        // What a test writes by SQL is no statement of the server's.
        self.options.clone().disable_statement_logging().connect().await.unwrap()
    }

    /// One number.
    pub async fn count(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut self.connect().await).await.unwrap()
    }

    /// Runs statements.
    #[track_caller]
    pub fn execute(&self, sql: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let done = self.connect().await.execute(AssertSqlSafe(sql.to_owned())).await;
            if let Err(error) = done {
                panic!("{caller}: {error}: {sql}");
            }
        }
    }

    /// Runs a statement that the database must refuse; the constraint that refuses it, or the message.
    pub async fn refusal(&self, sql: &str) -> String {
        match self.connect().await.execute(AssertSqlSafe(sql.to_owned())).await {
            Err(sqlx::Error::Database(error)) => error.constraint().unwrap_or(error.message()).to_owned(),
            other => panic!("not refused: {sql}: {other:?}"),
        }
    }

    /// How long the server's log is, in bytes.
    pub fn log_length(&self) -> u64 {
        std::fs::metadata(&self.log).unwrap().len()
    }

    /// What the server has logged since its log was that long; of all databases.
    pub fn log_since(&self, length: u64) -> String {
        let log = std::fs::read(&self.log).unwrap();
        String::from_utf8_lossy(&log[usize::try_from(length).unwrap()..]).into_owned()
    }

    /// Takes the database away, with every connection to it.
    pub async fn vanish(&self) {
        let mut connection = self.admin.connect().await.unwrap();
        connection.execute(AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name))).await.unwrap();
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        // A runtime of its own: the test's may be gone.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                if let Ok(mut connection) = admin.connect().await {
                    let _ =
                        connection.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))).await;
                }
            });
        });
        let _ = dropping.join();
    }
}
