//! What the integration tests stand on: a real PostgreSQL (one database a test), the real server on
//! a real port, and actors who talk HTTP to it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod actor;
pub mod balancer;
pub mod browser;
pub mod database;
pub mod files;
pub mod load;
pub mod metrics;
pub mod otlp;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod site;
pub mod sse;
pub mod telephony;
pub mod tls;
pub mod watch;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum_server::Handle;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, postgres::PgConnectOptions};
use switchboard::{
    app::App,
    auth::{
        Role, passwords,
        store::{NewUser, create_user},
    },
    calls::inbox::{self, Progress},
    cli::demo::Credentials,
    clock::{Clock, ManualClock},
    config::{Config, Secret, Settings},
    http::{listen, tls::Tls, turns::Patience},
    telemetry::ProcessCounters,
};

use self::{actor::Actor, database::TestDatabase, files::TempDir, metrics::Scrape};

/// Of every server here, so that what one signs or hashes another accepts.
pub const JWT_SECRET: &str = "7c4f19e2a86d03b5f1c89e6d2b7a4035";
pub const PEPPER: &str = "e05d83b1c947f62a1d58b09e3f7c26a4";
pub const PASSPORT_KEY: &str = "3fa9c05e718b24d6e5c01f97b83a642d90d7e2164bc8a35f5e1b7402c9f68d3a";
pub const PASSWORD: &str = "correct horse battery";
pub const MANGO_KEY: &str = "test-mango-key";
pub const MANGO_SALT: &str = "test-mango-salt";
pub const GENERIC_SECRET: &str = "whsec_dGVzdC1nZW5lcmljLXNlY3JldC0wMTIzNDU2Nzg5";
/// Two cities, each with a campaign on one line.
pub const MOSCOW: &str = "moscow";
pub const KAZAN: &str = "kazan";
pub const MOSCOW_LINE: &str = "74950000101";
pub const KAZAN_LINE: &str = "78430000101";

/// The demo's company as its first start makes it, but with passwords that are cheap to check: hashing
/// them all, twice, would be most of a test. What a first start does is in `demo`.
pub async fn found_demo(database: &TestDatabase, data: &Path) {
    let data_dir = ("SWITCHBOARD_DATA_DIR".to_owned(), data.to_str().unwrap().to_owned());
    let mut settings = Settings::read(None, [data_dir]).unwrap();
    let credentials = Credentials::of(&mut settings).unwrap();
    credentials.keep(data).unwrap();
    let mut config = settings.config().unwrap();
    config.password.cost = 4;
    let app = App::build(config, database.options(), Clock::System, ProcessCounters::default()).unwrap();
    credentials.load_company(&app).await.unwrap();
    app.close().await;
}

/// Ten in the morning in Moscow.
pub fn morning() -> DateTime<Utc> {
    "2026-06-01T07:00:00Z".parse().unwrap()
}

/// A server of its own for one test.
pub struct TestApp {
    pub app: App,
    pub clock: ManualClock,
    pub public: SocketAddr,
    pub ops: SocketAddr,
    pub database: Arc<TestDatabase>,
    /// Its data directory; nothing is there before the first upload.
    pub data: TempDir,
    handles: [Handle<SocketAddr>; 2],
}

/// Test settings; a test may change them before the server starts.
pub fn config() -> Config {
    let secrets = process::secrets().map(|(name, value)| (name.to_owned(), value));
    let mut config = Settings::read(None, secrets).unwrap().config().unwrap();
    // Not what validate() lets through: a cost of 12 would make the suite sleep for minutes.
    config.password.cost = 4;
    config.password.queue_timeout_ms = 10_000;
    // Hours pass in many tests; those about sessions say how long.
    config.jwt.ttl_s = 43_200;
    config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    config.http.insecure_cookies = true;
    config.http.allowed_origins = vec!["http://localhost:5173".to_owned(), "http://127.0.0.1:5173".to_owned()];
    config.privacy.passport_key = Secret::new(PASSPORT_KEY);
    config.mango.api_key = Secret::new(MANGO_KEY);
    config.mango.api_salt = Secret::new(MANGO_SALT);
    config.generic.secret = Secret::new(GENERIC_SECRET);
    config
}

impl TestApp {
    pub async fn start() -> Self {
        Self::start_with(config()).await
    }

    pub async fn start_with(config: Config) -> Self {
        let database = Arc::new(TestDatabase::create().await);
        found_company(&database).await;
        Self::over(config, database).await
    }

    /// One more server over a database that another one uses.
    pub async fn over(config: Config, database: Arc<TestDatabase>) -> Self {
        let options = database.options();
        Self::reaching(config, database, options).await
    }

    /// A server that reaches its database by `options`.
    pub async fn reaching(mut config: Config, database: Arc<TestDatabase>, options: PgConnectOptions) -> Self {
        watch::install();
        let data = TempDir::reserve();
        config.data.dir = data.path().to_owned();
        let clock = ManualClock::at(morning());
        let app = App::build(config, options, Clock::Manual(clock.clone()), ProcessCounters::default()).unwrap();
        app.warm_up().await.unwrap();
        let tls = Tls::load(&app.config.tls).unwrap();
        let acceptor = tls.as_ref().map(Tls::acceptor);
        if tls.is_some() {
            Tls::watch(tls, &app).unwrap();
        }
        let patience = Patience::of(&app.config.http);
        let any = "127.0.0.1:0".parse().unwrap();
        let (public, ops) = (listen::bind(any, "test").unwrap(), listen::bind(any, "test").unwrap());
        let (public_addr, ops_addr) = (public.local_addr().unwrap(), ops.local_addr().unwrap());
        let handles = [Handle::new(), Handle::new()];
        tokio::spawn(listen::serve(public, app.router(), handles[0].clone(), patience, acceptor));
        tokio::spawn(listen::serve(ops, app.ops_router(), handles[1].clone(), patience, None));
        Self { app, clock, public: public_addr, ops: ops_addr, database, data, handles }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.public)
    }

    /// Creates a user and signs them in.
    pub async fn actor(&self, role: Role, cities: &[&str]) -> Actor {
        let login = format!("{}{}", role.as_str(), actor::number());
        let hash = passwords::hash(&self.app.config.password.pepper, 4, PASSWORD).unwrap();
        let cities: Vec<String> = cities.iter().map(|code| (*code).to_owned()).collect();
        let user = NewUser {
            login: &login,
            password_hash: &hash,
            name: &login,
            role,
            cities: &cities,
            share: (role == Role::Master).then(|| "0.5".parse().unwrap()),
        };
        let mut db = self.app.db.acquire().await.unwrap();
        let id = create_user(&mut db, &user, morning()).await.unwrap();
        drop(db);
        self.catch_up().await;
        Actor::sign_in(&self.url(""), id, &login).await
    }

    /// Notices what was changed by SQL, as the server does all the time.
    pub async fn catch_up(&self) {
        self.app.cache.catch_up().await;
    }

    /// Nobody: a client without a session.
    pub fn stranger(&self) -> Actor {
        Actor::stranger(&self.url(""))
    }

    /// Lets the worker's code deal with everything in the inbox.
    pub async fn drain_inbox(&self) {
        while inbox::process_next(&self.app).await.unwrap() == Progress::Worked {}
    }

    /// Lets so much time pass for those who failed to sign in: locks are on the database's clock.
    pub async fn age_failures(&self, seconds: u32) {
        let age = format!("- interval '{seconds} s'");
        let sql = format!("UPDATE login_failures SET last_at = last_at {age}, locked_until = locked_until {age}");
        self.database.execute(&sql).await;
    }

    pub async fn scrape(&self) -> Scrape {
        Scrape::fetch(self.ops).await
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        watch::metrics(&String::from_utf8_lossy(&self.app.metrics.render().unwrap_or_default()));
        for handle in &self.handles {
            handle.shutdown();
        }
    }
}

/// Cities, campaigns and lines.
pub async fn found_company(database: &TestDatabase) {
    found_company_over(&mut database.connect().await).await;
}

/// The same in any database.
pub async fn found_company_over(connection: &mut PgConnection) {
    for (city, timezone, line) in [(MOSCOW, "Europe/Moscow", MOSCOW_LINE), (KAZAN, "Europe/Moscow", KAZAN_LINE)] {
        sqlx::query(
            "WITH city AS (INSERT INTO cities (code, name_ru, name_en, timezone) VALUES ($1, $1, $1, $2) RETURNING id),
                  campaign AS (INSERT INTO advertising_campaigns (city_id, code, name) SELECT id, $1 || '_ads', $1 FROM city RETURNING id)
             INSERT INTO campaign_numbers (campaign_id, phone_e164) SELECT id, '+' || $3 FROM campaign",
        )
        .bind(city)
        .bind(timezone)
        .bind(line)
        .execute(&mut *connection)
        .await
        .unwrap();
    }
}

/// Waits until `look` finds something; a wait without end fails the test.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..1_000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("in vain: {what}");
}
