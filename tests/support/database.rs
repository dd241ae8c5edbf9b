//! One PostgreSQL a test binary, one database a test.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicU32, Ordering},
};

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use switchboard::db::{
    embedded::{Cluster, Durability, Options},
    migrate,
};
use tokio::sync::{Mutex, OnceCell};

const TEMPLATE: &str = "migrated";

struct Server {
    cluster: Cluster,
    /// A template can be copied by one session at a time.
    copying: Mutex<()>,
}

static SERVER: OnceCell<Server> = OnceCell::const_new();

/// The server, started when first needed; it stops with this process.
async fn server() -> &'static Server {
    SERVER
        .get_or_init(async || {
            let mut hasher = DefaultHasher::new();
            (env!("CARGO_MANIFEST_DIR"), std::env::current_exe().ok(), nix::unistd::getuid().as_raw())
                .hash(&mut hasher);
            // Not below target: PostgreSQL runs as another user when the tests run as root, and may
            // not be able to enter it. The name is stable, so that runs do not pile up.
            let dir = std::env::temp_dir().join(format!("switchboard-test-{:x}", hasher.finish()));
            let _ = std::fs::remove_dir_all(&dir);
            let options = Options { dir, durability: Durability::None, max_connections: 500 };
            let cluster = Cluster::start(options, &|_| ()).await.expect("the test database must start");
            let server = Server { cluster, copying: Mutex::new(()) };
            let mut connection = server.connect("postgres").await;
            create(&mut connection, TEMPLATE, "template0").await;
            migrate::run(&server.options(TEMPLATE)).await.unwrap();
            server
        })
        .await
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
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {template}"))).await.unwrap();
}

/// A database for one test; dropped with it.
pub struct TestDatabase {
    name: String,
    options: PgConnectOptions,
    admin: PgConnectOptions,
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
        Self { options: server.options(&name), admin: server.options("postgres"), name }
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
        self.options.connect().await.unwrap()
    }

    /// One number.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.connect().await).await.unwrap()
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
                    let _ = connection.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await;
                }
            });
        });
        let _ = dropping.join();
    }
}
