//! What this process knows of how new things are. PostgreSQL raises the version of a domain in the transaction
//! that changes it, whoever does that; here is the highest that was seen there.
//!
//! A worker asks for it all the time. A request asks by itself where that is not enough: when Redis tells of a
//! version that is not known yet; when Redis was away, since what it has is from before; and when nobody has had
//! an answer for a while, as when the database was away. If there is still no answer, what is cached is served, unless
//! somebody has told of something newer.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{key::Domain, store};
use crate::{
    db::{Db, DbError},
    redis_client::RedisClient,
};

/// An answer is good for so long: the worker has then missed several.
const GOOD_FOR: Duration = Duration::from_secs(3);

/// When PostgreSQL was asked, and how often Redis had come back by then.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    returns: u64,
}

#[derive(Debug)]
pub(super) struct Versions {
    db: Db,
    redis: Option<RedisClient>,
    known: [AtomicI64; Domain::ALL.len()],
    /// The last time there was an answer.
    answered: Mutex<Option<Asked>>,
    /// One asks at a time: when, and whether there was an answer.
    asking: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

impl Versions {
    pub fn new(db: Db, redis: Option<RedisClient>) -> Self {
        let (known, answered, asking) = Default::default();
        Self { db, redis, known, answered, asking }
    }

    /// The highest version that was seen in PostgreSQL.
    pub fn known(&self, domain: Domain) -> i64 {
        self.known[domain as usize].load(Ordering::SeqCst)
    }

    /// Sees to it that what is known is recent enough to judge by, and knows of all that was `told`. Whether what
    /// Redis gives can be trusted then, and the least version that a value must have: what was told, if PostgreSQL does
    /// not say otherwise. It may be garbage, but not to know is no reason to serve what may be old.
    pub async fn prepare(&self, domain: Domain, told: i64) -> (bool, i64) {
        let news = told > self.known(domain);
        let asked = if news || !self.is_recent() { self.ask(Instant::now()).await } else { true };
        let trusted = self.answered().is_some_and(|asked| asked.returns == self.returns());
        (trusted, if news && !asked { told } else { 0 })
    }

    /// A version that PostgreSQL has given out.
    pub fn learn(&self, domain: Domain, version: i64) {
        self.known[domain as usize].fetch_max(version, Ordering::SeqCst);
    }

    /// Asks PostgreSQL, unless somebody else has begun to after `since`; whether there was an answer.
    pub async fn ask(&self, since: Instant) -> bool {
        let mut last = self.asking.lock().await;
        if let Some((_, answered)) = last.filter(|(at, _)| *at >= since) {
            return answered;
        }
        let asked = Asked { at: Instant::now(), returns: self.returns() };
        let answered = self.learn_all().await.is_ok();
        if answered {
            *self.answered() = Some(asked);
        }
        *last = Some((asked.at, answered));
        answered
    }

    async fn learn_all(&self) -> Result<(), DbError> {
        let rows = store::versions(&mut self.db.acquire().await?).await?;
        for domain in Domain::ALL {
            if let Some(row) = rows.iter().find(|row| row.name == domain.as_str()) {
                self.learn(domain, row.version);
            }
        }
        Ok(())
    }

    fn is_recent(&self) -> bool {
        self.answered().is_some_and(|asked| asked.at.elapsed() < GOOD_FOR && asked.returns == self.returns())
    }

    fn answered(&self) -> MutexGuard<'_, Option<Asked>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn returns(&self) -> u64 {
        self.redis.as_ref().map_or(0, RedisClient::returns)
    }
}
