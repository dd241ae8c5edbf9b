//! A company: its database and Redis, each behind a proxy, and servers that are processes.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use switchboard::{auth::passwords, config::Secret};

use super::{
    MANGO_KEY, MANGO_SALT, PASSWORD, PEPPER,
    actor::{Actor, Answer, number},
    database::TestDatabase,
    found_company,
    metrics::Scrape,
    process::{self, Server},
    proxy::Proxy,
    redis::TestRedis,
};

pub struct Site {
    pub database: TestDatabase,
    /// Between the servers and the database.
    pub postgres: Proxy,
    pub redis_server: TestRedis,
    /// Between the servers and Redis.
    pub redis: Proxy,
}

/// What everybody here is called; there is one administrator.
const LOGIN: &str = "boss";

impl Site {
    pub async fn open() -> Self {
        let database = TestDatabase::create().await;
        found_company(&database).await;
        let postgres = Proxy::before(&database).await;
        let redis_server = TestRedis::start().await;
        let redis = Proxy::before_redis(&redis_server).await;
        let site = Self { database, postgres, redis_server, redis };
        site.create_user().await;
        site
    }

    async fn create_user(&self) {
        let hash = passwords::hash(&Secret::new(PEPPER), 4, PASSWORD).unwrap();
        let sql = format!(
            "INSERT INTO users (login, password_hash, name, role, created_at)
             VALUES ('{LOGIN}', '{hash}', 'Boss', 'admin', now())"
        );
        self.database.execute(&sql).await;
    }

    /// Of a server here. What one person may do in a minute is not what is measured.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("DATABASE_URL", self.postgres.url_over(&self.database)),
            ("REDIS_URL", format!("redis://{}", self.redis.address())),
            ("SWITCHBOARD_HTTP_TRUSTED_PROXIES", "127.0.0.0/8".to_owned()),
            ("SWITCHBOARD_MANGO_API_KEY", MANGO_KEY.to_owned()),
            ("SWITCHBOARD_MANGO_API_SALT", MANGO_SALT.to_owned()),
            ("SWITCHBOARD_HTTP_INSECURE_COOKIES", "true".to_owned()),
            ("SWITCHBOARD_LIMITS_IP", "1000000/min".to_owned()),
            ("SWITCHBOARD_LIMITS_USER", "1000000/min".to_owned()),
            ("SWITCHBOARD_LIMITS_LOGIN_IP", "10000/min".to_owned()),
        ];
        environment.extend(process::secrets());
        environment
    }

    /// A server with these settings besides.
    pub async fn server(&self, settings: &[(&'static str, &str)]) -> Server {
        let mut environment = self.environment();
        environment.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        tokio::task::spawn_blocking(move || Server::start(&[], &environment)).await.unwrap()
    }

    /// The same at addresses that are known: the public one, and that of the ops listener.
    pub async fn server_at(&self, addresses: [SocketAddr; 2], settings: &[(&'static str, &str)]) -> Server {
        let mut environment = self.environment();
        environment.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let begin = move || {
            let mut server = Server::begin(&[], addresses, &environment);
            server.wait_for_line("ready", |line| line["message"] == "ready");
            server
        };
        tokio::task::spawn_blocking(begin).await.unwrap()
    }

    /// The administrator, signed in there.
    pub async fn boss(&self, server: &Server) -> Actor {
        Actor::sign_in(&base(server), 0, LOGIN).await
    }
}

pub fn base(server: &Server) -> String {
    format!("http://{}", server.public)
}

pub async fn scrape(server: &Server) -> Scrape {
    Scrape::fetch(server.ops).await
}

/// Off the asynchronous threads: the log and the exit code.
pub async fn stop(server: Server) -> (Vec<serde_json::Value>, Option<i32>) {
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap()
}

/// An answer and how long it took.
pub async fn timed(answer: impl Future<Output = Answer>) -> (Answer, Duration) {
    let asked = Instant::now();
    let answer = answer.await;
    (answer, asked.elapsed())
}

/// A telephone number nobody has had yet.
pub fn phone() -> String {
    format!("+7916{:07}", number())
}
