//! What breaks from outside: tables that somebody holds, processes that stop for a while, and traffic that does not.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Client, RequestBuilder};
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use tokio::{task::JoinHandle, time::sleep};

use crate::support::{
    database::TestDatabase,
    load::{self, Load},
};

/// Locks that a session of PostgreSQL holds until it is let go.
pub struct Hold(PgConnection);

impl Hold {
    pub async fn take(database: &TestDatabase, statement: &str) -> Self {
        let mut session = database.connect().await;
        // The server ends who is idle with locks for ten seconds; somebody at a console has switched that off.
        session.execute("SET idle_in_transaction_session_timeout = 0; BEGIN").await.unwrap();
        session.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
        Self(session)
    }

    pub async fn release(mut self) {
        self.0.execute("ROLLBACK").await.unwrap();
    }
}

/// Work that goes on until it is dropped.
pub struct Ongoing(JoinHandle<()>);

impl Ongoing {
    pub fn start(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Stops a process for so long, again and again.
pub fn stutter(process: u32, stopped: Duration, runs: Duration) -> Stutter {
    let process = Pid::from_raw(process.cast_signed());
    let work = async move {
        loop {
            kill(process, Signal::SIGSTOP).unwrap();
            sleep(stopped).await;
            kill(process, Signal::SIGCONT).unwrap();
            sleep(runs).await;
        }
    };
    Stutter { process, _rhythm: Ongoing::start(work) }
}

/// A process that runs on when this is dropped.
pub struct Stutter {
    process: Pid,
    _rhythm: Ongoing,
}

impl Drop for Stutter {
    fn drop(&mut self) {
        let _ = kill(self.process, Signal::SIGCONT);
    }
}

/// Sends so many requests, at a rate that two busy cores bear, and checks what all are answered.
pub async fn answered(
    status: u16,
    count: usize,
    request: impl Fn(&Client, usize) -> RequestBuilder + Send + Sync + 'static,
) {
    const RATE: u32 = 100;
    let client = Client::new();
    let load = Load::start(RATE, move |number| load::send(request(&client, number)));
    sleep(Duration::from_secs(1) * u32::try_from(count).unwrap() / RATE).await;
    let shots = load.stop().await;
    let others = shots.which(|shot| shot.outcome != Ok(status));
    assert_eq!(others.len(), 0, "{:?}", others.outcomes());
}
