//! A Redis of a test's own, on a socket in a directory of its own.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{eventually, files::TempDir};

pub struct TestRedis {
    dir: TempDir,
    child: Option<Child>,
}

impl TestRedis {
    pub async fn start() -> Self {
        let mut redis = Self { dir: TempDir::create(), child: None };
        redis.restart().await;
        redis
    }

    /// As a REDIS_URL.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Starts it again, empty, and waits until it answers.
    pub async fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let spawned = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(spawned.expect("redis-server is missing: install the package redis-server (make test does)"));
        eventually("Redis answers", async || self.ask::<String>(&["PING"]).await.ok()).await;
    }

    /// What it says to one command.
    pub async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        tokio::time::timeout(Duration::from_secs(10), command.query_async(&mut connection)).await.unwrap()
    }

    /// Ends it, as a crash would.
    pub fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_file(self.socket()).unwrap();
    }

    /// It stays, and answers nothing.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.as_ref().unwrap().id().cast_signed()), signal).unwrap();
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
